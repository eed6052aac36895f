//! The node's own files: replaced whole or not at all, written beside their place under another name, synced, renamed;
//! trusted only where nobody else can have written them; and never put in the place of what somebody else has put there.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::{errno, file};

/// Permission bits by which others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;

/// Who may do everything anyway.
const ROOT: u32 = 0;

/// Why a file is not believed to be the node's own.
#[derive(Debug, Error)]
pub enum Distrust {
    /// The system does not give it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a device, a pipe, a link.
    #[error("it is no regular file")]
    NotAFile,
    /// Whoever wrote it may have put anything into it.
    #[error("it belongs to another user (uid {0})")]
    Foreign(u32),
    /// Whoever may write to it may put anything into it.
    #[error("others than its owner may write to it (mode {0:o})")]
    Exposed(u32),
}

/// Opens the node's own file at `path`; `None` when there is none.
///
/// # Errors
/// [`Distrust`].
pub fn open(path: &Path) -> Result<Option<(File, Metadata)>, Distrust> {
    let file = match file::open_warily(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(errno::ELOOP) => return Err(Distrust::NotAFile),
        file => file?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Distrust::NotAFile);
    }
    trust(meta.uid(), meta.mode(), file::effective_user())?;
    Ok(Some((file, meta)))
}

/// Refuses the file of `owner` with `mode` unless only `user` or root can have written it.
pub(super) const fn trust(owner: u32, mode: u32, user: u32) -> Result<(), Distrust> {
    if owner != user && owner != ROOT {
        return Err(Distrust::Foreign(owner));
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(Distrust::Exposed(mode & 0o777));
    }
    Ok(())
}

/// Says whether a file that begins with `magic` could be written to `path`.
///
/// # Errors
/// What the system says.
pub fn probe(path: &Path, magic: &[u8]) -> io::Result<()> {
    refuse_others(path, magic)?;
    // Not the name under which a node that runs may be writing now.
    let probe = beside(path, &format!("check-{}", std::process::id()));
    create(&probe)?;
    fs::remove_file(probe)
}

/// Says whether a file could be made beside `path`.
///
/// # Errors
/// What the system says.
pub fn probe_beside(path: &Path) -> io::Result<()> {
    let probe = beside(path, &format!("check-{}", std::process::id()));
    create(&probe)?;
    fs::remove_file(probe)
}

/// Makes the directory at `path`, for this user alone, if only its last part is missing.
///
/// # Errors
/// What the system says, also when something else stands there.
pub fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() { Ok(()) } else { Err(error) }
        }
        outcome => outcome,
    }
}

/// Keeps `directory` to this process for as long as the file is open that comes back: files are written there under names that
/// do not change. `path` is that of an empty file in it, which stays.
///
/// # Errors
/// What the system says, and when another process, or another part of this one, has the directory.
pub fn claim(path: &Path) -> io::Result<File> {
    let file = file::open_to_claim(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("another node that runs keeps its own there"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A file in its place.
#[derive(Debug)]
pub struct Placed {
    /// Its length.
    pub bytes: u64,
    /// Why the disk may not know its place yet.
    pub doubt: Option<io::Error>,
}

/// A file being written, under another name; it is removed unless it is [placed](Unfinished::place).
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    /// Begins a file that will begin with `magic` and take the place of `target`.
    ///
    /// # Errors
    /// What the system says, and when something stands there that does not begin so.
    pub fn begin(target: &Path, magic: &[u8]) -> io::Result<Self> {
        refuse_others(target, magic)?;
        let path = beside(target, "tmp");
        // What a killed node has left.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        Ok(Self { file: create(&path)?, path, target: target.to_owned() })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// What the system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Puts it in its place, and makes that last.
    ///
    /// # Errors
    /// What the system says: the place is as it was. Once the file is there, a failure is only a doubt.
    pub fn place(self) -> io::Result<Placed> {
        self.place_and(sync_directory)
    }

    /// As [`Unfinished::place`], with `sync` to make it last.
    pub(super) fn place_and(
        self,
        sync: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Placed> {
        self.file.sync_all()?;
        let bytes = self.file.metadata()?.len();
        fs::rename(&self.path, &self.target)?;
        Ok(Placed { bytes, doubt: sync(&self.target).err() })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing under this name; whatever stays is removed when the next one begins.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the name of `target` last.
pub(super) fn sync_directory(target: &Path) -> io::Result<()> {
    let Some(directory) = target.parent() else { return Ok(()) };
    #[expect(clippy::disallowed_methods, reason = "control opens the files of a node")]
    File::open(directory)?.sync_all()
}

/// Refuses a place where something stands that does not begin with `magic`: the rename would put a file even in the place
/// of `/dev/null`, or of one that the operator named by mistake.
fn refuse_others(path: &Path, magic: &[u8]) -> io::Result<()> {
    let Ok(meta) = fs::metadata(path) else { return Ok(()) };
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut head = vec![0; magic.len()];
    let len = usize::try_from(meta.len()).unwrap_or(usize::MAX).min(head.len());
    let file = file::open_warily(path).map_err(|error| match error.raw_os_error() {
        Some(errno::ELOOP) => io::Error::other("it is no regular file"),
        _ => error,
    })?;
    file.read_exact_at(&mut head[..len], 0)?;
    if magic.starts_with(&head[..len]) {
        Ok(())
    } else {
        Err(io::Error::other("a file stands there that this program has not written: move it"))
    }
}

/// A file of this user alone that did not exist before.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// `path` with an ending added.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests;
