//! Who may connect to this host: a text file that the operator reads and edits.
//!
//! ```text
//! # comment
//! iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w Anna's laptop
//! ```

use std::path::Path;

use super::list_file::{self, BadLine, Entry, ListError, ListFile, append_line, label, split_word};
use crate::WavryId;

/// One client that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPeer {
    /// Its identity, which is all that counts.
    pub id: WavryId,
    /// What it calls itself or the operator calls it; may be empty.
    pub name: String,
}

impl Entry for AllowedPeer {
    fn parse(line: &str) -> Result<Self, &'static str> {
        let (id, name) = split_word(line);
        let id = id.parse().map_err(|_| "does not start with a Wavry ID (43 characters)")?;
        Ok(Self { id, name: name.to_owned() })
    }
}

/// The allow-list of a host. A line that cannot be read allows nobody and is reported.
#[derive(Debug)]
pub struct AllowList(ListFile<AllowedPeer>);

impl AllowList {
    /// Reads the list at `path`; no file means nobody is allowed.
    ///
    /// # Errors
    /// [`ListError`], for a file that somebody else could have written among others.
    pub fn load(path: &Path) -> Result<Self, ListError> {
        ListFile::load(path).map(Self)
    }

    /// Whether `id` may connect.
    #[must_use]
    pub fn contains(&self, id: &WavryId) -> bool {
        self.0.entries.iter().any(|peer| peer.id == *id)
    }

    /// Those who may connect, in the order of the file.
    #[must_use]
    pub fn peers(&self) -> &[AllowedPeer] {
        &self.0.entries
    }

    /// The lines that could not be read.
    #[must_use]
    pub fn bad_lines(&self) -> &[BadLine] {
        &self.0.bad_lines
    }

    /// Allows `id` under `name`, at the end of the file, which is replaced as a whole. Control
    /// characters in the name become blanks, as it may come from the peer. Returns false, and
    /// changes nothing, if the file allows `id` already.
    ///
    /// # Errors
    /// [`ListError`]; nothing has changed then.
    pub fn add(&mut self, id: WavryId, name: &str) -> Result<bool, ListError> {
        self.0.edit(|text| {
            let (peers, _) = list_file::parse::<AllowedPeer>(text);
            if peers.iter().any(|peer| peer.id == id) {
                return None;
            }
            Some(append_line(text, format!("{id} {}", label(name)).trim_end()))
        })
    }

    /// Reads the file again if it changed. Returns whether it did. Sessions of a peer that is no
    /// longer listed are the caller's to end.
    ///
    /// # Errors
    /// [`ListError`]; the list stays as it was.
    pub fn reload_if_changed(&mut self) -> Result<bool, ListError> {
        self.0.reload_if_changed()
    }

    /// Reads the text of a list: its peers, and the lines that are neither peer nor comment nor
    /// blank.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Vec<AllowedPeer>, Vec<BadLine>) {
        list_file::parse(text)
    }
}
