//! Files whose place others may have prepared (open(2), geteuid(2)).
//!
//! Invariants:
//! * I1: geteuid takes nothing, writes to no memory of ours and cannot fail.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Opens what stands at `path` to be read: no link is followed, and a pipe does not wait for its writer. What it is has
/// to be asked of the open file, which nobody can swap.
///
/// # Errors
/// The kernel's; `ELOOP` for a link.
pub fn open_warily(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens what stands at `path` to be read, links followed; a pipe does not wait for its writer.
///
/// # Errors
/// The kernel's.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens an empty file at `path` to be locked, and makes it if need be, for this user alone; no link is followed.
///
/// # Errors
/// The kernel's; `ELOOP` for a link.
pub fn open_to_claim(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// The user that the process acts for.
#[must_use]
pub fn effective_user() -> u32 {
    // SAFETY: the call has no conditions (I1).
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn own_file_is_opened_and_a_link_to_it_is_not() {
        let path = std::env::temp_dir().join(format!("heimdall-file-{}", std::process::id()));
        let link = path.with_extension("link");
        std::fs::write(&path, "x").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (opened, refused) = (open_warily(&path), open_warily(&link));
        let followed = open_without_waiting(&link);
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(opened.unwrap().metadata().unwrap().uid(), effective_user());
        assert!(followed.is_ok());
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
