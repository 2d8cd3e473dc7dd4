//! Free space and error messages for the cache's disk.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::config::ByteSize;
use crate::error::{Error, HubProblem};

/// Number of bytes that this process may still write to the file system of `path`; `None` if
/// unknown.
#[cfg(unix)]
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Number of bytes that this process may still write to the file system of `path`; `None` if
/// unknown.
#[cfg(not(unix))]
pub(super) fn free_bytes(_path: &Path) -> Option<u64> {
    None
}

/// Advice for a full disk.
pub(super) const MAKE_ROOM: &str = "Free some space, for instance with `medgemma rm`, or choose \
                                    another disk with --download-dir or HF_HOME.";

/// Creates the error for a failed operation on `path`.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let place = path.display();
    let message = match error.kind() {
        ErrorKind::StorageFull => {
            let free = free_bytes(path.parent().unwrap_or(path));
            let free = free.map_or(String::new(), |free| format!(" ({} free)", ByteSize(free)));
            format!("{place}: the disk is full{free}. {MAKE_ROOM} Downloaded data is kept.")
        }
        ErrorKind::QuotaExceeded => format!(
            "{place}: the user's disk quota is used up. {MAKE_ROOM} Downloaded data is kept."
        ),
        ErrorKind::FileTooLarge => format!(
            "{place}: the file grows larger than is allowed here ({error}). Raise the limit \
             (ulimit -f), or name a file system that takes large files with --download-dir."
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!(
            "{place}: it {what}: {error}. Choose a writable directory with --download-dir or \
             HF_HOME."
        ),
        _ => format!("{place}: it {what}: {error}"),
    };
    Error::Hub {
        problem: HubProblem::Disk,
        message,
    }
}
