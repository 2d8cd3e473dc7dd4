//! An image's file as decoders read it: in pieces, between which they can be stopped.
//!
//! Decoders that do not hand out rows are stopped where they read. What compresses best becomes
//! about a thousand times its size, so that a piece is some megabytes of pixels at most.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use super::wanted::Wanted;

/// Bytes that are read between two questions whether the image is still wanted.
const PIECE: usize = 4 << 10;

/// Reads a file that lies in memory, and fails once its image is not wanted any more.
pub(super) struct EncodedFile<'a> {
    file: Cursor<&'a [u8]>,
    wanted: Wanted<'a>,
    /// Bytes that may be read before the next question.
    unasked: usize,
}

impl<'a> EncodedFile<'a> {
    /// Reads `encoded` from its beginning.
    pub(super) fn new(encoded: &'a [u8], wanted: Wanted<'a>) -> Self {
        Self {
            file: Cursor::new(encoded),
            wanted,
            unasked: 0,
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        if self.unasked == 0 {
            self.wanted.check().map_err(io::Error::other)?;
            self.unasked = PIECE;
        }
        Ok(())
    }
}

impl BufRead for EncodedFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ask()?;
        let rest = self.file.fill_buf()?;
        Ok(&rest[..rest.len().min(self.unasked)])
    }

    fn consume(&mut self, amount: usize) {
        self.unasked = self.unasked.saturating_sub(amount);
        self.file.consume(amount);
    }
}

impl Read for EncodedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ask()?;
        let len = buffer.len().min(self.unasked);
        let read = self.file.read(&mut buffer[..len])?;
        self.unasked -= read;
        Ok(read)
    }
}

impl Seek for EncodedFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
