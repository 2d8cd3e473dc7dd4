//! A decoded image: 8 bits a sample, grey or RGB, no alpha.

use std::fmt;

use crate::error::ImageError;

/// A decoded image, upright, composited on white.
///
/// Grey stays one channel as long as it can: an X-ray then costs a third, and repeating it later
/// gives the same bytes, since resizing treats channels alike.
pub struct Raster {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Row-major, no padding.
    pub samples: Samples,
    /// Whether its samples had 16 bits of which few were used, so that they were stretched.
    pub is_stretched: bool,
}

/// The pixels of a [`Raster`].
pub enum Samples {
    /// `(height, width)`
    Grey(Vec<u8>),
    /// `(height, width, 3)`
    Rgb(Vec<u8>),
}

impl fmt::Debug for Raster {
    // Never the pixels: an image must not reach a log.
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
            is_stretched: false,
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
            is_stretched: false,
        }
    }

    /// Returns the part of `width × height` pixels whose first pixel is at `(left, top)`.
    ///
    /// # Panics
    /// If the part is not within the image.
    pub(super) fn part(
        &self,
        (left, top): (usize, usize),
        (width, height): (usize, usize),
    ) -> Self {
        let cut = |samples: &[u8], channels: usize| {
            let rows = samples.chunks_exact(self.width * channels);
            let rows = rows.skip(top).take(height);
            let part: Vec<u8> = rows
                .flat_map(|row| &row[left * channels..(left + width) * channels])
                .copied()
                .collect();
            part
        };
        let part = match &self.samples {
            Samples::Grey(grey) => Self::grey(width, height, cut(grey, 1)),
            Samples::Rgb(rgb) => Self::rgb(width, height, cut(rgb, 3)),
        };
        Self {
            is_stretched: self.is_stretched,
            ..part
        }
    }

    /// Whether all samples but one in a thousand are nearly black (below 16).
    pub(super) fn is_nearly_black(&self) -> bool {
        let (Samples::Grey(levels) | Samples::Rgb(levels)) = &self.samples;
        let num_lit = levels.iter().filter(|level| **level >= 16).count();
        num_lit * 1000 <= levels.len()
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

impl Layout {
    /// Number of channels, and of those that are not alpha, of the layouts of 16-bit light.
    pub(super) fn channels_of_16_bits(self) -> Option<(usize, usize)> {
        match self {
            Self::Grey16 => Some((1, 1)),
            Self::GreyKeyed16 | Self::GreyAlpha16 => Some((2, 1)),
            Self::Rgb16 => Some((3, 3)),
            Self::Rgba16 | Self::RgbaPremultiplied16 => Some((4, 3)),
            _ => None,
        }
    }
}

/// Brings decoded samples to 8 bits without alpha, as Pillow and `convert_to_rgb` do.
///
/// Pillow keeps the high byte of 16-bit samples, and so does this function. The exception is
/// 16-bit grey, which Pillow clips to white: it is scaled linearly, so that an X-ray stays visible.
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

/// One channel of a pixel with `alpha` on a white ground, rounded; Pillow's `AlphaComposite.c`
/// comes to the same for all 65,536 pairs.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
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
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - k;
    [c, m, y].map(|ink| paper - ((u32::from(ink) * u32::from(paper) + 127) / 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Pillow 13 makes of one pixel of each kind.
    #[test]
    fn one_pixel_of_each_layout() {
        let words = |words: &[u16]| {
            words
                .iter()
                .flat_map(|w| w.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        for (layout, bytes, expected) in [
            (Layout::Grey8, vec![7], vec![7]),
            (Layout::GreyAlpha8, vec![0, 128], vec![127]),
            (Layout::Rgb8, vec![1, 2, 3], vec![1, 2, 3]),
            (Layout::Rgba8, vec![200, 100, 0, 0], vec![255, 255, 255]),
            (Layout::Rgba8, vec![200, 100, 0, 255], vec![200, 100, 0]),
            (Layout::Rgba8, vec![200, 100, 0, 51], vec![244, 224, 204]),
            (
                Layout::RgbaPremultiplied8,
                vec![40, 20, 0, 51],
                vec![244, 224, 204],
            ),
            (
                Layout::RgbaPremultiplied8,
                vec![90, 20, 0, 0],
                vec![255, 255, 255],
            ),
            (Layout::Cmyk8, vec![0, 100, 255, 55], vec![200, 122, 0]),
            (Layout::Grey16, words(&[0]), vec![0]),
            (Layout::Grey16, words(&[128]), vec![0]),
            (Layout::Grey16, words(&[129]), vec![1]),
            (Layout::Grey16, words(&[32_767]), vec![127]),
            (Layout::Grey16, words(&[32_768]), vec![128]),
            (Layout::Grey16, words(&[65_535]), vec![255]),
            (Layout::GreyKeyed16, words(&[4095, 65_535]), vec![16]),
            (Layout::GreyKeyed16, words(&[4095, 0]), vec![255]),
            (Layout::GreyAlpha16, words(&[0xc8ff, 0xff00]), vec![200]),
            (
                Layout::Rgb16,
                words(&[0x00ff, 0x64ff, 0xffff]),
                vec![0, 100, 255],
            ),
            (
                Layout::Rgba16,
                words(&[0xc8ff, 0x64ff, 0xff, 0x33ff]),
                vec![244, 224, 204],
            ),
            (
                Layout::RgbaPremultiplied16,
                words(&[0x28ff, 0x14ff, 0, 0x33ff]),
                vec![244, 224, 204],
            ),
            (
                Layout::Cmyk16,
                words(&[0xff, 0x64ff, 0xffff, 0x37ff]),
                vec![200, 122, 0],
            ),
        ] {
            let raster = flatten((1, 1), layout, bytes).unwrap();
            let (Samples::Grey(samples) | Samples::Rgb(samples)) = raster.samples;
            assert_eq!(samples, expected, "{layout:?}");
        }
    }

    #[test]
    fn white_stays_white_and_opaque_stays() {
        for v in 0..=255 {
            assert_eq!(over_white(v, 255), v);
            assert_eq!(over_white(v, 0), 255);
            assert_eq!(over_white(255, v), 255);
        }
    }

    #[test]
    fn a_pixel_too_few_or_too_many_is_damage() {
        for len in [0, 5, 7] {
            let raster = flatten((2, 1), Layout::Rgb8, vec![0; len]);
            assert_eq!(raster.err(), Some(ImageError::Undecodable), "{len} bytes");
        }
    }

    #[test]
    fn a_part_has_its_own_pixels() {
        let levels: Vec<u8> = (0..12).collect();
        let part = Raster::grey(4, 3, levels).part((1, 1), (2, 2));
        let Samples::Grey(levels) = part.samples else {
            panic!("it stays grey")
        };
        assert_eq!(levels, [5, 6, 9, 10]);
        let colors: Vec<u8> = (0..12).collect();
        let part = Raster::rgb(2, 2, colors).part((1, 0), (1, 2));
        let Samples::Rgb(colors) = part.samples else {
            panic!("it keeps its colours")
        };
        assert_eq!(colors, [3, 4, 5, 9, 10, 11]);
    }

    #[test]
    fn a_few_lit_pixels_do_not_make_an_image_bright() {
        let with = |num_lit: usize, level: u8| {
            let mut levels = vec![0; 3000];
            levels[..num_lit].fill(level);
            Raster::grey(100, 30, levels).is_nearly_black()
        };
        assert!(with(3, 255));
        assert!(!with(4, 255));
        assert!(with(3000, 15));
        assert!(!with(3000, 16));
    }

    #[test]
    fn pixels_stay_out_of_debug() {
        let raster = Raster::grey(2, 1, vec![201, 202]);
        assert_eq!(format!("{raster:?}"), "Raster { width: 2, height: 1, .. }");
    }
}
