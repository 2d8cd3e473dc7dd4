//! Fax coding: modified Huffman (MH), T.4 (group 3) in one and two dimensions, T.6 (group 4).

use std::borrow::Cow;

use hayro_ccitt::{DecodeSettings, Decoder, DecoderContext, EncodingMode};

use crate::error::ImageError;

/// How a fax is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaxCoding {
    /// Runs of each row by itself, which begins at a byte.
    Huffman,
    /// Group 3, with marks between rows.
    T4 {
        /// Rows also as differences from the row before.
        two_dimensional: bool,
    },
    /// Group 4.
    T6,
}

/// Undoes the coding; black is 1, eight pixels a byte, each row at a byte.
///
/// # Errors
/// [`ImageError::Undecodable`] for fewer rows than the chunk has.
pub(super) fn decode(
    data: &[u8],
    coding: FaxCoding,
    is_reversed: bool,
    (width, height): (usize, usize),
) -> Result<Vec<u8>, ImageError> {
    let data = match is_reversed {
        true => Cow::Owned(data.iter().map(|byte| byte.reverse_bits()).collect()),
        false => Cow::Borrowed(data),
    };
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| ImageError::Undecodable);
    let settings = DecodeSettings {
        columns: side(width)?,
        rows: side(height)?,
        end_of_block: coding != FaxCoding::Huffman,
        end_of_line: matches!(coding, FaxCoding::T4 { .. }),
        rows_are_byte_aligned: coding == FaxCoding::Huffman,
        encoding: match coding {
            FaxCoding::T4 {
                two_dimensional: true,
            } => EncodingMode::Group3_2D,
            FaxCoding::T4 { .. } | FaxCoding::Huffman => EncodingMode::Group3_1D,
            FaxCoding::T6 => EncodingMode::Group4,
        },
        strict: false,
    };
    let mut rows = Rows {
        row_len: width.div_ceil(8),
        bytes: vec![0; width.div_ceil(8) * height],
        num_rows: 0,
        max_rows: height,
    };
    // It may be damaged behind the last row.
    let _ = hayro_ccitt::decode(&data, &mut rows, &mut DecoderContext::new(settings));
    if rows.num_rows < height {
        return Err(ImageError::Undecodable);
    }
    Ok(rows.bytes)
}

/// Collects rows.
struct Rows {
    row_len: usize,
    bytes: Vec<u8>,
    num_rows: usize,
    max_rows: usize,
}

impl Decoder for Rows {
    fn push_row(&mut self, changes: &[u32]) {
        if self.num_rows == self.max_rows {
            return;
        }
        let at = self.num_rows * self.row_len;
        let row = &mut self.bytes[at..at + self.row_len];
        for run in changes.chunks(2) {
            let start = run[0] as usize;
            let end = run.get(1).map_or(usize::MAX, |end| *end as usize);
            blacken(row, start, end.min(8 * row.len()));
        }
        self.num_rows += 1;
    }
}

/// Sets the bits from `start` to before `end`.
fn blacken(row: &mut [u8], start: usize, end: usize) {
    if start >= end {
        return;
    }
    let (first, last) = (start / 8, (end - 1) / 8);
    let (head, tail) = (0xffu8 >> (start % 8), 0xffu8 << (7 - (end - 1) % 8));
    if first == last {
        row[first] |= head & tail;
        return;
    }
    row[first] |= head;
    row[first + 1..last].fill(0xff);
    row[last] |= tail;
}
