//! GIF: the first frame on its screen.
//!
//! As `PIL.GifImagePlugin`: what the frame does not cover has the transparent colour, or else the
//! palette's first.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decode::memory_budget;
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

/// Decodes the first frame; `size` is the screen's, grown to hold it.
///
/// # Errors
/// [`ImageError::Undecodable`].
pub(super) fn decode(encoded: &[u8], size: (usize, usize)) -> Result<Raster, ImageError> {
    let damaged = |_: gif::DecodingError| ImageError::Undecodable;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let budget = NonZeroU64::new(memory_budget(size) as u64).expect("a megabyte at least");
    options.set_memory_limit(MemoryLimit::Bytes(budget));
    let mut decoder = options.read_info(encoded).map_err(damaged)?;
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
