//! TIFF: the first picture of a file, in strips or tiles, plain, LZW, Deflate, PackBits or fax.
//!
//! The `tiff` crate undoes compression and layout; what samples mean is decided here, as
//! `PIL.TiffImagePlugin.OPEN_INFO` has it. Unlike Pillow, 16-bit grey where 0 is white is inverted.
//! Not read: JPEG inside TIFF, YCbCr, Lab, floating point, signed and 32-bit samples.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::decode::memory_budget;
use super::ifd::{Directory, Entry};
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const SAMPLES_PER_PIXEL: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTE_COUNTS: u16 = 279;
const PLANAR_CONFIGURATION: u16 = 284;
const PREDICTOR: u16 = 317;
const COLOR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const YCBCR_SUBSAMPLING: u16 = 530;

/// What the samples mean.
#[derive(Clone, Copy, PartialEq)]
enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
}

impl Photometric {
    fn num_colors(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }
}

/// What the first sample beyond the colours means.
#[derive(Clone, Copy, PartialEq)]
enum Alpha {
    /// There is none, or it is to be ignored.
    None,
    Plain,
    Premultiplied,
}

/// The fields that decide how samples are read.
struct Description {
    photometric: Photometric,
    bits: u32,
    samples: usize,
    alpha: Alpha,
    planar: bool,
    /// Strips or tiles that the picture needs.
    num_chunks: usize,
}

impl Description {
    fn of(directory: &Directory<'_>, (width, height): (usize, usize)) -> Result<Self, ImageError> {
        let value = |tag, default| match directory.names(tag) {
            true => directory.value(tag).ok_or(ImageError::Undecodable),
            false => Ok(default),
        };
        let all = |tag| {
            directory
                .entry(tag)
                .map(|entry| entry.uints().collect::<Vec<_>>())
        };

        let photometric = match value(PHOTOMETRIC, 0)? {
            0 => Photometric::WhiteIsZero,
            1 => Photometric::BlackIsZero,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            5 => Photometric::Cmyk,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        // None, fax group 4, LZW, Deflate (both numbers), PackBits.
        if !matches!(value(COMPRESSION, 1)?, 1 | 4 | 5 | 8 | 32773 | 32946)
            || value(FILL_ORDER, 1)? != 1
            || all(SAMPLE_FORMAT).is_some_and(|formats| formats.iter().any(|&format| format != 1))
        {
            return Err(ImageError::UnsupportedVariant);
        }
        let samples = match value(SAMPLES_PER_PIXEL, 1)? as usize {
            samples @ 1..=MAX_SAMPLES => samples,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        let bits = all(BITS_PER_SAMPLE).unwrap_or(vec![1]);
        let bits = match bits.first() {
            Some(&first @ (1 | 2 | 4 | 8 | 16)) if bits.iter().all(|&b| b == first) => first as u32,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        let num_extra = samples.checked_sub(photometric.num_colors());
        let alpha = match (num_extra, all(EXTRA_SAMPLES).as_deref()) {
            (None, _) => return Err(ImageError::Undecodable),
            (Some(0), _) => Alpha::None,
            (Some(_), Some([1, ..])) => Alpha::Premultiplied,
            (Some(_), Some([2, ..])) => Alpha::Plain,
            // Pillow takes an RGB file's fourth sample that nothing is said about for alpha.
            (Some(1), None) if photometric == Photometric::Rgb => Alpha::Plain,
            (Some(_), _) => Alpha::None,
        };

        let planar = value(PLANAR_CONFIGURATION, 1)? == 2;
        let num_chunks = if directory.names(TILE_OFFSETS) {
            match (
                value(TILE_WIDTH, 0)? as usize,
                value(TILE_LENGTH, 0)? as usize,
            ) {
                // TIFF asks for multiples of 16; without, a file could ask for millions of tiles.
                (0..16, _) | (_, 0..16) => return Err(ImageError::Undecodable),
                (across, down) => width.div_ceil(across) * height.div_ceil(down),
            }
        } else {
            match value(ROWS_PER_STRIP, u32::MAX)? as usize {
                0 => return Err(ImageError::Undecodable),
                rows => height.div_ceil(rows),
            }
        };
        let num_chunks = num_chunks * if planar { samples } else { 1 };
        Ok(Self {
            photometric,
            bits,
            samples,
            alpha,
            planar,
            num_chunks,
        })
    }
}

/// Decodes the file's first picture.
///
/// # Errors
/// [`ImageError::UnsupportedVariant`] for the kinds named above, else [`ImageError::Undecodable`].
pub(super) fn decode(encoded: &[u8], size: (usize, usize)) -> Result<Raster, ImageError> {
    let directory = Directory::first_in(encoded).ok_or(ImageError::Undecodable)?;
    let description = Description::of(&directory, size)?;
    check_counts(&directory, &description)?;
    let samples = read_samples(encoded, &directory, &description, size)?;
    interpret(samples, &directory, &description, size)
}

/// Refuses what the `tiff` crate would believe: it makes room for as many values as an entry
/// announces (32 bytes each), leaves rows black that no strip covers, and panics over a strip too
/// many.
fn check_counts(directory: &Directory<'_>, description: &Description) -> Result<(), ImageError> {
    let (offsets, lengths) = match directory.entry(TILE_OFFSETS) {
        Some(offsets) => (Some(offsets), directory.entry(TILE_BYTE_COUNTS)),
        None => (
            directory.entry(STRIP_OFFSETS),
            directory.entry(STRIP_BYTE_COUNTS),
        ),
    };
    let one_each = |entry: &Option<Entry<'_>>| {
        entry
            .as_ref()
            .is_some_and(|entry| entry.uints().count() == description.num_chunks)
    };
    let few = |tag| match directory.entry(tag) {
        Some(entry) => entry.uints().take(MAX_SAMPLES + 1).count() <= MAX_SAMPLES,
        // Absent, or with values that are not in the file.
        None => !directory.names(tag),
    };
    let sound = one_each(&offsets)
        && one_each(&lengths)
        && [
            BITS_PER_SAMPLE,
            EXTRA_SAMPLES,
            SAMPLE_FORMAT,
            PREDICTOR,
            YCBCR_SUBSAMPLING,
        ]
        .into_iter()
        .all(few)
        && [
            IMAGE_WIDTH,
            IMAGE_LENGTH,
            COMPRESSION,
            PHOTOMETRIC,
            SAMPLES_PER_PIXEL,
        ]
        .into_iter()
        .chain([
            ROWS_PER_STRIP,
            PLANAR_CONFIGURATION,
            TILE_WIDTH,
            TILE_LENGTH,
        ])
        .all(|tag| !directory.names(tag) || directory.value(tag).is_some());
    // Of a BigTIFF's entry of an unknown type it passes over half and loses its place.
    let in_step = !(directory.is_big() && directory.has_unknown_types());
    if sound && in_step {
        Ok(())
    } else {
        Err(ImageError::Undecodable)
    }
}

/// Most samples a pixel that Pillow reads.
const MAX_SAMPLES: usize = 6;

/// Undoes compression, tiles and planes: samples as they are stored, pixel after pixel, a byte each
/// up to 8 bits and two in the machine's byte order at 16.
fn read_samples(
    encoded: &[u8],
    directory: &Directory<'_>,
    description: &Description,
    size: (usize, usize),
) -> Result<Vec<u8>, ImageError> {
    let damaged = |_: tiff::TiffError| ImageError::Undecodable;
    let encoded = declared_grey(encoded, directory)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = memory_budget(size);
    limits.intermediate_buffer_size = memory_budget(size).max(encoded.len());
    limits.ifd_value_size = encoded.len();
    let mut decoder = Decoder::new(Cursor::new(&*encoded))
        .map_err(damaged)?
        .with_limits(limits);
    let mut result = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut result).map_err(damaged)?;
    let bytes = match (description.bits, result) {
        (1 | 2 | 4 | 8, DecodingResult::U8(bytes)) => bytes,
        (16, DecodingResult::U16(words)) => words.into_iter().flat_map(u16::to_ne_bytes).collect(),
        _ => return Err(ImageError::UnsupportedVariant),
    };
    if bytes.len() != layout.complete_len {
        return Err(ImageError::Undecodable);
    }
    if description.bits < 8 {
        return match description.samples {
            1 => Ok(unpack(&bytes, description.bits, size.0)),
            _ => Err(ImageError::UnsupportedVariant),
        };
    }
    if description.planar && description.samples > 1 {
        return Ok(interleave(&bytes, description));
    }
    Ok(bytes)
}

/// Tells the crate that all samples are grey levels: then it hands them out as they are, also
/// those of palettes, which it does not know, and all those beyond the colours.
fn declared_grey<'a>(
    encoded: &'a [u8],
    directory: &Directory<'_>,
) -> Result<Cow<'a, [u8]>, ImageError> {
    const BLACK_IS_ZERO: u16 = 1;
    let entry = directory
        .entry(PHOTOMETRIC)
        .ok_or(ImageError::Undecodable)?;
    let value = entry.encode(BLACK_IS_ZERO).ok_or(ImageError::Undecodable)?;
    let place = entry.values_at..entry.values_at + value.len();
    if encoded[place.clone()] == value {
        return Ok(Cow::Borrowed(encoded));
    }
    let mut copy = encoded.to_vec();
    copy[place].copy_from_slice(&value);
    Ok(Cow::Owned(copy))
}

/// Samples of 1, 2 or 4 bits, each row starting at a byte, to one a byte, unscaled.
fn unpack(bytes: &[u8], bits: u32, width: usize) -> Vec<u8> {
    let per_byte = (8 / bits) as usize;
    let mask = (1u8 << bits) - 1;
    bytes
        .chunks_exact(width.div_ceil(per_byte))
        .flat_map(|row| {
            (0..width).map(move |x| {
                let shift = 8 - bits * (x % per_byte + 1) as u32;
                row[x / per_byte] >> shift & mask
            })
        })
        .collect()
}

/// Planes one after the other to pixels one after the other.
fn interleave(bytes: &[u8], description: &Description) -> Vec<u8> {
    let sample_len = description.bits as usize / 8;
    let plane_len = bytes.len() / description.samples;
    (0..plane_len)
        .step_by(sample_len)
        .flat_map(|at| {
            bytes[at..]
                .chunks(plane_len)
                .flat_map(move |rest| &rest[..sample_len])
        })
        .copied()
        .collect()
}

/// Gives the samples their meaning.
fn interpret(
    mut samples: Vec<u8>,
    directory: &Directory<'_>,
    description: &Description,
    size: (usize, usize),
) -> Result<Raster, ImageError> {
    let Description {
        photometric,
        bits,
        alpha,
        ..
    } = *description;
    let channels = photometric.num_colors() + usize::from(alpha != Alpha::None);
    keep_first(&mut samples, channels, description);
    match photometric {
        Photometric::Palette => {
            let palette = palette(directory, bits).ok_or(ImageError::Undecodable)?;
            let rgb = samples
                .iter()
                .flat_map(|&idx| palette[usize::from(idx)])
                .collect();
            return flatten(size, Layout::Rgb8, rgb);
        }
        // Only the grey itself is inverted; with alpha this is refused above.
        Photometric::WhiteIsZero => samples.iter_mut().for_each(|byte| *byte = !*byte),
        _ => {}
    }
    if bits < 8 {
        let max = (1u8 << bits) - 1;
        samples
            .iter_mut()
            .for_each(|sample| *sample = (*sample & max) * (255 / max));
    }
    let layout = match (photometric, alpha, bits) {
        (Photometric::Rgb, Alpha::None, 8) => Layout::Rgb8,
        (Photometric::Rgb, Alpha::None, 16) => Layout::Rgb16,
        (Photometric::Rgb, Alpha::Plain, 8) => Layout::Rgba8,
        (Photometric::Rgb, Alpha::Plain, 16) => Layout::Rgba16,
        (Photometric::Rgb, Alpha::Premultiplied, 8) => Layout::RgbaPremultiplied8,
        (Photometric::Rgb, Alpha::Premultiplied, 16) => Layout::RgbaPremultiplied16,
        (Photometric::Cmyk, Alpha::None, 8) => Layout::Cmyk8,
        (Photometric::Cmyk, Alpha::None, 16) => Layout::Cmyk16,
        (Photometric::WhiteIsZero | Photometric::BlackIsZero, Alpha::None, 1 | 2 | 4 | 8) => {
            Layout::Grey8
        }
        (Photometric::WhiteIsZero | Photometric::BlackIsZero, Alpha::None, 16) => Layout::Grey16,
        (Photometric::BlackIsZero, Alpha::Plain, 8) => Layout::GreyAlpha8,
        (Photometric::BlackIsZero, Alpha::Plain, 16) => Layout::GreyAlpha16,
        _ => return Err(ImageError::UnsupportedVariant),
    };
    flatten(size, layout, samples)
}

/// Drops the samples of each pixel beyond `channels`.
fn keep_first(samples: &mut Vec<u8>, channels: usize, description: &Description) {
    if channels == description.samples {
        return;
    }
    let sample_len = description.bits as usize / 8;
    let (pixel_len, kept) = (description.samples * sample_len, channels * sample_len);
    let num_pixels = samples.len() / pixel_len;
    for pixel in 0..num_pixels {
        samples.copy_within(pixel * pixel_len..pixel * pixel_len + kept, pixel * kept);
    }
    samples.truncate(num_pixels * kept);
}

/// All reds, then all greens, then all blues, of 16 bits each, of which Pillow keeps the high
/// bytes.
fn palette(directory: &Directory<'_>, bits: u32) -> Option<Vec<[u8; 3]>> {
    let map: Vec<u8> = directory
        .entry(COLOR_MAP)?
        .uints()
        .map(|v| (v >> 8) as u8)
        .collect();
    let len = 1 << bits;
    let color = |idx| [map[idx], map[len + idx], map[2 * len + idx]];
    (map.len() == 3 * len).then(|| (0..len).map(color).collect())
}
