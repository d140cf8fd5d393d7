//! A text file of one entry per line that people edit and programs add to.
//!
//! Owns reading it with suspicion, noticing that it changed, and changing it without disturbing
//! what else is in it: comments, blank lines and lines it could not read stay as they are.
//! Invariant: what is in memory is what some complete version of the file said.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::disk;

/// Longest list that is read, in bytes; tens of thousands of entries.
pub const MAX_LIST_BYTES: u64 = 1 << 20;

/// Longest label written behind an entry, in characters.
const LABEL_CHARS_MAX: usize = 64;

/// A line that is neither an entry, nor a comment, nor blank. It is skipped, so it allows nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.number, self.reason)
    }
}

/// Why a list could not be read or changed, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file is there but cannot be read.
    #[error("cannot read the list {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a directory, a socket or the like.
    #[error("the list {path} is not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others can write it, so its entries may be theirs.
    #[error(
        "the list {path} can be changed by others (mode {mode:04o}); check its entries, then run `chmod go-w {path}`",
        path = path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to neither this user nor root.
    #[error(
        "the list {path} belongs to user id {owner}, but this program runs as {user}; check its entries, \
         then use `chown`",
        path = path.display()
    )]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// User id that owns it.
        owner: u32,
        /// User id of this process.
        user: u32,
    },
    /// Longer than [`MAX_LIST_BYTES`].
    #[error("the list {path} is longer than 1 MiB", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The changed list could not be written; the old one is intact.
    #[error("cannot write the list {path}: {source}", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name cannot stand at the start of a line.
    #[error("a host's name in the list must have no blanks and not start with '#'")]
    BadName,
}

/// What one line can say.
pub(super) trait Entry: Sized {
    /// Reads a line that is trimmed, not empty and not a comment.
    fn parse(line: &str) -> Result<Self, &'static str>;
}

/// A list in memory and where it came from.
#[derive(Debug)]
pub(super) struct ListFile<E> {
    path: PathBuf,
    pub(super) entries: Vec<E>,
    pub(super) bad_lines: Vec<BadLine>,
    /// `None` while there is no file.
    version: Option<Version>,
}

impl<E: Entry> ListFile<E> {
    /// Reads the list; a file that does not exist is an empty one.
    pub(super) fn load(path: &Path) -> Result<Self, ListError> {
        let mut list =
            Self { path: path.to_owned(), entries: Vec::new(), bad_lines: Vec::new(), version: None };
        let contents = list.read()?;
        list.accept(contents.as_ref());
        Ok(list)
    }

    /// Reads the list again if the file was changed, replaced, created or removed since. Returns
    /// whether it was. On an error the entries stay as they were.
    pub(super) fn reload_if_changed(&mut self) -> Result<bool, ListError> {
        let current = match std::fs::metadata(&self.path) {
            Ok(metadata) => Some(Version::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(ListError::Unreadable { path: self.path.clone(), source }),
        };
        if current == self.version {
            return Ok(false);
        }
        let contents = self.read()?;
        self.accept(contents.as_ref());
        Ok(true)
    }

    /// Applies `edit` to the text of the file as it is now and writes the result, unless it is
    /// `None`. Other programs that edit through this function wait meanwhile.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Result<bool, ListError> {
        let unwritable = |source| ListError::Unwritable { path: self.path.clone(), source };
        // A symbolic link stays one: what it points to is locked and replaced.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let _lock = disk::lock_dir_of(&target).map_err(unwritable)?;
        let contents = self.read()?;
        let (text, mode) = match &contents {
            Some(contents) => (&contents.bytes[..], contents.mode),
            None => (&[][..], disk::PRIVATE_FILE),
        };
        let Some(changed) = edit(text) else {
            self.accept(contents.as_ref());
            return Ok(false);
        };
        if changed.len() as u64 > MAX_LIST_BYTES {
            return Err(ListError::TooLong { path: self.path.clone() });
        }
        disk::replace(&target, &changed, mode).map_err(unwritable)?;
        let contents = self.read()?;
        self.accept(contents.as_ref());
        Ok(true)
    }

    fn accept(&mut self, contents: Option<&Contents>) {
        (self.entries, self.bad_lines) = contents.map_or_else(Default::default, |c| parse(&c.bytes));
        self.version = contents.map(|contents| contents.version);
    }

    fn read(&self) -> Result<Option<Contents>, ListError> {
        let path = || self.path.clone();
        let unreadable = |source| ListError::Unreadable { path: path(), source };
        // Non-blocking, so that a FIFO in the file's place is refused below rather than waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = match File::options().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(unreadable(source)),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(ListError::NotAFile { path: path() });
        }
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user && owner != 0 {
            return Err(ListError::WrongOwner { path: path(), owner, user });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(ListError::TooOpen { path: path(), mode });
        }
        let mut bytes = Vec::new();
        file.take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_LIST_BYTES {
            return Err(ListError::TooLong { path: path() });
        }
        Ok(Some(Contents { bytes, mode, version: Version::of(&metadata) }))
    }
}

/// Splits a list into its entries and the lines that are none.
pub(super) fn parse<E: Entry>(bytes: &[u8]) -> (Vec<E>, Vec<BadLine>) {
    let (mut entries, mut bad_lines) = (Vec::new(), Vec::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match parse_line(line) {
            Ok(entry) => entries.extend(entry),
            Err(reason) => bad_lines.push(BadLine { number: index + 1, reason }),
        }
    }
    (entries, bad_lines)
}

/// `Ok(None)` for a comment or a blank line.
pub(super) fn parse_line<E: Entry>(line: &[u8]) -> Result<Option<E>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8 text")?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    E::parse(line).map(Some)
}

/// `text` with `line` after its last line.
pub(super) fn append_line(text: &[u8], line: &str) -> Vec<u8> {
    let gap: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"" } else { b"\n" };
    [text, gap, line.as_bytes(), b"\n"].concat()
}

/// Splits off the first word; the rest is trimmed and may be empty.
pub(super) fn split_word(line: &str) -> (&str, &str) {
    line.split_once(char::is_whitespace).map_or((line, ""), |(word, rest)| (word, rest.trim()))
}

/// A name as a peer gives it, made fit for one line of a file and for a terminal: no line breaks,
/// nothing invisible, nothing that turns text around, not endless.
pub(super) fn label(name: &str) -> String {
    let visible: String = name.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let label: String = words.join(" ").chars().take(LABEL_CHARS_MAX).collect();
    label.trim_end().to_owned()
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

struct Contents {
    bytes: Vec<u8>,
    mode: u32,
    version: Version,
}

/// Tells one state of a file from another. The change time moves with every write and cannot be set
/// back; the inode tells a replaced file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
