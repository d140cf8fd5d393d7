//! Writing small files so that a crash or a second process never leaves half of one.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

/// Permission bits of everything created here: the owner's only.
pub(super) const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// Creates `path` with `contents`, its missing parent directories included. Fails with
/// `AlreadyExists` rather than touch a file that is there.
pub(super) fn create_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let dir = parent(path);
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)?;
    let staged = Staged::write(path, contents, PRIVATE_FILE)?;
    match rustix::fs::renameat_with(CWD, &staged.path, CWD, path, RenameFlags::NOREPLACE) {
        // File systems that know no such rename do know hard links, which never overwrite either.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(&staged.path, path)?,
        result => result?,
    }
    sync_dir(dir)
}

/// Puts `contents` in the place of `path`, existing or not, with the permission bits `mode`.
pub(super) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let staged = Staged::write(path, contents, mode)?;
    std::fs::rename(&staged.path, path)?;
    sync_dir(parent(path))
}

/// Holds off every other writer that also asks, until the returned handle is dropped. The lock is
/// on the directory, so it survives the file being replaced.
pub(super) fn lock_dir_of(path: &Path) -> io::Result<File> {
    let dir = parent(path);
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir)?;
    let handle = File::open(dir)?;
    rustix::fs::flock(&handle, FlockOperation::LockExclusive)?;
    Ok(handle)
}

/// A complete file beside its destination, removed on drop if it was not moved there.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn write(destination: &Path, contents: &[u8], mode: u32) -> io::Result<Self> {
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| io::Error::other("no random bytes"))?;
        let name = destination.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut staged_name = std::ffi::OsString::from(".");
        staged_name.push(name);
        staged_name.push(format!(".{:016x}.tmp", u64::from_ne_bytes(nonce)));
        let path = parent(destination).join(staged_name);

        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(&path)?;
        let staged = Self { path };
        file.write_all(contents)?;
        if mode != PRIVATE_FILE {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, which is the usual case.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Without this the rename itself can be lost in a power failure.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
