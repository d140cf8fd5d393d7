//! The hosts a client has paired with: where they were reached, who they are, and the key that lets
//! the next handshake be IK.
//!
//! ```text
//! # address or name      Wavry ID                                    X25519 static key, base64url
//! 192.0.2.7:4810 iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w 8-wlCO_PHxge... Living room
//! ```

use std::path::Path;

use super::list_file::{
    self, BadLine, Entry, ListError, ListFile, append_line, label, parse_line, split_word,
};
use crate::WavryId;
use crate::id::{decode_key, encode_key};

/// One host this client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// The address or name it is reached by, as the user types it; no blanks.
    pub name: String,
    /// Its identity.
    pub id: WavryId,
    /// Its X25519 static key.
    pub static_public: [u8; 32],
    /// What it calls itself or the user calls it; may be empty.
    pub label: String,
}

impl KnownHost {
    fn line(&self) -> String {
        let (id, key, label) = (self.id, encode_key(&self.static_public), label(&self.label));
        format!("{} {id} {key} {label}", self.name).trim_end().to_owned()
    }
}

impl Entry for KnownHost {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let (name, rest) = split_word(line);
        let (id, rest) = split_word(rest);
        let (key, label) = split_word(rest);
        let id = id.parse().map_err(|_| "the second word is not a Wavry ID (43 characters)")?;
        let static_public = decode_key(key).ok_or("the third word is not a static key (43 characters)")?;
        Ok(Self { name: name.to_owned(), id, static_public, label: label.to_owned() })
    }
}

/// The known hosts of a client. Of two lines with one name the first counts.
#[derive(Debug)]
pub struct KnownHosts(ListFile<KnownHost>);

impl KnownHosts {
    /// Reads the list at `path`; no file means no host is known.
    ///
    /// # Errors
    /// [`ListError`], for a file that somebody else could have written among others.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        ListFile::load(path).map(Self)
    }

    /// The host that `name` stands for.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&KnownHost> {
        self.0.entries.iter().find(|host| host.name == name)
    }

    /// The host with this identity, for when its address changed.
    #[must_use]
    pub fn find_id(&self, id: &WavryId) -> Option<&KnownHost> {
        self.0.entries.iter().find(|host| host.id == *id)
    }

    /// All known hosts, in the order of the file.
    #[must_use]
    pub fn hosts(&self) -> &[KnownHost] {
        &self.0.entries
    }

    /// The lines that could not be read.
    #[must_use]
    pub fn bad_lines(&self) -> &[BadLine] {
        &self.0.bad_lines
    }

    /// Writes `host` in the place of the first line with its name, or at the end of the file.
    /// Returns false, and changes nothing, if the file says so already.
    ///
    /// Whoever calls this for a name whose identity changed has asked the user first.
    ///
    /// # Errors
    /// [`ListError`]; nothing has changed then.
    pub fn remember(&mut self, host: &KnownHost) -> Result<bool, ListError> {
        let name = &host.name;
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        if name.is_empty() || name.starts_with('#') || !name.chars().all(is_plain) {
            return Err(ListError::BadName);
        }
        let line = host.line();
        self.0.edit(|text| {
            let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
            let is_same = |line: &&[u8]| {
                parse_line::<KnownHost>(line)
                    .is_ok_and(|known| known.is_some_and(|known| known.name == *name))
            };
            let Some(index) = lines.iter().position(is_same) else {
                return Some(append_line(text, &line));
            };
            if lines[index] == line.as_bytes() {
                return None;
            }
            lines[index] = line.as_bytes();
            Some(lines.join(&b'\n'))
        })
    }

    /// Reads the file again if it changed. Returns whether it did.
    ///
    /// # Errors
    /// [`ListError`]; the list stays as it was.
    pub fn reload_if_changed(&mut self) -> Result<bool, ListError> {
        self.0.reload_if_changed()
    }

    /// Reads the text of a list: its hosts, and the lines that are neither host nor comment nor
    /// blank.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Vec<KnownHost>, Vec<BadLine>) {
        list_file::parse(text)
    }
}
