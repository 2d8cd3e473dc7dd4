//! Frames that are raw Deflate streams.

use flate2::{Decompress, FlushDecompress, Status};

use super::native::{self, ByteOrder};
use super::{EncodedFrame, FrameSamples, damaged};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::PixelFormat;

/// Bytes that are inflated between two checks for cancellation.
const PIECE: usize = 1 << 20;

/// Inflates a frame, as far as its description needs: what a stream holds beyond is not read.
///
/// # Errors
/// [`ImageError::Dicom`] for a damaged stream, and as [`native::samples`].
pub(super) fn decode(
    encoded: &[u8],
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    let mut inflater = Decompress::new(false);
    let mut bytes = vec![0; format.native_bytes()];
    loop {
        cancellation.check()?;
        let (read, written) = (inflater.total_in() as usize, inflater.total_out() as usize);
        if written == bytes.len() {
            break;
        }
        let piece_end = bytes.len().min(written + PIECE);
        let status = inflater
            .decompress(
                &encoded[read..],
                &mut bytes[written..piece_end],
                FlushDecompress::None,
            )
            .map_err(|_| DAMAGED)?;
        let has_moved = inflater.total_out() as usize > written;
        if status == Status::StreamEnd || !has_moved {
            break;
        }
    }
    if (inflater.total_out() as usize) < bytes.len() {
        return Err(DAMAGED);
    }
    let frame = EncodedFrame {
        bytes: &bytes,
        first_bit: 0,
    };
    native::samples(frame, ByteOrder::Little, format, cancellation)
}

const DAMAGED: ImageError = damaged("a deflated frame is damaged or ends early");
