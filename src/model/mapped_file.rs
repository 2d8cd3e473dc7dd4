//! Memory-mapped files, which need unsafe code.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::Mmap;

/// Bytes of a file on disk or embedded in the program.
#[derive(Debug)]
pub(super) enum FileBytes {
    /// Memory-mapped; pages are loaded on first access.
    Mapped(Mmap),
    /// Embedded in the program.
    Embedded(&'static [u8]),
}

impl FileBytes {
    /// Maps the file read-only.
    #[allow(unsafe_code)]
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only, as long as the file is now, and outlives
        // every slice of it, since slices borrow it. No program can guarantee that the file is not
        // truncated while it is loaded; downloads and `save_pretrained` replace files by renaming,
        // which keeps a mapping intact.
        let bytes = unsafe { Mmap::map(file) }?;
        Ok(Self::Mapped(bytes))
    }

    /// Removes a range's pages from this process's memory. They are loaded again on the next
    /// access, so in the worst case this costs time.
    #[allow(unsafe_code)]
    pub(super) fn let_go(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(bytes) = self {
            // SAFETY: the mapping is of a file and never written to, so a dropped page holds the
            // same bytes when it is read again. A failure is harmless.
            let _ = unsafe {
                bytes.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Embedded(bytes) => bytes,
        }
    }
}
