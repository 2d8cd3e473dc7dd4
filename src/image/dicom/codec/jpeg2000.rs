//! JPEG 2000 by `hayro-jpeg2000`, which does not read high-throughput block coding.
//!
//! As pydicom: the codestream's own precision decides, its sign does not. Files in boxes are read too,
//! but of their boxes only the codestream.

use super::decoded::Decoded;
use super::{
    COMPONENTS_DIFFER, FrameSamples, PRECISION_DIFFERS, SIZE_DIFFERS, damaged, unsupported,
};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::PixelFormat;
use crate::image::jpeg2000::{Header, components};

/// Decodes a frame.
///
/// # Errors
/// [`ImageError::Dicom`] for a header that does not fit the description,
/// [`ImageError::Undecodable`] and [`ImageError::UnsupportedVariant`] for others;
/// [`ImageError::Abandoned`] before and after decoding, which cannot be stopped.
pub(super) fn decode(
    encoded: &[u8],
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    let header = Header::of(encoded)?;
    let (columns, rows) = header.size;
    if (columns as usize, rows as usize) != (format.columns, format.rows) {
        return Err(SIZE_DIFFERS);
    }
    if usize::from(header.components) != format.num_samples {
        return Err(COMPONENTS_DIFFER);
    }
    let bits = u32::from(header.precision);
    if bits > format.bits_allocated {
        return Err(PRECISION_DIFFERS);
    }
    if header.is_high_throughput {
        return Err(unsupported("frames in high-throughput JPEG 2000"));
    }
    let planes = components(encoded, cancellation)?;
    let num_pixels = format.num_pixels();
    if planes.len() != format.num_samples || planes.iter().any(|plane| plane.len() != num_pixels) {
        return Err(damaged("a compressed frame has not the size that it says"));
    }
    Decoded {
        values: interleave(&planes, num_pixels),
        bits,
        // Whatever a codestream transforms, it transforms back.
        is_ybr: format.photometric.is_ybr(),
    }
    .into_samples(format)
}

fn interleave(planes: &[Vec<u16>], num_pixels: usize) -> Vec<u16> {
    (0..num_pixels)
        .flat_map(|at| planes.iter().map(move |plane| plane[at]))
        .collect()
}

/// Memory that decoding takes beside the samples that are returned.
pub(super) fn working_bytes(encoded: &[u8]) -> u64 {
    Header::of(encoded).map_or(0, |header| header.decoding_bytes())
}
