//! PNG, with Pillow's judgement of damage.
//!
//! Pillow (with `LOAD_TRUNCATED_IMAGES` off) checks the checksums of what stands before the pixels,
//! and none of the pixels' own or of what follows; what follows must only be there. An image is
//! whole once its last row is there, and black below where the compressed data ends in order before.
//!
//! So the pixels are decompressed here, by zlib's steps, and given to the `image` crate's decoder in
//! a file without a fault.

use image::ColorType;
use image::codecs::png::PngDecoder;
use zlib_rs::adler32::adler32;
use zlib_rs::crc32::crc32;
use zlib_rs::{Inflate, InflateFlush, Status};

use super::cancellation::Cancellation;
use super::decode::{image_limits, layout, memory_budget, read, undecodable};
use super::encoded_file::EncodedFile;
use super::raster::{Layout, Raster};
use crate::error::ImageError;

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
/// Bytes of a chunk that Pillow decompresses at a time: where the rows end just before the data
/// does, it depends on this whether the end is checked.
const PIECE: usize = 64 << 10;

/// Decodes a file as far as Pillow does.
///
/// # Errors
/// [`ImageError::Undecodable`] for what Pillow refuses.
pub(super) fn decode(
    encoded: &[u8],
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let parts = Parts::of(encoded).ok_or(ImageError::Undecodable)?;
    let mended = parts.mended(size, cancellation)?;
    let file = EncodedFile::new(&mended, cancellation);
    let decoder = PngDecoder::with_limits(file, image_limits(size)).map_err(undecodable)?;
    // Grey whose alpha comes from a transparent level, not from a channel of its own.
    let keyed = encoded.get(25) == Some(&0);
    read(decoder, size, |color| match color {
        ColorType::La16 if keyed => Some(Layout::GreyKeyed16),
        color => layout(color),
    })
}

/// A chunk's kind and data.
type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// A file's chunks.
struct Parts<'a> {
    /// What stands before the pixels, with sound checksums.
    before: Vec<Chunk<'a>>,
    /// The file from the first chunk of pixels on.
    pixels: &'a [u8],
}

impl<'a> Parts<'a> {
    /// `None` for what Pillow refuses: before the pixels a chunk that is cut off, has no name of
    /// letters, or has a wrong checksum; behind them one that is cut off; and a file without pixels.
    fn of(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = encoded.strip_prefix(SIGNATURE)?;
        let mut before = Vec::new();
        let pixels = loop {
            let (length, kind, after) = chunk_head(rest)?;
            match kind {
                b"IEND" => return None,
                b"IDAT" => break rest,
                _ => {}
            }
            let data = after.get(..length)?;
            let (sum, after) = after[length..].split_first_chunk::<4>()?;
            if crc(kind, data) != u32::from_be_bytes(*sum) {
                return None;
            }
            before.push((kind, data));
            rest = after;
        };
        let parts = Self { before, pixels };
        parts.is_whole_to_its_end().then_some(parts)
    }

    /// Whether all chunks from the pixels to the end, or to what is no chunk, are there; of the
    /// pixels themselves the last may be cut off.
    fn is_whole_to_its_end(&self) -> bool {
        let frames = self.before.iter().find(|(kind, _)| *kind == b"acTL");
        let is_animated = frames.is_some_and(
            |(_, data)| matches!(data, [a, b, c, d, ..] if [*a, *b, *c, *d] > [0, 0, 0, 1]),
        );
        let mut rest = self.pixels;
        let mut are_pixels = true;
        while let Some((length, kind, after)) = chunk_head(rest) {
            are_pixels &= kind == b"IDAT";
            if kind == b"IEND" || kind == b"fcTL" && is_animated {
                break;
            }
            if after.len() < length {
                return are_pixels;
            }
            rest = after.get(length + 4..).unwrap_or_default();
        }
        true
    }

    /// Returns a file with all rows and what they need, and nothing that could be wrong.
    fn mended(
        &self,
        size: (usize, usize),
        cancellation: Cancellation<'_>,
    ) -> Result<Vec<u8>, ImageError> {
        let header = self.before.iter().find(|(kind, _)| *kind == b"IHDR");
        let (_, header) = header.ok_or(ImageError::Undecodable)?;
        let passes = passes(size, header).ok_or(ImageError::Undecodable)?;
        let len: usize = passes.iter().map(|pass| pass.0 * pass.1).sum();
        if len > memory_budget(size) {
            return Err(ImageError::Undecodable);
        }
        let packed = stored(&self.rows(&passes, len, cancellation)?);
        let mut file = Vec::with_capacity(packed.len() + 4096);
        file.extend_from_slice(SIGNATURE);
        let needed = |kind: &[u8; 4]| matches!(kind, b"IHDR" | b"PLTE" | b"tRNS");
        let before = self.before.iter().filter(|(kind, _)| needed(kind));
        let pixels: [Chunk<'_>; 2] = [(b"IDAT", &packed), (b"IEND", &[])];
        for (kind, data) in before.copied().chain(pixels) {
            let length = u32::try_from(data.len()).map_err(undecodable)?;
            file.extend(length.to_be_bytes());
            file.extend_from_slice(kind);
            file.extend_from_slice(data);
            file.extend(crc(kind, data).to_be_bytes());
        }
        Ok(file)
    }

    /// Decompresses the rows of these lengths and counts, `len` bytes, one at a time.
    fn rows(
        &self,
        passes: &[(usize, usize)],
        len: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<Vec<u8>, ImageError> {
        let mut rows = vec![0; len];
        let mut row_lens = passes
            .iter()
            .flat_map(|&(len, num)| std::iter::repeat_n(len, num));
        let mut row = 0..row_lens.next().unwrap_or(0);
        let mut inflate = Inflate::new(true, 15);
        for piece in pixel_chunks(self.pixels).flat_map(|data| data.chunks(PIECE)) {
            let mut rest = piece;
            while !rest.is_empty() {
                cancellation.check()?;
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(rest, &mut rows[row.clone()], InflateFlush::NoFlush)
                    .map_err(undecodable)?;
                let read = (inflate.total_in() - read) as usize;
                let written = (inflate.total_out() - written) as usize;
                rest = &rest[read..];
                row.start += written;
                if row.is_empty() {
                    let Some(next) = row_lens.next().filter(|_| status != Status::StreamEnd) else {
                        return Ok(rows);
                    };
                    row.end += next;
                } else if status == Status::StreamEnd || read + written == 0 {
                    return Err(ImageError::Undecodable);
                }
            }
        }
        Err(ImageError::Undecodable)
    }
}

/// Splits the length and kind of a chunk off; `None` at the end and for what is no chunk.
fn chunk_head(rest: &[u8]) -> Option<(usize, &[u8; 4], &[u8])> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (kind, after) = after.split_first_chunk::<4>()?;
    let is_name = kind.iter().all(u8::is_ascii_alphabetic);
    is_name.then_some((u32::from_be_bytes(*length) as usize, kind, after))
}

/// The data of consecutive chunks of pixels; the last may be cut off.
fn pixel_chunks(pixels: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = pixels;
    std::iter::from_fn(move || {
        let (length, _, after) = chunk_head(rest).filter(|(_, kind, _)| *kind == b"IDAT")?;
        let (data, after) = after.split_at(length.min(after.len()));
        rest = after.get(4..).unwrap_or_default();
        Some(data)
    })
}

/// A zlib stream that holds the bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    const MAX_BLOCK: usize = 0xffff;
    let num_blocks = bytes.len().div_ceil(MAX_BLOCK);
    let mut stream = Vec::with_capacity(bytes.len() + 5 * num_blocks + 6);
    stream.extend([0x78, 1]);
    for (idx, block) in bytes.chunks(MAX_BLOCK).enumerate() {
        let len = block.len() as u16;
        stream.push(u8::from(idx + 1 == num_blocks));
        stream.extend(len.to_le_bytes());
        stream.extend((!len).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend(adler32(1, bytes).to_be_bytes());
    stream
}

/// Length of a row, with the byte before it that names its filter, and number of rows, of each pass.
fn passes((width, height): (usize, usize), header: &[u8]) -> Option<Vec<(usize, usize)>> {
    let &[.., depth, color, _, _, interlace] = header.get(..13)? else {
        return None;
    };
    let channels = match color {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        6 => 4,
        _ => return None,
    };
    // First column and row, and steps, of the passes of Adam7.
    const INTERLACED: [(usize, usize, usize, usize); 7] = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ];
    let passes = match interlace {
        0 => &[(0, 0, 1, 1)][..],
        _ => &INTERLACED,
    };
    let passes = passes.iter().map(|&(x, y, across, down)| {
        let width = width.saturating_sub(x).div_ceil(across);
        let height = height.saturating_sub(y).div_ceil(down);
        (
            (width * channels * usize::from(depth)).div_ceil(8) + 1,
            height * width.min(1),
        )
    });
    Some(passes.collect())
}

fn crc(kind: &[u8; 4], data: &[u8]) -> u32 {
    crc32(crc32(0, kind), data)
}
