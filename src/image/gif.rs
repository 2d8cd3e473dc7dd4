//! GIF: the first frame on its screen.
//!
//! As `PIL.GifImagePlugin`: what the frame does not cover has the transparent colour, or else the
//! palette's first.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decode::memory_budget;
use super::encoded_file::EncodedFile;
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

/// Decodes the first frame; `size` is the screen's, grown to hold it.
///
/// # Errors
/// [`ImageError::Undecodable`].
pub(super) fn decode(file: EncodedFile<'_>, size: (usize, usize)) -> Result<Raster, ImageError> {
    let damaged = |_: gif::DecodingError| ImageError::Undecodable;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let budget = NonZeroU64::new(memory_budget(size) as u64).expect("a megabyte at least");
    options.set_memory_limit(MemoryLimit::Bytes(budget));
    let mut decoder = options.read_info(file).map_err(damaged)?;
    let frame = decoder
        .next_frame_info()
        .map_err(damaged)?
        .ok_or(ImageError::Undecodable)?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    let transparent = frame.transparent;
    if left + width > size.0 || top + height > size.1 {
        return Err(ImageError::Undecodable);
    }

    let mut indices = vec![0; width * height];
    decoder.read_into_buffer(&mut indices).map_err(damaged)?;
    let mut palette = [[0, 0, 0, 255]; 256];
    let (colors, _) = decoder.palette().map_err(damaged)?.as_chunks::<3>();
    for (entry, &[r, g, b]) in palette.iter_mut().zip(colors) {
        *entry = [r, g, b, 255];
    }
    if let Some(idx) = transparent {
        palette[usize::from(idx)][3] = 0;
    }

    let mut canvas = palette[usize::from(transparent.unwrap_or(0))].repeat(size.0 * size.1);
    if width > 0 {
        let rows = canvas.chunks_exact_mut(size.0 * 4).skip(top);
        for (row, indices) in rows.zip(indices.chunks_exact(width)) {
            for (pixel, &idx) in row[left * 4..].chunks_exact_mut(4).zip(indices) {
                pixel.copy_from_slice(&palette[usize::from(idx)]);
            }
        }
    }
    flatten(size, Layout::Rgba8, canvas)
}

#[cfg(test)]
mod tests {
    use super::super::cancellation::Cancellation;
    use super::super::decode::{ImageLimits, decode};
    use super::super::raster::Samples;
    use crate::error::ImageError;

    /// One white pixel at (1, 1), with a palette of red, white and black.
    fn file((width, height): (u8, u8), transparent: Option<u8>) -> Vec<u8> {
        let mut bytes = b"GIF89a".to_vec();
        bytes.extend([width, 0, height, 0, 0x81, 2, 0]);
        bytes.extend([255, 0, 0, 255, 255, 255, 0, 0, 0, 9, 9, 9]);
        if let Some(idx) = transparent {
            bytes.extend([0x21, 0xf9, 4, 1, 0, 0, idx, 0]);
        }
        bytes.extend([0x2c, 1, 0, 1, 0, 1, 0, 1, 0, 0]);
        // Codes of 3 bits: clear, index 1, end.
        bytes.extend([2, 2, 0b01_001_100, 0b1, 0, 0x3b]);
        bytes
    }

    fn levels(encoded: &[u8]) -> Result<Vec<u8>, ImageError> {
        match decode(encoded, &ImageLimits::default(), Cancellation::NEVER)?.samples {
            Samples::Grey(_) => panic!("a GIF has colours"),
            Samples::Rgb(levels) => Ok(levels),
        }
    }

    const RED: [u8; 3] = [255, 0, 0];
    const WHITE: [u8; 3] = [255; 3];

    #[test]
    fn around_the_frame_is_the_first_colour_or_nothing() {
        assert_eq!(
            levels(&file((2, 2), None)),
            Ok([RED, RED, RED, WHITE].concat())
        );
        // Transparent is white in the end, whatever the palette says.
        assert_eq!(levels(&file((2, 2), Some(2))), Ok([WHITE; 4].concat()));
    }

    #[test]
    fn a_screen_too_small_for_its_frame_grows() {
        assert_eq!(
            levels(&file((1, 1), None)),
            Ok([RED, RED, RED, WHITE].concat())
        );
        assert_eq!(
            levels(&file((0, 0), None)),
            Ok([RED, RED, RED, WHITE].concat())
        );
    }
}
