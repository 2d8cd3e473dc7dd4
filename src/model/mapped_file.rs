//! A file's bytes without reading them: the one place outside `backend/cuda` with unsafe code.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::Mmap;

/// Bytes of a file on disk or within the program.
#[derive(Debug)]
pub(super) enum FileBytes {
    /// Pages come in as they are touched.
    Mapped(Mmap),
    /// Part of the program itself.
    Embedded(&'static [u8]),
}

impl FileBytes {
    /// Maps the file read-only.
    #[allow(unsafe_code)]
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private, read-only, as long as the file is now, and outlives
        // every slice into it, since they borrow it. That nobody cuts the file short while it is
        // loaded is the one thing that no program can enforce; downloads and `save_pretrained`
        // replace files by renaming, which leaves a mapping whole.
        let bytes = unsafe { Mmap::map(file) }?;
        Ok(Self::Mapped(bytes))
    }

    /// Takes a range's pages out of this process's memory. They come in again when touched, so
    /// this costs time at the worst.
    #[allow(unsafe_code)]
    pub(super) fn let_go(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(bytes) = self {
            // SAFETY: the mapping is of a file and never written to, so that a page which is
            // dropped holds the same bytes when it is read again. Refusal is harmless.
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
