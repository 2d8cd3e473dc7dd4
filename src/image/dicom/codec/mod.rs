//! Undoes the compression of one frame.
//!
//! What a codec's own header says is compared with the file's description before anything is
//! decoded: no decoder allocates more than the description explains.
//!
//! ```text
//! frame ─┬─ native, deflated, rle ────────────────────▶ samples
//!        ├─ jpeg_header ─┬─ jpeg (8, 12 bits, lossless) ─┐
//!        │               └─ jpeg_ls ─────────────────────┼─▶ Decoded ──color──▶ samples
//!        └─ jpeg2000 ────────────────────────────────────┘
//! ```

mod color;
mod decoded;
mod deflated;
mod jpeg;
mod jpeg2000;
mod jpeg_header;
mod jpeg_ls;
mod native;
mod rle;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::native::ByteOrder;
use super::pixel_format::PixelFormat;
use super::transfer_syntax::{Compression, Encoding, TransferSyntax};
use crate::error::{DicomError, ImageError};
use crate::image::cancellation::Cancellation;

/// One frame as it is stored.
#[derive(Clone, Copy)]
pub(super) struct EncodedFrame<'a> {
    /// Uncompressed: the bytes that hold the frame; of 8 bits or less a sample in the order of
    /// pixels, also where big endian words hold them. Compressed: its fragments, joined.
    pub(super) bytes: &'a [u8],
    /// Bits of the first byte that belong to the frame before, for one bit a sample; else 0.
    pub(super) first_bit: usize,
}

/// The samples of one frame, pixel after pixel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameSamples {
    /// Grey levels or indices of a palette, `(rows, columns)`: shifted down from the high bit,
    /// cleared above it, sign extended.
    ///
    /// JPEG-LS and JPEG 2000 have a precision of their own, which decides instead of BitsStored where
    /// they differ: values can then lie outside of the description's range.
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
    cancellation.check()?;
    // A decoder that panics has met a frame that its author did not foresee: that is the file's
    // fault, and this request's alone.
    let samples = catch_unwind(AssertUnwindSafe(|| {
        decode(syntax, format, frame, cancellation)
    }))
    .unwrap_or(Err(ImageError::Undecodable));
    // A decoder that was stopped calls it damage.
    cancellation.check()?;
    samples.map_err(|error| match error {
        ImageError::Undecodable => damaged("a compressed frame is damaged or ends early"),
        ImageError::UnsupportedVariant | ImageError::TooManyPixels { .. } => {
            unsupported("frames in a variant of their compression that is not read")
        }
        error => error,
    })
}

fn decode(
    syntax: TransferSyntax,
    format: &PixelFormat,
    frame: EncodedFrame<'_>,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    let order = match syntax.encoding {
        Encoding::ExplicitBig => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    match syntax.compression {
        Compression::Native | Compression::EncapsulatedNative => {
            native::samples(frame, order, format, cancellation)
        }
        Compression::DeflatedFrames => deflated::decode(frame.bytes, format, cancellation),
        Compression::Rle => rle::decode(frame.bytes, format, cancellation),
        // Whichever of them a file names, its frames say which they are.
        Compression::Jpeg | Compression::JpegLossless | Compression::JpegLs => {
            jpeg::decode(frame.bytes, format, cancellation)
        }
        Compression::Jpeg2000 => jpeg2000::decode(frame.bytes, format, cancellation),
        Compression::JpegXl => Err(unsupported("frames in JPEG XL")),
    }
}

/// Memory that decoding a frame takes at most, its samples included, as its bytes and `format` say.
pub(super) fn decoding_bytes(
    syntax: TransferSyntax,
    format: &PixelFormat,
    frame: EncodedFrame<'_>,
) -> u64 {
    let values = format.num_values() as u64;
    // Grey samples are 32 bits wide, colours 8.
    let samples = values * 4;
    let work = match syntax.compression {
        Compression::Native | Compression::EncapsulatedNative => 0,
        Compression::DeflatedFrames | Compression::Rle => {
            values * u64::from(format.bits_allocated).div_ceil(8)
        }
        Compression::Jpeg | Compression::JpegLossless | Compression::JpegLs => {
            jpeg::working_bytes(format)
        }
        Compression::Jpeg2000 => jpeg2000::working_bytes(frame.bytes),
        Compression::JpegXl => 0,
    };
    samples + work
}

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Dicom(DicomError::Damaged { what })
}

const fn unsupported(what: &'static str) -> ImageError {
    ImageError::Dicom(DicomError::Unsupported { what })
}

const SIZE_DIFFERS: ImageError =
    damaged("a compressed frame has another size than Rows and Columns");
const COMPONENTS_DIFFER: ImageError =
    damaged("a compressed frame has another number of samples per pixel than the file says");
const PRECISION_DIFFERS: ImageError =
    damaged("the samples of a compressed frame have more bits than BitsAllocated");
