//! Uncompressed samples (PS3.5 section 8).

use super::color::ybr_to_rgb;
use super::decoded::Number;
use super::{EncodedFrame, FrameSamples, damaged, unsupported};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::{Photometric, PixelFormat};

/// The order of bytes in samples of more than 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    /// The lowest first.
    Little,
    /// The highest first.
    Big,
}

/// Takes the samples out of a frame's bytes.
///
/// # Errors
/// [`ImageError::Dicom`] for a frame that is too short and for numbers of 32 bits that are not read;
/// [`ImageError::Abandoned`] between rows.
pub(super) fn samples(
    frame: EncodedFrame<'_>,
    order: ByteOrder,
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    if format.bits_allocated == 1 {
        return bits(frame, format);
    }
    let bytes = frame.bytes.get(..format.native_bytes()).ok_or(TOO_SHORT)?;
    if format.num_samples == 1 {
        return grey(bytes, order, format, cancellation).map(FrameSamples::Grey);
    }
    let mut rgb = match format.photometric {
        Photometric::YbrFull422 => halved_colors(bytes, order, format),
        _ => colors(bytes, order, format),
    };
    cancellation.check()?;
    // Uncompressed, the names of JPEG 2000's colours mean nothing; some writers leave them behind.
    if format.photometric.is_ybr() {
        ybr_to_rgb(&mut rgb);
    }
    Ok(FrameSamples::Rgb(rgb))
}

const TOO_SHORT: ImageError = damaged("a frame is shorter than its rows and columns need");

/// The lowest bit of each byte first.
fn bits(frame: EncodedFrame<'_>, format: &PixelFormat) -> Result<FrameSamples, ImageError> {
    let all = frame.first_bit..frame.first_bit + format.num_pixels();
    if all.end > frame.bytes.len() * 8 {
        return Err(TOO_SHORT);
    }
    let number = Number::new(1, format.is_signed);
    let bit = |at: usize| number.of(u32::from(frame.bytes[at / 8] >> (at % 8)));
    Ok(FrameSamples::Grey(all.map(bit).collect()))
}

fn grey(
    bytes: &[u8],
    order: ByteOrder,
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<Vec<i32>, ImageError> {
    let shift = format.high_bit + 1 - format.bits_stored;
    let number = Number::new(format.bits_stored, format.is_signed);
    let mut samples = Vec::with_capacity(format.num_pixels());
    let row_len = format.columns * format.bits_allocated as usize / 8;
    for row in bytes.chunks_exact(row_len) {
        cancellation.check()?;
        match format.bits_allocated {
            8 => samples.extend(row.iter().map(|byte| number.of(u32::from(*byte >> shift)))),
            16 => {
                let words = row.as_chunks::<2>().0.iter();
                samples
                    .extend(words.map(|word| number.of(u32::from(word_of(*word, order)) >> shift)));
            }
            _ => {
                for word in row.as_chunks::<4>().0 {
                    let word = match order {
                        ByteOrder::Little => u32::from_le_bytes(*word),
                        ByteOrder::Big => u32::from_be_bytes(*word),
                    } >> shift;
                    if format.bits_stored == 32 && !format.is_signed && word > i32::MAX as u32 {
                        return Err(unsupported("samples of more than 2,147,483,647"));
                    }
                    samples.push(number.of(word));
                }
            }
        }
    }
    Ok(samples)
}

fn word_of(bytes: [u8; 2], order: ByteOrder) -> u16 {
    match order {
        ByteOrder::Little => u16::from_le_bytes(bytes),
        ByteOrder::Big => u16::from_be_bytes(bytes),
    }
}

/// Reads colours of which each pixel has its own.
fn colors(bytes: &[u8], order: ByteOrder, format: &PixelFormat) -> Vec<u8> {
    let mut rgb = vec![0; format.num_values()];
    let pixels = rgb.as_chunks_mut::<3>().0.iter_mut();
    let level = Level::new(format, order);
    let width = format.bits_allocated as usize / 8;
    if format.is_planar {
        let plane_len = format.num_pixels() * width;
        for (at, pixel) in pixels.enumerate() {
            *pixel = [0, 1, 2].map(|plane| level.at(bytes, plane * plane_len + at * width));
        }
    } else {
        for (at, pixel) in pixels.enumerate() {
            *pixel = [0, 1, 2].map(|sample| level.at(bytes, (at * 3 + sample) * width));
        }
    }
    rgb
}

/// Reads colours of which two neighbours share the differences: two of brightness, then both.
fn halved_colors(bytes: &[u8], order: ByteOrder, format: &PixelFormat) -> Vec<u8> {
    let level = Level::new(format, order);
    let width = format.bits_allocated as usize / 8;
    let mut pixels = Vec::with_capacity(format.num_values());
    for row in bytes.chunks_exact(format.columns.div_ceil(2) * 4 * width) {
        for column in 0..format.columns {
            let pair = column / 2 * 4;
            let sample = |idx: usize| level.at(row, (pair + idx) * width);
            pixels.extend([sample(column % 2), sample(2), sample(3)]);
        }
    }
    pixels
}

/// Reads a sample of colour.
struct Level {
    order: ByteOrder,
    bits_allocated: u32,
    bits_stored: u32,
    shift: u32,
}

impl Level {
    fn new(format: &PixelFormat, order: ByteOrder) -> Self {
        Self {
            order,
            bits_allocated: format.bits_allocated,
            bits_stored: format.bits_stored,
            shift: format.high_bit + 1 - format.bits_stored,
        }
    }

    fn at(&self, bytes: &[u8], at: usize) -> u8 {
        let word = match self.bits_allocated {
            8 => u16::from(bytes[at]),
            _ => word_of([bytes[at], bytes[at + 1]], self.order),
        };
        let stored = u32::from(word) >> self.shift;
        eight_bits(
            stored & (u32::MAX >> (32 - self.bits_stored)),
            self.bits_stored,
        )
    }
}

/// Returns the highest 8 bits of a level, or the level itself brought to 8 bits.
pub(super) fn eight_bits(level: u32, bits: u32) -> u8 {
    match bits {
        8 => level as u8,
        9.. => (level >> (bits - 8)) as u8,
        _ => {
            let most = (1 << bits) - 1;
            ((level * 255 + most / 2) / most) as u8
        }
    }
}
