//! From an encoded file to an upright 8-bit [`Raster`], within limits.
//!
//! Checks come before work: the bytes, the format, the size in the header, and only then a
//! decoder, which may not ask for more memory than that size explains.
//!
//! As the reference: `PIL.Image.open`, `ImageOps.exif_transpose`, then transformers'
//! `image_transforms.convert_to_rgb`. First frame of what moves; colour profiles are not applied.
//! On purpose otherwise: 16-bit grey is scaled where Pillow clips it to white, 16 bits that use a
//! small part of their range are stretched (see `depth`), and a transparent colour of a PNG counts
//! also at 2, 4 and 16 bits, where Pillow misses it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::bmp::BmpDecoder;
use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder, Limits};

use super::cancellation::Cancellation;
use super::encoded_file::EncodedFile;
use super::format::{self, Format};
use super::orientation::{self, Orientation};
use super::raster::{Layout, Raster, flatten};
use super::{depth, gif, header, jpeg, jpeg2000, metadata, png, tiff};
use crate::error::ImageError;

/// How large an image may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Most bytes of the encoded file.
    pub max_bytes: usize,
    /// Width times height in its header. Decoding takes up to about 20 bytes a pixel for as long
    /// as it lasts, commonly 3 to 8.
    pub max_pixels: u64,
    /// Most pixels of each side.
    pub max_side: u32,
    /// Largest ratio of the longer side to the shorter. A thin image is small as a file and large
    /// once it is resized, because each of its rows is first brought to full width.
    pub max_ratio: u32,
}

impl Default for ImageLimits {
    /// 256 MiB, as files of many frames have, and 64 Mi pixels, a slide's overview or a large photograph; sides of 32,768, four
    /// times the longest of an X-ray or an overview; and 1 : 200, as the image processors of
    /// transformers that bound it at all.
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_pixels: 64 << 20,
            max_side: 32_768,
            max_ratio: 200,
        }
    }
}

/// Decodes a PNG, JPEG, WebP, GIF, BMP, TIFF or JPEG 2000 file.
///
/// # Errors
/// [`ImageError`] with a fixed text; no file makes this panic, and none makes it take memory that
/// its header's size does not explain, but for up to 16 MB (a lossy WebP that announces more data
/// than it has) and the code tables of a lossless WebP (about 400 times the file where it was made
/// for that, 1.4 GB at most). [`ImageError::Abandoned`] soon after the cancellation.
pub fn decode(
    encoded: &[u8],
    limits: &ImageLimits,
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let Stated { format, size } = check(encoded, limits)?;
    let orientation = Orientation::of(&metadata::find(format, encoded));
    // A decoder that panics has met a file that its author did not foresee: that is the file's
    // fault, and this request's alone.
    let raster = catch_unwind(AssertUnwindSafe(|| {
        decode_as(format, encoded, size, cancellation)
    }))
    .unwrap_or(Err(ImageError::Undecodable));
    // A decoder that was stopped calls it damage.
    cancellation.check()?;
    orientation::apply(orientation, raster?, cancellation)
}

/// Memory that decoding takes for as long as it lasts, at most.
///
/// # Errors
/// [`ImageError`] for what can be said without decoding.
pub(super) fn decoding_bytes(encoded: &[u8], limits: &ImageLimits) -> Result<u64, ImageError> {
    const BYTES_PER_PIXEL: usize = 20;
    // Of a WebP that is not plainly lossy, as its code tables may take.
    const TABLES_PER_BYTE: usize = 400;
    const MOST_TABLES: usize = 1_400_000_000;
    let Stated { format, size } = check(encoded, limits)?;
    let (width, height) = size;
    let plain = (width * height * BYTES_PER_PIXEL) as u64;
    if format == Format::Jpeg2000 {
        return Ok(plain + jpeg2000::Header::of(encoded)?.decoding_bytes());
    }
    if format == Format::Tiff {
        return Ok(plain + tiff::more_bytes(encoded));
    }
    let tables = match format {
        Format::WebP if encoded.get(12..16) != Some(b"VP8 ") => encoded
            .len()
            .saturating_mul(TABLES_PER_BYTE)
            .min(MOST_TABLES),
        _ => 0,
    };
    Ok(plain + tables as u64)
}

/// Returns the format of a file, and width and height as stored.
///
/// # Errors
/// [`ImageError`] for what can be said without decoding.
pub(super) fn stated(
    encoded: &[u8],
    limits: &ImageLimits,
) -> Result<(Format, (usize, usize)), ImageError> {
    let Stated { format, size } = check(encoded, limits)?;
    Ok((format, size))
}

/// The properties in a file's header.
struct Stated {
    format: Format,
    size: (usize, usize),
}

/// Checks all that can be checked without decoding.
fn check(encoded: &[u8], limits: &ImageLimits) -> Result<Stated, ImageError> {
    check_bytes(encoded.len(), limits)?;
    let format = Format::sniff(encoded).ok_or_else(|| match format::unread(encoded) {
        Some(name) => ImageError::UnreadFormat { name },
        None => ImageError::UnknownFormat,
    })?;
    let (width, height) = header::size(format, encoded)?;
    check_size((width, height), limits)?;
    Ok(Stated {
        format,
        size: (width as usize, height as usize),
    })
}

/// Checks the size of an encoded file.
///
/// # Errors
/// [`ImageError::TooManyBytes`]
pub(super) fn check_bytes(bytes: usize, limits: &ImageLimits) -> Result<(), ImageError> {
    let max_bytes = limits.max_bytes;
    match bytes > max_bytes {
        true => Err(ImageError::TooManyBytes { bytes, max_bytes }),
        false => Ok(()),
    }
}

/// Checks the width and the height that a header states.
///
/// # Errors
/// [`ImageError`] for images that are empty, too large or too thin.
pub(super) fn check_size(
    (width, height): (u32, u32),
    limits: &ImageLimits,
) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { width, height });
    }
    let max_pixels = limits.max_pixels;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(ImageError::TooManyPixels {
            width,
            height,
            max_pixels,
        });
    }
    check_sides((width, height), limits)
}

fn check_sides((width, height): (u32, u32), limits: &ImageLimits) -> Result<(), ImageError> {
    let (max_side, max_ratio) = (limits.max_side, limits.max_ratio);
    let (long, short) = (width.max(height), width.min(height));
    if long > max_side {
        return Err(ImageError::SideTooLong {
            width,
            height,
            max_side,
        });
    }
    if u64::from(long) > u64::from(short) * u64::from(max_ratio) {
        return Err(ImageError::TooThin {
            width,
            height,
            max_ratio,
        });
    }
    Ok(())
}

fn decode_as(
    format: Format,
    encoded: &[u8],
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let file = EncodedFile::new(encoded, cancellation);
    match format {
        Format::Jpeg => jpeg::decode(file, size, cancellation),
        Format::Gif => gif::decode(file, size),
        Format::Tiff => tiff::decode(encoded, size, cancellation),
        Format::Jpeg2000 => jpeg2000::decode(encoded, size, cancellation),
        Format::Png => png::decode(encoded, size, cancellation),
        Format::Bmp => {
            let decoder = BmpDecoder::new(file).map_err(undecodable)?;
            read(decoder, size, layout)
        }
        Format::WebP => {
            let decoder = WebPDecoder::new(file).map_err(undecodable)?;
            read(decoder, size, layout)
        }
    }
}

/// Runs one of the `image` crate's decoders.
pub(super) fn read(
    mut decoder: impl ImageDecoder,
    size: (usize, usize),
    layout: impl Fn(ColorType) -> Option<Layout>,
) -> Result<Raster, ImageError> {
    decoder
        .set_limits(image_limits(size))
        .map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if (width as usize, height as usize) != size {
        return Err(ImageError::Undecodable);
    }
    let layout = layout(decoder.color_type()).ok_or(ImageError::UnsupportedVariant)?;
    let mut bytes = vec![0; size.0 * size.1 * layout.bytes_per_pixel()];
    decoder.read_image(&mut bytes).map_err(undecodable)?;
    let is_stretched = (layout.channels_of_16_bits()).is_some_and(|(channels, num_colors)| {
        depth::use_full_range(&mut bytes, channels, num_colors)
    });
    let raster = flatten(size, layout, bytes)?;
    Ok(Raster {
        is_stretched,
        ..raster
    })
}

pub(super) fn layout(color: ColorType) -> Option<Layout> {
    Some(match color {
        ColorType::L8 => Layout::Grey8,
        ColorType::La8 => Layout::GreyAlpha8,
        ColorType::Rgb8 => Layout::Rgb8,
        ColorType::Rgba8 => Layout::Rgba8,
        ColorType::L16 => Layout::Grey16,
        ColorType::La16 => Layout::GreyAlpha16,
        ColorType::Rgb16 => Layout::Rgb16,
        ColorType::Rgba16 => Layout::Rgba16,
        _ => return None,
    })
}

pub(super) fn image_limits(size: (usize, usize)) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(memory_budget(size) as u64);
    limits
}

/// Bytes that a decoder may take for an image of this size: the widest samples that there are
/// and a megabyte for tables and profiles.
pub(super) fn memory_budget((width, height): (usize, usize)) -> usize {
    width * height * Layout::Rgba16.bytes_per_pixel() + (1 << 20)
}

/// A decoder's own message may quote the file: it is dropped.
pub(super) fn undecodable<E>(_: E) -> ImageError {
    ImageError::Undecodable
}
