//! The identity on disk: the 32 bytes of the seed and nothing else, readable by its owner alone.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::disk;
use crate::{CryptoError, Identity};

const SEED_LEN: usize = 32;

/// Whether [`Identity::load_or_create`] found an identity or made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// There was none; this is its first use.
    New,
    /// It was there.
    Existing,
}

/// Why there is no identity to work with, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such file.
    #[error("there is no identity at {path}; create one with `wavry keygen`", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("cannot read the identity {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a directory, a socket or the like.
    #[error("the identity {path} is not a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Group or others have access, so the key may be known to them.
    #[error(
        "the identity {path} is accessible to others (mode {mode:04o}); if nobody else has read it, run \
         `chmod 600 {path}`, else delete it and pair again",
        path = path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error(
        "the identity {path} belongs to user id {owner}, but this program runs as {user}; run it as that \
         user or use `chown`",
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
    /// Not 32 bytes: damaged, or some other file.
    #[error(
        "the identity {path} has {len} bytes instead of 32; restore it from a backup, or delete it and pair \
         again",
        path = path.display()
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// There was none and none could be written.
    #[error("cannot write a new identity to {path}: {source}", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// See [`CryptoError`].
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl Identity {
    /// Loads the identity at `path`, or makes one there if there is none: mode 0600, missing parent
    /// directories 0700, complete or not at all. Of two processes that try at once, both end up
    /// with the same identity.
    ///
    /// # Errors
    /// [`IdentityError`]. An existing file is never altered or replaced.
    pub fn load_or_create(path: &Path) -> Result<(Self, Created), IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Missing { .. }) => {}
            result => return result.map(|identity| (identity, Created::Existing)),
        }
        let identity = Self::generate()?;
        match disk::create_new(path, identity.seed()) {
            Ok(()) => Ok((identity, Created::New)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path).map(|identity| (identity, Created::Existing))
            }
            Err(source) => Err(IdentityError::Unwritable { path: path.to_owned(), source }),
        }
    }

    /// Loads the identity at `path`.
    ///
    /// # Errors
    /// [`IdentityError`]; a file that anybody else could have read or written is refused.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
            _ => IdentityError::Unreadable { path: path.to_owned(), source },
        };
        // Non-blocking, so that a FIFO in the file's place is refused below rather than waited for.
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(unreadable)?;
        // The open file is examined, not the path, which could name another one by now.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(IdentityError::NotAFile { path: path.to_owned() });
        }
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != user {
            return Err(IdentityError::WrongOwner { path: path.to_owned(), owner, user });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::TooOpen { path: path.to_owned(), mode });
        }

        // One byte more than a seed, to notice a file that is longer.
        let mut bytes = Zeroizing::new([0; SEED_LEN + 1]);
        let mut len = 0;
        let mut file = file.take(bytes.len() as u64);
        loop {
            match file.read(&mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        if len != SEED_LEN {
            let len = if len > SEED_LEN { metadata.len() } else { len as u64 };
            return Err(IdentityError::WrongLength { path: path.to_owned(), len });
        }
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        seed.copy_from_slice(&bytes[..SEED_LEN]);
        Ok(Self::from_zeroizing_seed(seed)?)
    }
}
