//! Luma and colour differences (YCbCr) that are stored without JPEG.
//!
//! As libtiff's `tif_color.c` computes it, which Pillow asks for RGB; what is not compressed, Pillow
//! converts itself. Colours that several pixels share are repeated.

use super::description::{Compression, Description};

/// Bytes of a chunk: blocks of luma, each followed by its two colour differences.
pub(super) fn stored_len((width, height): (usize, usize), (h, v): (usize, usize)) -> usize {
    width.div_ceil(h) * height.div_ceil(v) * (h * v + 2)
}

/// Converts a chunk of [`stored_len`] bytes to RGB.
pub(super) fn to_rgb(
    stored: &[u8],
    (width, height): (usize, usize),
    description: &Description,
) -> Vec<u8> {
    let (h, v) = description.subsampling;
    let across = width.div_ceil(h);
    let block_len = h * v + 2;
    let convert = match description.compression {
        Compression::None => convert_as_pillow,
        _ => convert,
    };
    let mut rgb = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let block = &stored[(y / v * across + x / h) * block_len..][..block_len];
            let luma = block[y % v * h + x % h];
            rgb.extend_from_slice(&convert(luma, block[h * v], block[h * v + 1]));
        }
    }
    rgb
}

/// Pillow's `ImagingConvertYCbCr2RGB`: six bits behind the point, and what is behind them dropped.
fn convert_as_pillow(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let factor = |factor: f64, from: u8| (factor * 64.0 * (f64::from(from) - 128.0) + 0.5) as i32;
    let level = |difference: i32| (i32::from(luma) + (difference >> 6)).clamp(0, 255) as u8;
    [
        level(factor(1.402, red)),
        level(factor(-0.34414, blue) + factor(-0.71414, red)),
        level(factor(1.772, blue)),
    ]
}

/// With the luma coefficients of ITU-R BT.601 and levels of the whole range, TIFF's defaults.
fn convert(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    // 1.402, 0.714…, 1.772 and 0.344… times 2¹⁶, as the C code's single precision rounds them.
    const RED_TO_RED: i32 = 91_881;
    const RED_TO_GREEN: i32 = -46_802;
    const BLUE_TO_BLUE: i32 = 116_130;
    const BLUE_TO_GREEN: i32 = -22_553;
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let level = |level: i32| level.clamp(0, 255) as u8;
    [
        level(luma + ((RED_TO_RED * red + HALF) >> 16)),
        level(luma + ((BLUE_TO_GREEN * blue + RED_TO_GREEN * red + HALF) >> 16)),
        level(luma + ((BLUE_TO_BLUE * blue + HALF) >> 16)),
    ]
}
