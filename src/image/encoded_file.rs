//! A reader over an encoded image, by which decoders can be cancelled.
//!
//! Decoders that do not return single rows are cancelled where they read. The best compression is
//! about 1 : 1000, so a piece is at most some megabytes of pixels.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use super::cancellation::Cancellation;

/// Bytes that are read between two checks for cancellation.
const PIECE: usize = 4 << 10;

/// Reads a file in memory, and fails after cancellation.
pub(super) struct EncodedFile<'a> {
    file: Cursor<&'a [u8]>,
    cancellation: Cancellation<'a>,
    /// Bytes that may be read before the next check.
    bytes_until_check: usize,
}

impl<'a> EncodedFile<'a> {
    /// Reads `encoded` from its beginning.
    pub(super) fn new(encoded: &'a [u8], cancellation: Cancellation<'a>) -> Self {
        Self {
            file: Cursor::new(encoded),
            cancellation,
            bytes_until_check: 0,
        }
    }

    fn ask(&mut self) -> io::Result<()> {
        if self.bytes_until_check == 0 {
            self.cancellation.check().map_err(io::Error::other)?;
            self.bytes_until_check = PIECE;
        }
        Ok(())
    }
}

impl BufRead for EncodedFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ask()?;
        let rest = self.file.fill_buf()?;
        Ok(&rest[..rest.len().min(self.bytes_until_check)])
    }

    fn consume(&mut self, amount: usize) {
        self.bytes_until_check = self.bytes_until_check.saturating_sub(amount);
        self.file.consume(amount);
    }
}

impl Read for EncodedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ask()?;
        let len = buffer.len().min(self.bytes_until_check);
        let read = self.file.read(&mut buffer[..len])?;
        self.bytes_until_check -= read;
        Ok(read)
    }
}

impl Seek for EncodedFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
