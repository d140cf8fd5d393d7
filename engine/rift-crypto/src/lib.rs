#![allow(missing_docs)]
pub const TAG_LEN: usize = 16;
