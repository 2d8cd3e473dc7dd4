//! TIFF: the first image of a file, in strips or tiles, plain, LZW, Deflate, PackBits or fax.
//!
//! The `tiff` crate undoes compression and layout; what samples mean is decided here, as
//! `PIL.TiffImagePlugin.OPEN_INFO` has it. Unlike Pillow, 16-bit grey where 0 is white is inverted,
//! and uncompressed YCbCr is read as it is stored also where pixels share colours. Not read: JPEG
//! as of TIFF 6 (the older kind), Lab, floating point, signed and 32-bit samples.

mod chunks;
mod description;
mod fax;
#[cfg(test)]
mod tests;
mod ycbcr;

use std::borrow::Cow;

use tiff::decoder::{Decoder, Limits};

use self::description::{
    Alpha, COLOR_MAP, COMPRESSION, Compression, Description, PHOTOMETRIC, Photometric, check_counts,
};
use super::cancellation::Cancellation;
use super::decode::memory_budget;
use super::depth;
use super::encoded_file::EncodedFile;
use super::ifd::Directory;
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

/// Decodes the file's first image.
///
/// # Errors
/// [`ImageError::UnsupportedVariant`] for the kinds named above, else [`ImageError::Undecodable`].
pub(super) fn decode(
    encoded: &[u8],
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let directory = Directory::first_in(encoded).ok_or(ImageError::Undecodable)?;
    let description = Description::of(&directory, size)?;
    check_counts(&directory, &description)?;
    let samples = read_samples(encoded, &directory, &description, size, cancellation)?;
    cancellation.check()?;
    interpret(samples, &directory, &description, size)
}

/// Memory that decoding takes besides what any image of its size does.
pub(super) fn more_bytes(encoded: &[u8]) -> u64 {
    const ZSTD: u32 = 50_000;
    let compression = Directory::first_in(encoded).and_then(|found| found.value(COMPRESSION));
    if compression == Some(ZSTD) {
        chunks::ZSTD_BYTES
    } else {
        0
    }
}

/// Undoes compression, tiles and planes: samples as they are stored, pixel after pixel, a byte each
/// up to 8 bits and two in the machine's byte order at 16.
fn read_samples(
    encoded: &[u8],
    directory: &Directory<'_>,
    description: &Description,
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let is_subsampled = description.photometric == Photometric::YCbCr;
    let bytes = match description.compression {
        Compression::Fax(_) | Compression::Jpeg | Compression::Zstd => {
            chunks::read(encoded, directory, description, size, cancellation)?
        }
        _ if is_subsampled => chunks::read(encoded, directory, description, size, cancellation)?,
        _ => read_plain(encoded, directory, size, cancellation)?,
    };
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

/// Undoes what the `tiff` crate undoes.
fn read_plain(
    encoded: &[u8],
    directory: &Directory<'_>,
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let damaged = |_: tiff::TiffError| ImageError::Undecodable;
    let encoded = declared_grey(encoded, directory)?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = memory_budget(size);
    limits.intermediate_buffer_size = memory_budget(size).max(encoded.len());
    limits.ifd_value_size = encoded.len();
    let mut decoder = Decoder::new(EncodedFile::new(&encoded, cancellation))
        .map_err(damaged)?
        .with_limits(limits);
    let layout = decoder.image_buffer_layout().map_err(damaged)?;
    if layout.complete_len > memory_budget(size) {
        return Err(ImageError::Undecodable);
    }
    let mut bytes = vec![0; layout.complete_len];
    decoder.read_image_bytes(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// Declares to the crate that all samples are grey levels: then it returns them as they are, also
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
    // Ink is not light: where little of it is used, the image is bright.
    let is_stretched = bits == 16
        && photometric != Photometric::Cmyk
        && depth::use_full_range(&mut samples, channels, photometric.num_colors());
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
        (Photometric::Rgb | Photometric::YCbCr, Alpha::None, 8) => Layout::Rgb8,
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
    let raster = flatten(size, layout, samples)?;
    Ok(Raster {
        is_stretched,
        ..raster
    })
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
