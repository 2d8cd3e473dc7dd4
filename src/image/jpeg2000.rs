//! JPEG 2000: `.jp2` files and bare codestreams.
//!
//! As Pillow with OpenJPEG; what is stored without loss is the same, and what is not differs by one
//! level at most. The decoder cannot be stopped, so that an image may have less of everything than
//! those of other formats.

use hayro_jpeg2000::{DecodeError, DecodeSettings, DecoderContext, Image};

use super::cancellation::Cancellation;
use super::depth;
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

/// First bytes of a file with boxes.
pub(super) const BOXES: [u8; 12] = *b"\0\0\0\x0cjP  \r\n\x87\n";
/// First bytes of a codestream.
pub(super) const CODESTREAM: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];

/// Most samples of an image: 32 Mi pixels of grey, twice a mammogram, take some ten seconds.
const MAX_SAMPLES: u64 = 32 << 20;
/// Most code blocks times layers, and precincts; the usual ones have thousands of samples each.
const MAX_PARTS: u64 = 4 << 20;
/// Bytes that the decoder takes for each sample: as stored, transformed, and as number.
const BYTES_PER_SAMPLE: u64 = 20;
const BYTES_PER_PART: u64 = 128;

/// What a codestream's headers say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    /// Width and height.
    pub(super) size: (u32, u32),
    pub(super) components: u16,
    /// Bits of each sample.
    pub(super) precision: u8,
    is_signed: bool,
    /// Whether blocks are coded as part 15 says, which the decoder here does not read.
    pub(super) is_high_throughput: bool,
    /// Upper bound of the code blocks times layers, and precincts.
    parts: u64,
}

impl Header {
    /// Reads all headers of a file.
    ///
    /// # Errors
    /// [`ImageError::Undecodable`] without a whole header, [`ImageError::UnsupportedVariant`] for
    /// kinds that are not read or take too much.
    pub(super) fn of(encoded: &[u8]) -> Result<Self, ImageError> {
        let stream = codestream(encoded).ok_or(ImageError::Undecodable)?;
        let header = Self::read(stream)?;
        let (width, height) = header.size;
        let pixels = u64::from(width) * u64::from(height);
        let max_pixels = MAX_SAMPLES / u64::from(header.components).max(1);
        if pixels > max_pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                max_pixels,
            });
        }
        Ok(header)
    }

    /// Memory that decoding takes at most.
    pub(super) fn decoding_bytes(&self) -> u64 {
        let (width, height) = self.size;
        let samples = u64::from(width) * u64::from(height) * u64::from(self.components);
        samples * BYTES_PER_SAMPLE + self.parts * BYTES_PER_PART
    }

    fn read(stream: &[u8]) -> Result<Self, ImageError> {
        let mut header = Self::default();
        let mut tile = Tiling::default();
        let mut layers = 1;
        for segment in segments(stream) {
            let (marker, data) = segment.ok_or(ImageError::Undecodable)?;
            match marker {
                0x51 if header.components == 0 => (header, tile) = sizes(data)?,
                // Of all components, or of one.
                0x52 | 0x53 => {
                    let narrow = usize::from(marker == 0x53);
                    let wide = narrow * usize::from(header.components > 256);
                    let style = data.get(narrow + wide..).ok_or(ImageError::Undecodable)?;
                    if marker == 0x52 {
                        let count = style.get(2..4).ok_or(ImageError::Undecodable)?;
                        layers = layers.max(u64::from(u16::from_be_bytes([count[0], count[1]])));
                    }
                    let coding = match marker {
                        0x52 => style.get(5..),
                        _ => style.get(1..),
                    };
                    let has_precincts = style.first().is_some_and(|flags| flags & 1 != 0);
                    let coding = coding.ok_or(ImageError::Undecodable)?;
                    header.is_high_throughput |=
                        coding.get(3).is_some_and(|style| style & 0x40 != 0);
                    let parts = tile.parts(coding, has_precincts, layers);
                    let parts = parts.ok_or(ImageError::Undecodable)?;
                    header.parts = header.parts.max(parts * u64::from(header.components));
                }
                _ => {}
            }
        }
        if header.components == 0 || header.parts == 0 {
            return Err(ImageError::Undecodable);
        }
        if header.parts > MAX_PARTS || header.components > 4 || header.precision > 16 {
            return Err(ImageError::UnsupportedVariant);
        }
        Ok(header)
    }
}

/// How an image is divided.
#[derive(Clone, Copy, Debug, Default)]
struct Tiling {
    width: u64,
    height: u64,
    count: u64,
}

impl Tiling {
    /// Upper bound of the parts of one component, from the levels on of a coding style.
    fn parts(self, coding: &[u8], has_precincts: bool, layers: u64) -> Option<u64> {
        let &[
            levels @ 0..=32,
            across @ 0..=8,
            down @ 0..=8,
            _,
            _,
            ref precincts @ ..,
        ] = coding
        else {
            return None;
        };
        let mut sum = 0u64;
        for level in 0..=levels {
            let (precinct_x, precinct_y) = match precincts.get(usize::from(level)) {
                Some(exponents) if has_precincts => (exponents & 15, exponents >> 4),
                None if has_precincts => return None,
                _ => (15, 15),
            };
            let shrunk = u32::from(levels - level);
            let side = |side: u64| side.checked_shr(shrunk).unwrap_or(0) + 1;
            let (width, height) = (side(self.width), side(self.height));
            // Bands above the lowest have half of the sides, of precincts too.
            let half = u8::from(level > 0);
            let pieces = |exponent_x: u8, exponent_y: u8| {
                let along =
                    |side: u64, exponent: u8| ((side >> half) >> exponent).saturating_add(2);
                let in_band = along(width, exponent_x).saturating_mul(along(height, exponent_y));
                in_band.saturating_mul(if level > 0 { 3 } else { 1 })
            };
            let (within_x, within_y) = (
                precinct_x.saturating_sub(half),
                precinct_y.saturating_sub(half),
            );
            let blocks = pieces((across + 2).min(within_x), (down + 2).min(within_y));
            let precincts = pieces(within_x, within_y);
            sum = sum
                .saturating_add(blocks.saturating_mul(layers))
                .saturating_add(precincts);
        }
        Some(sum.saturating_mul(self.count))
    }
}

/// Reads the segment of sizes.
fn sizes(data: &[u8]) -> Result<(Header, Tiling), ImageError> {
    let number = |at: usize| {
        let bytes = data.get(at..at + 4).ok_or(ImageError::Undecodable)?;
        Ok::<u32, ImageError>(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let side = |end: u32, start: u32| end.checked_sub(start).ok_or(ImageError::Undecodable);
    let (right, bottom, left, top) = (number(2)?, number(6)?, number(10)?, number(14)?);
    let size = (side(right, left)?, side(bottom, top)?);
    let (tile_width, tile_height) = (number(18)?, number(22)?);
    let (tile_left, tile_top) = (number(26)?, number(30)?);
    if tile_width == 0 || tile_height == 0 {
        return Err(ImageError::Undecodable);
    }
    let across = u64::from(side(right, tile_left)?.div_ceil(tile_width));
    let down = u64::from(side(bottom, tile_top)?.div_ceil(tile_height));
    let components = data.get(34..36).ok_or(ImageError::Undecodable)?;
    let components = u16::from_be_bytes([components[0], components[1]]);
    let each = data[36..].as_chunks::<3>().0;
    if each.len() < usize::from(components) || components == 0 {
        return Err(ImageError::Undecodable);
    }
    let first = each[0];
    // All alike, and one sample for each pixel.
    if each[..usize::from(components)]
        .iter()
        .any(|own| own[0] != first[0] || own[1..] != [1, 1])
    {
        return Err(ImageError::UnsupportedVariant);
    }
    let header = Header {
        size,
        components,
        precision: (first[0] & 0x7f) + 1,
        is_signed: first[0] & 0x80 != 0,
        is_high_throughput: false,
        parts: 0,
    };
    let tiling = Tiling {
        width: u64::from(tile_width.min(size.0)),
        height: u64::from(tile_height.min(size.1)),
        count: across * down,
    };
    Ok((header, tiling))
}

/// The marker segments of the main header and of all tile parts; `None` for one that is cut off.
fn segments(stream: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    // After the first marker, which has no segment.
    let mut at = 2;
    let mut tile_part_end = 0;
    let mut is_over = false;
    std::iter::from_fn(move || {
        loop {
            let marker = match stream.get(at..at + 2) {
                // Whether the last marker is there, the decoder checks.
                _ if is_over || at >= stream.len() => return None,
                Some(&[0xff, 0xd9]) => return None,
                Some(&[0xff, marker]) => marker,
                _ => {
                    is_over = true;
                    return Some(None);
                }
            };
            // The data of a tile part, up to the next.
            if marker == 0x93 {
                is_over = tile_part_end <= at;
                at = tile_part_end;
                continue;
            }
            let length = stream.get(at + 2..at + 4);
            let length = length.map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
            let data = length.and_then(|len| stream.get(at + 4..at + 2 + len.max(2)));
            let Some(data) = data else {
                is_over = true;
                return Some(None);
            };
            if marker == 0x90 {
                let length = data
                    .get(2..6)
                    .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
                // None means up to the end.
                tile_part_end = match length {
                    0 => stream.len(),
                    length => at.saturating_add(length).min(stream.len()),
                };
            }
            at += 4 + data.len();
            return Some(Some((marker, data)));
        }
    })
}

/// Finds the codestream in the boxes.
fn codestream(encoded: &[u8]) -> Option<&[u8]> {
    if encoded.starts_with(&CODESTREAM) {
        return Some(encoded);
    }
    find_box(encoded, b"jp2c").filter(|stream| stream.starts_with(&CODESTREAM))
}

/// Returns the content of the first box of this kind.
fn find_box<'a>(boxes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    let mut rest = boxes;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, content) = after.split_first_chunk::<4>()?;
        let (content, length) = match u32::from_be_bytes(*length) as usize {
            0 => (content, content.len()),
            1 => {
                let (length, content) = content.split_first_chunk::<8>()?;
                let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
                (content, length.checked_sub(16)?)
            }
            length => (content, length.checked_sub(8)?),
        };
        if kind == wanted {
            return Some(&content[..length.min(content.len())]);
        }
        rest = content.get(length..)?;
    }
}

/// Whether the file says that its four components are inks.
fn is_cmyk(encoded: &[u8]) -> bool {
    let colors = find_box(encoded, b"jp2h").and_then(|header| find_box(header, b"colr"));
    matches!(colors, Some(&[1, _, _, 0, 0, 0, 12, ..]))
}

/// A file that ends early is damaged.
const STRICT: DecodeSettings = DecodeSettings {
    resolve_palette_indices: true,
    strict: true,
    target_resolution: None,
};

fn damaged(_: DecodeError) -> ImageError {
    ImageError::Undecodable
}

/// Decodes the samples of each component, as bits of the header's precision, in two's complement if
/// they are signed. Boxes around the codestream are not read.
///
/// # Errors
/// As [`decode`].
pub(super) fn components(
    encoded: &[u8],
    cancellation: Cancellation<'_>,
) -> Result<Vec<Vec<u16>>, ImageError> {
    let header = Header::of(encoded)?;
    let stream = codestream(encoded).ok_or(ImageError::Undecodable)?;
    let image = Image::new(stream, &STRICT).map_err(damaged)?;
    cancellation.check()?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(damaged)?;
    cancellation.check()?;
    let bits = header.precision;
    let most = ((1u32 << bits) - 1) as f32;
    // The decoder moves signed samples up by half of the range, as if they had no sign.
    let sign = u16::from(header.is_signed) << (bits - 1);
    let bits_of = |level: &f32| level.round_ties_even().clamp(0.0, most) as u16 ^ sign;
    let planes = decoded.components().iter();
    Ok(planes
        .map(|plane| plane.samples().iter().map(bits_of).collect())
        .collect())
}

/// Decodes a file of 1 to 4 components: grey, grey and alpha, RGB, RGB and alpha, or CMYK.
///
/// # Errors
/// [`ImageError::Undecodable`] also for a file that ends early.
pub(super) fn decode(
    encoded: &[u8],
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let header = Header::of(encoded)?;
    let image = Image::new(encoded, &STRICT).map_err(damaged)?;
    if (image.width() as usize, image.height() as usize) != size {
        return Err(ImageError::Undecodable);
    }
    cancellation.check()?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(damaged)?;
    cancellation.check()?;
    let components = decoded.components();
    let bits = header.precision;
    let is_deep = components.len() == 1 && bits > 8;
    let layout = match components.len() {
        1 if is_deep => Layout::Grey16,
        1 => Layout::Grey8,
        2 => Layout::GreyAlpha8,
        3 => Layout::Rgb8,
        4 if is_cmyk(encoded) => Layout::Cmyk8,
        4 => Layout::Rgba8,
        _ => return Err(ImageError::UnsupportedVariant),
    };
    let num_pixels = size.0 * size.1;
    if components
        .iter()
        .any(|own| own.samples().len() != num_pixels)
    {
        return Err(ImageError::Undecodable);
    }
    let mut bytes = Vec::with_capacity(num_pixels * layout.bytes_per_pixel());
    for row in 0..size.1 {
        cancellation.check()?;
        for at in row * size.0..(row + 1) * size.0 {
            for component in components {
                // A palette's colours have a depth of their own.
                let bits = u32::from(component.bit_depth());
                let most = ((1u32 << bits) - 1) as f32;
                let level = component.samples()[at].round_ties_even().clamp(0.0, most) as u32;
                if is_deep {
                    bytes.extend(((level << (16 - bits)) as u16).to_ne_bytes());
                } else if bits > 8 {
                    bytes.push((level >> (bits - 8)) as u8);
                } else {
                    bytes.push((level << (8 - bits)) as u8);
                }
            }
        }
    }
    let is_stretched = is_deep && depth::use_full_range(&mut bytes, 1, 1);
    let raster = flatten(size, layout, bytes)?;
    Ok(Raster {
        is_stretched,
        ..raster
    })
}

#[cfg(test)]
mod tests {
    use super::super::decode::{ImageLimits, decode};
    use super::*;

    /// A bare codestream of 37 × 29 pixels of three components.
    const STREAM: &[u8] = include_bytes!("../../tests/golden/pillow/rgb.j2k");

    /// Where a marker segment's data begin, behind its length.
    fn data_at(marker: u8) -> usize {
        let at = STREAM.windows(2).position(|pair| pair == [0xff, marker]);
        at.expect("the stream has it") + 4
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut copy = STREAM.to_vec();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    }

    fn refusal(encoded: &[u8]) -> Option<ImageError> {
        let limits = ImageLimits::default();
        decode(encoded, &limits, Cancellation::NEVER).err()
    }

    #[test]
    fn headers_say_what_decoding_takes() {
        let header = Header::of(STREAM).unwrap();
        assert_eq!((header.size, header.components), ((37, 29), 3));
        assert_eq!(header.precision, 8);
        assert!((1..1000).contains(&header.parts), "{}", header.parts);
        assert!(header.decoding_bytes() >= 37 * 29 * 3 * BYTES_PER_SAMPLE);
    }

    #[test]
    fn what_would_take_far_too_much_is_refused() {
        let (sizes, style) = (data_at(0x51), data_at(0x52));
        let big = 8000u32.to_be_bytes();
        let huge = [with(sizes + 2, &big), with(sizes + 6, &big)];
        let mut wide = huge[0].clone();
        wide[sizes + 6..sizes + 10].copy_from_slice(&big);
        let tiles = |stream: &[u8], side: u32| {
            let mut copy = stream.to_vec();
            copy[sizes + 18..sizes + 22].copy_from_slice(&side.to_be_bytes());
            copy[sizes + 22..sizes + 26].copy_from_slice(&side.to_be_bytes());
            copy
        };
        let too_many = Some(ImageError::TooManyPixels {
            width: 8000,
            height: 8000,
            max_pixels: MAX_SAMPLES / 3,
        });
        let unsupported = Some(ImageError::UnsupportedVariant);
        let damaged = Some(ImageError::Undecodable);
        let mut short = tiles(&wide, 1);
        short[sizes + 2..sizes + 6].copy_from_slice(&2000u32.to_be_bytes());
        short[sizes + 6..sizes + 10].copy_from_slice(&2000u32.to_be_bytes());
        for (what, encoded, expected) in [
            ("many pixels", tiles(&wide, 8000), too_many),
            ("a tile for each pixel", short, unsupported),
            ("many layers", with(style + 2, &[0xff; 2]), unsupported),
            ("tiles of no size", tiles(STREAM, 0), damaged),
            (
                "17 bits",
                with(sizes + 36, &[16, 1, 1, 16, 1, 1, 16, 1, 1]),
                unsupported,
            ),
            (
                "shared colours",
                with(sizes + 39, &[7, 2, 2, 7, 2, 2]),
                unsupported,
            ),
            ("blocks of another size", with(style + 6, &[9]), damaged),
        ] {
            assert_eq!(refusal(&encoded), expected, "{what}");
        }
        assert_eq!(refusal(STREAM), None);
        for len in 0..STREAM.len() {
            assert!(refusal(&STREAM[..len]).is_some(), "{len} bytes");
        }
    }
}
