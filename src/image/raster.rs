//! A decoded picture: 8 bits a sample, grey or RGB, no alpha.

use std::fmt;

use crate::error::ImageError;

/// A decoded picture, upright, composited on white.
///
/// Grey stays one channel as long as it can: a film then costs a third, and repeating it later
/// gives the same bytes, since resizing treats channels alike.
pub struct Raster {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row-major, no padding.
    pub samples: Samples,
}

/// The pixels of a [`Raster`].
pub enum Samples {
    /// `(height, width)`
    Grey(Vec<u8>),
    /// `(height, width, 3)`
    Rgb(Vec<u8>),
}

impl fmt::Debug for Raster {
    // Never the pixels: a picture must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raster")
            .field("width", &self.width)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}

impl Raster {
    /// One channel.
    ///
    /// # Panics
    /// If `grey` is not `width × height` long.
    pub fn grey(width: usize, height: usize, grey: Vec<u8>) -> Self {
        assert_eq!(grey.len(), width * height, "one sample a pixel");
        Self {
            width,
            height,
            samples: Samples::Grey(grey),
        }
    }

    /// Three interleaved channels.
    ///
    /// # Panics
    /// If `rgb` is not `width × height × 3` long.
    pub fn rgb(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "three samples a pixel");
        Self {
            width,
            height,
            samples: Samples::Rgb(rgb),
        }
    }
}

/// What a decoder delivers, before it is brought to 8 bits without alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Grey8,
    GreyAlpha8,
    Rgb8,
    Rgba8,
    /// Alpha already multiplied in (a TIFF's "associated alpha").
    RgbaPremultiplied8,
    Cmyk8,
    /// 16-bit samples in the machine's byte order, as all below.
    Grey16,
    /// Grey with a transparent level, which decoders hand out as alpha.
    GreyKeyed16,
    GreyAlpha16,
    Rgb16,
    Rgba16,
    RgbaPremultiplied16,
    Cmyk16,
}

impl Layout {
    pub(super) fn bytes_per_pixel(self) -> usize {
        match self {
            Self::Grey8 => 1,
            Self::GreyAlpha8 | Self::Grey16 => 2,
            Self::Rgb8 => 3,
            Self::Rgba8 | Self::RgbaPremultiplied8 | Self::Cmyk8 => 4,
            Self::GreyKeyed16 | Self::GreyAlpha16 => 4,
            Self::Rgb16 => 6,
            Self::Rgba16 | Self::RgbaPremultiplied16 | Self::Cmyk16 => 8,
        }
    }
}

/// Brings decoded samples to 8 bits without alpha, as Pillow and `convert_to_rgb` do.
///
/// Of 16-bit samples Pillow keeps the high byte, and so does this; only 16-bit grey, which Pillow
/// clips to white, is scaled linearly instead, so that a film can be seen.
///
/// # Errors
/// [`ImageError::Undecodable`] if there are not exactly `width × height` pixels.
pub(super) fn flatten(
    (width, height): (usize, usize),
    layout: Layout,
    bytes: Vec<u8>,
) -> Result<Raster, ImageError> {
    let expected = width
        .checked_mul(height)
        .and_then(|pixels| pixels.checked_mul(layout.bytes_per_pixel()));
    if expected != Some(bytes.len()) {
        return Err(ImageError::Undecodable);
    }
    let grey = |samples| Ok(Raster::grey(width, height, samples));
    let rgb = |samples| Ok(Raster::rgb(width, height, samples));
    match layout {
        Layout::Grey8 => grey(bytes),
        Layout::Rgb8 => rgb(bytes),
        Layout::GreyAlpha8 => grey(map_pixels(&bytes, |&[v, a]: &[u8; 2]| [over_white(v, a)])),
        Layout::Rgba8 => rgb(map_pixels(&bytes, |&[r, g, b, a]: &[u8; 4]| {
            [r, g, b].map(|v| over_white(v, a))
        })),
        Layout::RgbaPremultiplied8 => rgb(map_pixels(&bytes, |&[r, g, b, a]: &[u8; 4]| {
            [r, g, b].map(|v| over_white(divide_by_alpha(v, a), a))
        })),
        Layout::Cmyk8 => rgb(map_pixels(&bytes, |&cmyk: &[u8; 4]| cmyk_to_rgb(cmyk))),
        Layout::Grey16 => grey(map_pixels(&bytes, |p: &[u8; 2]| [scale_16(u16_at(p, 0))])),
        Layout::GreyKeyed16 => grey(map_pixels(&bytes, |p: &[u8; 4]| {
            [over_white(scale_16(u16_at(p, 0)), high_byte(p, 1))]
        })),
        Layout::GreyAlpha16 => grey(map_pixels(&bytes, |p: &[u8; 4]| {
            [over_white(high_byte(p, 0), high_byte(p, 1))]
        })),
        Layout::Rgb16 => rgb(map_pixels(&bytes, |p: &[u8; 6]| {
            [0, 1, 2].map(|c| high_byte(p, c))
        })),
        Layout::Rgba16 => rgb(map_pixels(&bytes, |p: &[u8; 8]| {
            [0, 1, 2].map(|c| over_white(high_byte(p, c), high_byte(p, 3)))
        })),
        Layout::RgbaPremultiplied16 => rgb(map_pixels(&bytes, |p: &[u8; 8]| {
            let alpha = high_byte(p, 3);
            [0, 1, 2].map(|c| over_white(divide_by_alpha(high_byte(p, c), alpha), alpha))
        })),
        Layout::Cmyk16 => rgb(map_pixels(&bytes, |p: &[u8; 8]| {
            cmyk_to_rgb([0, 1, 2, 3].map(|c| high_byte(p, c)))
        })),
    }
}

fn map_pixels<const N: usize, const M: usize>(
    bytes: &[u8],
    pixel: impl Fn(&[u8; N]) -> [u8; M],
) -> Vec<u8> {
    let (pixels, rest) = bytes.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "the length was checked");
    let mut out = Vec::with_capacity(pixels.len() * M);
    for p in pixels {
        out.extend_from_slice(&pixel(p));
    }
    out
}

fn u16_at(pixel: &[u8], channel: usize) -> u16 {
    u16::from_ne_bytes([pixel[channel * 2], pixel[channel * 2 + 1]])
}

fn high_byte(pixel: &[u8], channel: usize) -> u8 {
    (u16_at(pixel, channel) >> 8) as u8
}

/// `value · 255 / 65535`, rounded.
fn scale_16(value: u16) -> u8 {
    // 65535 = 255 · 257
    ((u32::from(value) + 128) / 257) as u8
}

/// One channel of a pixel with `alpha` on a white ground, as Pillow's `AlphaComposite.c` rounds
/// it (7 fractional bits and a shift in place of the division by 255).
pub(super) fn over_white(value: u8, alpha: u8) -> u8 {
    const FRACTION_BITS: u32 = 7;
    let weighted = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha));
    let sum = (weighted << FRACTION_BITS) + (0x80 << FRACTION_BITS);
    ((((sum >> 8) + sum) >> 8) >> FRACTION_BITS) as u8
}

/// Undoes a multiplication by alpha, as Pillow's unpacker for `RGBa` does.
fn divide_by_alpha(value: u8, alpha: u8) -> u8 {
    match alpha {
        0 => 0,
        255 => value,
        alpha => (255 * u32::from(value) / u32::from(alpha)).min(255) as u8,
    }
}

/// Ink to light without a colour profile, as Pillow's `cmyk2rgb`.
pub(super) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - k;
    [c, m, y].map(|ink| paper - mul_div_255(ink, paper))
}

/// `a · b / 255`, rounded.
fn mul_div_255(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}
