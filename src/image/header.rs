//! An image's size as its header states it, found without decoding anything.
//!
//! Decoders are only started on what passed these checks, and what they deliver must have this
//! size: a file whose header and decoder disagree is rejected.

use super::format::Format;
use super::ifd::Directory;
use super::jpeg2000;
use super::metadata::{RiffChunk, jpeg_segments, png_chunks, riff_chunks};
use crate::error::ImageError;

/// Most scans that a progressive JPEG may have. Cameras and optimisers write about ten; each costs
/// a pass over the whole image, and a few bytes are enough to ask for one.
const MAX_JPEG_SCANS: usize = 64;

/// Width and height as stored, before the image is turned upright.
///
/// # Errors
/// [`ImageError::Undecodable`] without a whole header, [`ImageError::UnsupportedVariant`] for kinds
/// of JPEG that are not read.
pub(super) fn size(format: Format, encoded: &[u8]) -> Result<(u32, u32), ImageError> {
    match format {
        Format::Jpeg => return jpeg(encoded),
        Format::Png => png(encoded),
        Format::WebP => webp(encoded),
        Format::Gif => gif(encoded),
        Format::Bmp => bmp(encoded),
        Format::Tiff => tiff(encoded),
        Format::Jpeg2000 => return Ok(jpeg2000::Header::of(encoded)?.size),
    }
    .ok_or(ImageError::Undecodable)
}

/// A palette must consist of whole colours: the decoder panics at the end of one that does not.
fn png(encoded: &[u8]) -> Option<(u32, u32)> {
    let header = encoded.get(8..24)?;
    let palette_is_whole = png_chunks(encoded)
        .filter(|chunk| chunk.kind == b"PLTE")
        .all(|palette| palette.data.len() % 3 == 0);
    (header[4..8] == *b"IHDR" && palette_is_whole)
        .then(|| (be32(&header[8..]), be32(&header[12..])))
}

fn jpeg(encoded: &[u8]) -> Result<(u32, u32), ImageError> {
    let mut size = None;
    let mut num_scans = 0;
    for segment in jpeg_segments(encoded) {
        match (segment.marker, segment.payload) {
            // Baseline, extended and progressive with Huffman coding.
            (0xc0..=0xc2, [precision, h1, h0, w1, w0, components, ..]) => {
                if *precision != 8 || !matches!(components, 1 | 3 | 4) {
                    return Err(ImageError::UnsupportedVariant);
                }
                let (w, h) = (
                    u16::from_be_bytes([*w1, *w0]),
                    u16::from_be_bytes([*h1, *h0]),
                );
                size.get_or_insert((u32::from(w), u32::from(h)));
            }
            (0xf7, _) => return Err(ImageError::UnreadFormat { name: "JPEG-LS" }),
            // Lossless, hierarchical and arithmetic coding.
            (0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, _) => {
                return Err(ImageError::UnsupportedVariant);
            }
            (0xda, _) => num_scans += 1,
            _ => {}
        }
    }
    if num_scans > MAX_JPEG_SCANS {
        return Err(ImageError::UnsupportedVariant);
    }
    size.ok_or(ImageError::Undecodable)
}

/// The canvas. Frames must have the sizes that stand around them, since the decoder decodes a frame
/// first and compares later or not at all.
fn webp(encoded: &[u8]) -> Option<(u32, u32)> {
    let chunks = || riff_chunks(encoded.get(12..).unwrap_or_default());
    let first = chunks().next()?;
    let canvas = match (first.kind, first.data) {
        (b"VP8X", data) => {
            let sides = data.get(4..10)?;
            (1 + le24(sides), 1 + le24(&sides[3..]))
        }
        (kind, data) => return webp_frame(kind, data),
    };
    let all_have = |size, chunk: &RiffChunk<'_>| match webp_frame(chunk.kind, chunk.data) {
        Some(frame) => frame == size,
        None => true,
    };
    let sound = chunks().all(|chunk| match (chunk.kind, chunk.data) {
        (
            b"ANMF",
            [
                x0,
                x1,
                x2,
                y0,
                y1,
                y2,
                w0,
                w1,
                w2,
                h0,
                h1,
                h2,
                _,
                _,
                _,
                _,
                frame @ ..,
            ],
        ) => {
            let corner = (2 * le24(&[*x0, *x1, *x2]), 2 * le24(&[*y0, *y1, *y2]));
            let size = (1 + le24(&[*w0, *w1, *w2]), 1 + le24(&[*h0, *h1, *h2]));
            corner.0 + size.0 <= canvas.0
                && corner.1 + size.1 <= canvas.1
                && riff_chunks(frame).all(|nested| all_have(size, &nested))
        }
        (b"ANMF", _) => false,
        _ => all_have(canvas, &chunk),
    });
    sound.then_some(canvas)
}

fn webp_frame(kind: &[u8; 4], data: &[u8]) -> Option<(u32, u32)> {
    match (kind, data) {
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some((side(*w0, *w1), side(*h0, *h1)))
        }
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            Some((1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)))
        }
        _ => None,
    }
}

/// The screen, grown to hold the first frame as Pillow grows it.
fn gif(encoded: &[u8]) -> Option<(u32, u32)> {
    let screen = encoded.get(..13)?;
    let (width, height) = (le16(&screen[6..]), le16(&screen[8..]));
    let palette = if screen[10] & 0x80 != 0 {
        3 << ((screen[10] & 7) + 1)
    } else {
        0
    };
    let mut rest = encoded.get(13 + palette..)?;
    loop {
        match rest {
            [0x2c, frame @ ..] => {
                let frame = frame.get(..9)?;
                let right = le16(frame) + le16(&frame[4..]);
                let bottom = le16(&frame[2..]) + le16(&frame[6..]);
                return Some((width.max(right), height.max(bottom)));
            }
            // An extension: its kind, then blocks with their lengths before them, up to an empty one.
            [0x21, _, blocks @ ..] => {
                rest = blocks;
                while let [length @ 1..=255, after @ ..] = rest {
                    rest = after.get(usize::from(*length)..)?;
                }
                rest = rest.get(1..)?;
            }
            _ => return None,
        }
    }
}

fn bmp(encoded: &[u8]) -> Option<(u32, u32)> {
    let header = encoded.get(14..)?;
    if le32(header.get(..4)?) == 12 {
        let sides = header.get(4..8)?;
        return Some((le16(sides), le16(&sides[2..])));
    }
    let sides = header.get(4..12)?;
    let width = le32(sides) as i32;
    // A negative height means that the rows stand from top to bottom.
    let height = le32(&sides[4..]) as i32;
    Some((u32::try_from(width).ok()?, height.unsigned_abs()))
}

fn tiff(encoded: &[u8]) -> Option<(u32, u32)> {
    let directory = Directory::first_in(encoded)?;
    Some((directory.value(256)?, directory.value(257)?))
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn le24(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

fn le16(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], 0, 0])
}
