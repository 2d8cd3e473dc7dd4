//! Reads the bits of a scan.

use super::DAMAGED;
use crate::error::ImageError;

/// Reads bits, the highest of a byte first; behind a byte of ones, the next byte has seven.
pub(super) struct Bits<'a> {
    encoded: &'a [u8],
    at: usize,
    /// Bits that have been taken from the bytes, from the highest on; zeros behind them.
    cache: u64,
    len: u32,
    is_behind_ones: bool,
}

impl<'a> Bits<'a> {
    /// Reads up to a marker or the end.
    pub(super) fn new(encoded: &'a [u8]) -> Self {
        Self {
            encoded,
            at: 0,
            cache: 0,
            len: 0,
            is_behind_ones: false,
        }
    }

    /// Bytes up to the marker that ends the scan, once all of its bits are read.
    pub(super) fn end(mut self) -> usize {
        // What is left of the last byte is padding.
        while self.at < self.encoded.len() && !self.is_at_marker() {
            self.at += 1;
        }
        self.at
    }

    fn is_at_marker(&self) -> bool {
        matches!(self.encoded[self.at..], [0xff] | [0xff, 0x80..=0xff, ..])
    }

    fn fill(&mut self) {
        while self.len <= 56 && self.at < self.encoded.len() && !self.is_at_marker() {
            let byte = self.encoded[self.at];
            let count = if self.is_behind_ones { 7 } else { 8 };
            self.cache |= u64::from(byte) << (64 - count - self.len);
            self.len += count;
            self.is_behind_ones = byte == 0xff;
            self.at += 1;
        }
    }

    /// Reads up to 32 bits.
    ///
    /// # Errors
    /// Damage at the end.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, ImageError> {
        if count == 0 {
            return Ok(0);
        }
        if self.len < count {
            self.fill();
            if self.len < count {
                return Err(DAMAGED);
            }
        }
        let bits = self.cache >> (64 - count);
        self.cache <<= count;
        self.len -= count;
        Ok(bits as u32)
    }

    /// Reads zeros up to a one, and it: returns how many zeros, at most `max`.
    ///
    /// # Errors
    /// Damage at the end and for more zeros.
    pub(super) fn zeros(&mut self, max: u32) -> Result<u32, ImageError> {
        let mut sum = 0;
        loop {
            let zeros = self.cache.leading_zeros().min(self.len);
            if zeros < self.len {
                sum += zeros;
                if sum > max {
                    return Err(DAMAGED);
                }
                self.cache = self.cache << zeros << 1;
                self.len -= zeros + 1;
                return Ok(sum);
            }
            // Only zeros so far.
            sum += self.len;
            self.cache = 0;
            self.len = 0;
            self.fill();
            if self.len == 0 || sum > max {
                return Err(DAMAGED);
            }
        }
    }
}
