//! What this crate keeps on disk: the identity, and two lists that an operator reads and edits.
//!
//! Owns the formats and the care taken in reading and writing them. Invariants: a file is replaced
//! whole or not at all, and one that somebody else could have written is not believed.

pub(crate) mod allow_list;
mod disk;
pub(crate) mod identity_file;
pub(crate) mod known_hosts;
pub(crate) mod list_file;
