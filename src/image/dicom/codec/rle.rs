//! Run-length encoded byte planes (PS3.5 annex G).
//!
//! ```text
//! number of segments, 15 offsets │ segment │ segment │ …
//!   16 × u32                       highest    next byte of the first sample of all pixels,
//!                                             then those of the second sample, …
//! ```

use std::ops::Range;

use super::native::{self, ByteOrder};
use super::{EncodedFrame, FrameSamples, damaged, unsupported};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::{Photometric, PixelFormat};

const HEADER_LEN: usize = 64;
const MAX_SEGMENTS: usize = 15;

/// Decodes a frame.
///
/// # Errors
/// [`ImageError::Dicom`] for a header that does not fit the description and for segments that end
/// early; [`ImageError::Abandoned`] between segments.
pub(super) fn decode(
    encoded: &[u8],
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    if format.bits_allocated == 1 {
        return Err(unsupported("run-length encoded samples of one bit"));
    }
    let width = format.bits_allocated as usize / 8;
    let num_segments = format.num_samples * width;
    let segments = segments(encoded, num_segments)?;
    let num_pixels = format.num_pixels();
    // As if stored plane after plane, little endian.
    let mut bytes = vec![0; num_pixels * num_segments];
    for (idx, segment) in segments.into_iter().enumerate() {
        cancellation.check()?;
        let (sample, place) = (idx / width, width - 1 - idx % width);
        let plane = &mut bytes[sample * num_pixels * width..][..num_pixels * width];
        expand(&encoded[segment], &mut plane[place..], width)?;
    }
    let format = PixelFormat {
        is_planar: format.num_samples > 1,
        // Planes are whole: there is no way to store differences for every second pixel.
        photometric: match format.photometric {
            Photometric::YbrFull422 => Photometric::YbrFull,
            other => other,
        },
        ..*format
    };
    let frame = EncodedFrame {
        bytes: &bytes,
        first_bit: 0,
    };
    native::samples(frame, ByteOrder::Little, &format, cancellation)
}

/// Reads the header.
fn segments(encoded: &[u8], expected: usize) -> Result<Vec<Range<usize>>, ImageError> {
    let header = encoded.get(..HEADER_LEN).ok_or(SHORT)?;
    let numbers: Vec<usize> = header
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word) as usize)
        .collect();
    let count = numbers[0];
    if count != expected || count > MAX_SEGMENTS {
        return Err(damaged(
            "a frame has not as many run-length encoded segments as its samples have bytes",
        ));
    }
    let mut ends = numbers[2..=count].to_vec();
    ends.push(encoded.len());
    let ranges = numbers[1..=count].iter().zip(ends);
    ranges
        .map(
            |(&start, end)| match start >= HEADER_LEN && start <= end && end <= encoded.len() {
                true => Ok(start..end),
                false => Err(damaged(
                    "the run-length encoded segments of a frame are not one after the other",
                )),
            },
        )
        .collect()
}

const SHORT: ImageError = damaged("a run-length encoded frame ends early");

/// Expands a segment into every `stride`th byte of `plane`, up to its end. What a segment holds
/// beyond is padding.
fn expand(segment: &[u8], plane: &mut [u8], stride: usize) -> Result<(), ImageError> {
    let len = plane.len().div_ceil(stride);
    let (mut done, mut rest) = (0, segment);
    while done < len {
        let (&control, after) = rest.split_first().ok_or(SHORT)?;
        match control {
            // So many bytes and one, as they are.
            0..=127 => {
                let count = (usize::from(control) + 1).min(len - done);
                let literal = after.get(..count).ok_or(SHORT)?;
                let places = plane[done * stride..].iter_mut().step_by(stride);
                places.zip(literal).for_each(|(place, byte)| *place = *byte);
                done += count;
                rest = &after[count..];
            }
            128 => rest = after,
            // One byte, 2 to 128 times.
            129.. => {
                let (&byte, after) = after.split_first().ok_or(SHORT)?;
                let count = (257 - usize::from(control)).min(len - done);
                let places = plane[done * stride..].iter_mut().step_by(stride);
                places.take(count).for_each(|place| *place = byte);
                done += count;
                rest = after;
            }
        }
    }
    Ok(())
}
