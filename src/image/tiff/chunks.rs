//! The strips or tiles of a TIFF that the `tiff` crate does not undo, put together to an image.
//!
//! As libtiff 4.7, which Pillow uses, also in what is passed over: bytes beyond a chunk's samples.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;
use weezl::BitOrder;

use super::super::cancellation::Cancellation;
use super::super::decode::memory_budget;
use super::super::encoded_file::EncodedFile;
use super::super::ifd::Directory;
use super::super::jpeg::{self, Colors};
use super::super::{format::Format, header};
use super::description::{
    Compression, Description, JPEG_TABLES, PREDICTOR, Photometric, STRIP_BYTE_COUNTS,
    STRIP_OFFSETS, TILE_BYTE_COUNTS, TILE_OFFSETS,
};
use super::{fax, ycbcr};
use crate::error::ImageError;

/// Most bytes that a zstd stream may look back: libtiff's at all levels but the last two.
const MAX_ZSTD_WINDOW: u64 = 32 << 20;
/// Bytes that are held for it beside the samples.
pub(super) const ZSTD_BYTES: u64 = 2 * MAX_ZSTD_WINDOW;

/// One strip or tile.
struct Chunk<'a> {
    data: &'a [u8],
    /// Its first column and row in the image.
    left: usize,
    top: usize,
    /// Its own size: of a tile, also what lies outside the image; of the last strip, only what lies
    /// in it.
    width: usize,
    height: usize,
}

/// Undoes the compression of every chunk; returns rows that begin at a byte, samples in the
/// machine's byte order, and planes one after the other.
///
/// # Errors
/// [`ImageError::Undecodable`] also for a chunk with too few samples;
/// [`ImageError::Abandoned`] between chunks, and between rows where that is possible.
pub(super) fn read(
    encoded: &[u8],
    directory: &Directory<'_>,
    description: &Description,
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let planes = if description.planar {
        description.samples
    } else {
        1
    };
    let samples = description.samples / planes;
    let bits = description.bits as usize;
    let row_len = |width: usize| (width * samples * bits).div_ceil(8);
    let plane_len = row_len(size.0) * size.1;
    if plane_len * planes > memory_budget(size) {
        return Err(ImageError::Undecodable);
    }
    let mut image = vec![0; plane_len * planes];
    let reader = ChunkReader {
        directory,
        description,
        samples,
        size,
        cancellation,
    };
    let chunks = chunks(encoded, directory, description, size)?;
    for (idx, chunk) in chunks.iter().enumerate() {
        cancellation.check()?;
        let chunk_row = row_len(chunk.width);
        let chunk_len = chunk_row.checked_mul(chunk.height);
        if chunk_len.is_none_or(|len| len > max_chunk_bytes(size)) {
            return Err(ImageError::UnsupportedVariant);
        }
        let bytes = reader.read(chunk)?;
        if bytes.len() < chunk_row * chunk.height {
            return Err(ImageError::Undecodable);
        }
        let plane = idx / (chunks.len() / planes);
        let shown = row_len(chunk.width.min(size.0 - chunk.left));
        let left = row_len(chunk.left);
        let rows = chunk.height.min(size.1 - chunk.top);
        for (y, row) in bytes.chunks_exact(chunk_row).take(rows).enumerate() {
            let at = plane * plane_len + (chunk.top + y) * row_len(size.0) + left;
            image[at..at + shown].copy_from_slice(&row[..shown]);
        }
    }
    Ok(image)
}

/// Most bytes of one chunk's samples: a tile may be larger than its image.
fn max_chunk_bytes(size: (usize, usize)) -> usize {
    memory_budget(size) + (16 << 20)
}

/// Finds all chunks, in their order in the file.
fn chunks<'a>(
    encoded: &'a [u8],
    directory: &Directory<'a>,
    description: &Description,
    (width, height): (usize, usize),
) -> Result<Vec<Chunk<'a>>, ImageError> {
    let is_tiled = directory.names(TILE_OFFSETS);
    let (offsets, lengths) = match is_tiled {
        true => (TILE_OFFSETS, TILE_BYTE_COUNTS),
        false => (STRIP_OFFSETS, STRIP_BYTE_COUNTS),
    };
    let numbers = |tag| {
        let entry = directory.entry(tag).ok_or(ImageError::Undecodable)?;
        Ok::<Vec<u64>, ImageError>(entry.uints().collect())
    };
    let (chunk_width, chunk_height) = description.chunk;
    let across = width.div_ceil(chunk_width);
    let per_plane = across * height.div_ceil(chunk_height);
    let places = numbers(offsets)?.into_iter().zip(numbers(lengths)?);
    let chunk = |(idx, (offset, length)): (usize, (u64, u64))| {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        let within = idx % per_plane;
        let top = within / across * chunk_height;
        Some(Chunk {
            data: encoded.get(start..end)?,
            left: within % across * chunk_width,
            top,
            width: chunk_width,
            height: if is_tiled {
                chunk_height
            } else {
                chunk_height.min(height - top)
            },
        })
    };
    let chunks: Option<Vec<_>> = places.enumerate().map(chunk).collect();
    chunks.ok_or(ImageError::Undecodable)
}

/// Undoes one chunk's compression.
struct ChunkReader<'a> {
    directory: &'a Directory<'a>,
    description: &'a Description,
    /// Number of samples of a pixel in one chunk.
    samples: usize,
    /// Size of the image.
    size: (usize, usize),
    cancellation: Cancellation<'a>,
}

impl ChunkReader<'_> {
    fn read(&self, chunk: &Chunk<'_>) -> Result<Vec<u8>, ImageError> {
        let description = self.description;
        match description.compression {
            Compression::Jpeg => return self.jpeg(chunk),
            Compression::Fax(coding) => {
                let is_reversed = description.is_reversed;
                return fax::decode(chunk.data, coding, is_reversed, (chunk.width, chunk.height));
            }
            _ => {}
        }
        if description.photometric == Photometric::YCbCr {
            let sides = (chunk.width, chunk.height);
            let len = ycbcr::stored_len(sides, description.subsampling);
            let stored = self.bytes(chunk.data, len)?;
            return Ok(ycbcr::to_rgb(&stored, sides, description));
        }
        let row_len = (chunk.width * self.samples * description.bits as usize).div_ceil(8);
        let mut bytes = self.bytes(chunk.data, row_len * chunk.height)?;
        if description.bits == 16
            && self.directory.is_little_endian() != cfg!(target_endian = "little")
        {
            bytes
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .for_each(|b| b.reverse());
        }
        match (
            self.directory.value(PREDICTOR).unwrap_or(1),
            description.bits,
        ) {
            (1, _) => {}
            (2, 8) => bytes
                .chunks_exact_mut(row_len)
                .for_each(|row| add_up(row.as_chunks_mut::<1>().0, self.samples)),
            (2, 16) => bytes
                .chunks_exact_mut(row_len)
                .for_each(|row| add_up(row.as_chunks_mut::<2>().0, self.samples)),
            _ => return Err(ImageError::UnsupportedVariant),
        }
        Ok(bytes)
    }

    /// Undoes a compression of bytes; exactly `len` of them.
    fn bytes(&self, data: &[u8], len: usize) -> Result<Vec<u8>, ImageError> {
        let damaged = ImageError::Undecodable;
        if len > max_chunk_bytes(self.size) {
            return Err(damaged);
        }
        match self.description.compression {
            Compression::None => data.get(..len).map(<[u8]>::to_vec).ok_or(damaged),
            Compression::PackBits => unpack_bits(data, len),
            Compression::Lzw => {
                let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
                let mut bytes = vec![0; len];
                let mut done = 0;
                let mut rest = data;
                while done < len {
                    self.cancellation.check()?;
                    let piece = &mut bytes[done..];
                    let result = decoder.decode_bytes(rest, piece);
                    rest = &rest[result.consumed_in..];
                    done += result.consumed_out;
                    if result.status.is_err() || result.consumed_in + result.consumed_out == 0 {
                        return Err(damaged);
                    }
                }
                Ok(bytes)
            }
            Compression::Deflate => {
                let file = EncodedFile::new(data, self.cancellation);
                exactly(flate2::read::ZlibDecoder::new(file), len)
            }
            Compression::Zstd => {
                let file = EncodedFile::new(data, self.cancellation);
                let decoder = StreamingDecoder::new_with_max_window_size(file, MAX_ZSTD_WINDOW);
                exactly(decoder.map_err(|_| ImageError::Undecodable)?, len)
            }
            Compression::Jpeg | Compression::Fax(_) => Err(damaged),
        }
    }

    /// A JPEG file without the tables that all chunks share.
    fn jpeg(&self, chunk: &Chunk<'_>) -> Result<Vec<u8>, ImageError> {
        const START: [u8; 2] = [0xff, 0xd8];
        const END: [u8; 2] = [0xff, 0xd9];
        let tables = match self.directory.entry(JPEG_TABLES) {
            Some(entry) => entry.bytes(),
            None => &[],
        };
        let tables = tables.strip_prefix(&START).unwrap_or(tables);
        let tables = tables.strip_suffix(&END).unwrap_or(tables);
        let image = chunk
            .data
            .strip_prefix(&START)
            .ok_or(ImageError::Undecodable)?;
        let file = [&START[..], tables, image].concat();
        let (width, height) = header::size(Format::Jpeg, &file)?;
        let (width, height) = (width as usize, height as usize);
        let needed = chunk.height.min(self.size.1 - chunk.top);
        if width != chunk.width || !(needed..=self.description.chunk.1).contains(&height) {
            return Err(ImageError::Undecodable);
        }
        let colors = match self.description.photometric {
            Photometric::YCbCr => Colors::Rgb,
            _ => Colors::AsStored,
        };
        let mut samples = jpeg::samples(
            EncodedFile::new(&file, self.cancellation),
            (width, height, self.samples),
            colors,
            self.cancellation,
        )?;
        // A tile that ends early, as its last rows are outside the image.
        samples.resize(width * self.samples * chunk.height.max(height), 0);
        Ok(samples)
    }
}

/// Undoes the differences between the samples of neighbouring pixels.
fn add_up<const N: usize>(row: &mut [[u8; N]], samples: usize) {
    for at in samples..row.len() {
        let mut word = [0; 2];
        word[..N].copy_from_slice(&row[at - samples]);
        let before = u16::from_ne_bytes(word);
        word[..N].copy_from_slice(&row[at]);
        let sum = if N == 1 {
            // Within a byte, whatever the byte order.
            [row[at - samples][0].wrapping_add(row[at][0]), 0]
        } else {
            before.wrapping_add(u16::from_ne_bytes(word)).to_ne_bytes()
        };
        row[at].copy_from_slice(&sum[..N]);
    }
}

fn exactly(mut reader: impl Read, len: usize) -> Result<Vec<u8>, ImageError> {
    let mut bytes = vec![0; len];
    let read = reader.read_exact(&mut bytes);
    read.map_err(|_| ImageError::Undecodable)?;
    Ok(bytes)
}

fn unpack_bits(data: &[u8], len: usize) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::with_capacity(len);
    let mut rest = data;
    while bytes.len() < len {
        match rest {
            [0x80, after @ ..] => rest = after,
            [count @ 0..0x80, after @ ..] => {
                let literal = after.get(..usize::from(*count) + 1);
                let literal = literal.ok_or(ImageError::Undecodable)?;
                bytes.extend_from_slice(literal);
                rest = &after[literal.len()..];
            }
            [count, byte, after @ ..] => {
                let count = 257 - usize::from(*count);
                bytes.resize(bytes.len() + count, *byte);
                rest = after;
            }
            _ => return Err(ImageError::Undecodable),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}
