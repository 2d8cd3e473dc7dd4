//! JPEG: 8 bits by mozjpeg, 12 bits and lossless by `oxiarc-jpeg`, JPEG-LS by our own decoder.

use oxiarc_jpeg::{DecodeLimits, DecodeOptions, decode_abbreviated_into_u16};

use super::decoded::Decoded;
use super::jpeg_header::{JpegHeader, Process};
use super::{FrameSamples, jpeg_ls};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::PixelFormat;
use crate::image::encoded_file::EncodedFile;
use crate::image::jpeg::{self, Colors};

/// Bytes that decoding takes for each sample: a coefficient of each, of progressive frames, and the
/// samples as decoded and as upsampled.
const BYTES_PER_SAMPLE: u64 = 12;
/// Rows and columns are coded in blocks of up to 32.
const MAX_PADDING: usize = 64;
/// Scans of a progressive frame of 12 bits; encoders write about ten.
const MAX_SCANS: u32 = 64;

/// Decodes a frame of any of JPEG's processes.
///
/// # Errors
/// [`ImageError::Dicom`] for a header that does not fit the description, [`ImageError::Undecodable`]
/// for damage, [`ImageError::Abandoned`] after the cancellation.
pub(super) fn decode(
    encoded: &[u8],
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<FrameSamples, ImageError> {
    let header = JpegHeader::read(encoded, format)?;
    let JpegHeader {
        process,
        precision,
        is_ybr,
    } = header;
    // Words above BitsStored are copies of the sign, or rubbish.
    let bits = match format.num_samples {
        1 => format.bits_stored,
        _ => format.bits_stored.min(precision),
    };
    match (process, precision) {
        (Process::Dct, 8) => {
            let size = (format.columns, format.rows, format.num_samples);
            let file = EncodedFile::new(encoded, cancellation);
            let values = jpeg::samples(file, size, Colors::AsStored, cancellation)?;
            Decoded {
                values,
                bits,
                is_ybr,
            }
            .into_samples(format)
        }
        (Process::Dct | Process::Lossless, _) => {
            let values = deep_samples(encoded, format)?;
            Decoded {
                values,
                bits,
                is_ybr,
            }
            .into_samples(format)
        }
        (Process::Ls, _) => {
            let values = jpeg_ls::decode(encoded, format, cancellation)?;
            let bits = precision;
            Decoded {
                values,
                bits,
                is_ybr,
            }
            .into_samples(format)
        }
    }
}

fn deep_samples(encoded: &[u8], format: &PixelFormat) -> Result<Vec<u16>, ImageError> {
    let padded = (format.columns + MAX_PADDING) * (format.rows + MAX_PADDING);
    let most = (padded * format.num_samples) as u64 * BYTES_PER_SAMPLE;
    let options = DecodeOptions {
        limits: DecodeLimits {
            max_pixels: format.num_pixels() as u64,
            max_components: 3,
            max_scans: MAX_SCANS,
            max_coefficient_bytes: most,
            max_output_bytes: most,
            ..DecodeLimits::default()
        },
        ..DecodeOptions::raw()
    };
    let mut samples = vec![0; format.num_values()];
    decode_abbreviated_into_u16(None, encoded, &options, &mut samples)
        .map_err(|_| ImageError::Undecodable)?;
    Ok(samples)
}

/// Memory that decoding takes beside the samples that are returned.
pub(super) fn working_bytes(format: &PixelFormat) -> u64 {
    let padded = (format.columns + MAX_PADDING) * (format.rows + MAX_PADDING);
    (padded * format.num_samples) as u64 * BYTES_PER_SAMPLE
}
