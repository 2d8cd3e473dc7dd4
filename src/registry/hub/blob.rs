//! Partial files: bytes are written and hashed as they arrive, and renamed once they are verified.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::digest::{Hasher, Mismatch};
use super::disk;
use super::endpoint::RemoteFile;
use crate::error::Result;

/// Lock held by the one process that writes a file's bytes; released when it is dropped, or when
/// the process ends for any reason.
#[derive(Debug)]
pub(super) struct BlobLock {
    _file: File,
}

impl BlobLock {
    /// Takes the lock; returns `None` while another process holds it.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that is not writable.
    pub(super) fn take(path: &Path) -> Result<Option<Self>> {
        let failed = |error| disk::failed("cannot be locked", path, &error);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Users that share a cache wait for one another.
            options.mode(0o664);
        }
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                // Hashes are checked anyway: in the worst case something is downloaded twice.
                tracing::debug!(%error, lock = %path.display(), "this file system has no locks");
                Ok(Some(Self { _file: file }))
            }
        }
    }
}

/// A partially downloaded file.
pub(super) struct PartialBlob {
    path: PathBuf,
    file: File,
    len: u64,
    remote: RemoteFile,
    hasher: Hasher,
}

impl PartialBlob {
    /// Opens the partial file, or creates an empty one. Reads all of it to compute the hash.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that cannot be read or written.
    pub(super) fn open(path: PathBuf, remote: &RemoteFile) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| disk::failed("cannot be opened", &path, &error))?;
        let mut partial = Self {
            hasher: Hasher::new(&remote.expected, remote.size),
            remote: remote.clone(),
            path,
            file,
            len: 0,
        };
        partial.read_again()?;
        Ok(partial)
    }

    fn read_again(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let num_read = self
                .file
                .read(&mut buffer)
                .map_err(|error| disk::failed("cannot be read", &self.path, &error))?;
            if num_read == 0 {
                return Ok(());
            }
            self.len += num_read as u64;
            if self.len > self.remote.size {
                // Too long: from another file or a faulty server.
                return self.restart();
            }
            self.hasher.update(&buffer[..num_read]);
        }
    }

    /// Number of bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_whole(&self) -> bool {
        self.len == self.remote.size
    }

    /// Discards all bytes.
    ///
    /// # Errors
    /// Returns `Hub` for a cache that is not writable.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|error| disk::failed("cannot be emptied", &self.path, &error))?;
        self.len = 0;
        self.hasher = Hasher::new(&self.remote.expected, self.remote.size);
        Ok(())
    }

    /// Appends the next bytes.
    ///
    /// # Errors
    /// Returns [`Rejected::TooLong`] for more bytes than the file has, which are not stored, and
    /// [`Rejected::Disk`] for a failed write.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::result::Result<(), Rejected> {
        let len = self.len + bytes.len() as u64;
        if len > self.remote.size {
            return Err(Rejected::TooLong);
        }
        self.file.write_all(bytes).map_err(|error| {
            Rejected::Disk(disk::failed("cannot be written", &self.path, &error))
        })?;
        self.hasher.update(bytes);
        self.len = len;
        Ok(())
    }

    /// Verifies the whole file and renames it to its final name.
    ///
    /// # Errors
    /// Returns [`Rejected::Hash`] for wrong bytes, which are discarded, and [`Rejected::Disk`].
    pub(super) fn finish(self, blob: &Path) -> std::result::Result<(), Rejected> {
        let failed = |error| Rejected::Disk(disk::failed("cannot be kept", blob, &error));
        if let Err(mismatch) = self.hasher.check() {
            std::fs::remove_file(&self.path).map_err(failed)?;
            return Err(Rejected::Hash(mismatch));
        }
        // A name that survives a power failure must refer to bytes that do.
        self.file.sync_data().map_err(failed)?;
        std::fs::rename(&self.path, blob).map_err(failed)
    }
}

/// Reason why bytes were rejected.
#[derive(Debug)]
pub(super) enum Rejected {
    TooLong,
    Hash(Mismatch),
    Disk(crate::error::Error),
}

#[cfg(test)]
mod tests {
    use super::super::digest::Expected;
    use super::*;

    const GIT_HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn remote() -> RemoteFile {
        RemoteFile {
            name: "hello".to_owned(),
            etag: GIT_HELLO.to_owned(),
            size: 6,
            expected: Expected::of_etag(GIT_HELLO),
        }
    }

    #[test]
    fn what_came_counts_after_a_restart_of_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let open = || PartialBlob::open(path.clone(), &remote()).unwrap();
        open().write(b"hel").unwrap();
        let mut partial = open();
        assert_eq!(partial.len(), 3);
        assert!(matches!(partial.write(b"lo\n!"), Err(Rejected::TooLong)));
        partial.write(b"lo\n").unwrap();
        assert!(partial.is_whole());
        let blob = dir.path().join("blob");
        partial.finish(&blob).unwrap();
        assert_eq!(std::fs::read(&blob).unwrap(), b"hello\n");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_wrong_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("partial");
        let open = || PartialBlob::open(path.clone(), &remote()).unwrap();
        let mut partial = open();
        partial.write(b"hallo\n").unwrap();
        let blob = dir.path().join("blob");
        assert!(matches!(partial.finish(&blob), Err(Rejected::Hash(_))));
        assert!(!path.exists() && !blob.exists());
        // A file with too many bytes must be another one.
        std::fs::write(&path, "hello\nhello\n").unwrap();
        assert_eq!(open().len(), 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let mut partial = open();
        partial.write(b"hall").unwrap();
        partial.restart().unwrap();
        partial.write(b"hello\n").unwrap();
        partial.finish(&blob).unwrap();
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let first = BlobLock::take(&path).unwrap();
        assert!(first.is_some());
        assert!(BlobLock::take(&path).unwrap().is_none());
        drop(first);
        assert!(BlobLock::take(&path).unwrap().is_some());
    }
}
