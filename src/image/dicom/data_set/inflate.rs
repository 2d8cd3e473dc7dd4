//! The deflated transfer syntax: all elements are one raw Deflate stream.

use std::io::{self, Read};

use flate2::read::DeflateDecoder;

use super::walk::{Found, PixelData, Writing, walk};
use crate::error::DicomError;

/// Elements before the pixel data: inflated before it is known what the file explains.
const HEADER_BYTES: u64 = 16 << 20;
const WRITING: Writing = Writing {
    is_explicit: true,
    is_big_endian: false,
};
const DAMAGED: DicomError = DicomError::Damaged {
    what: "its deflated part cannot be inflated",
};

/// Inflates a data set up to the end of its native pixel data and walks over it. At most
/// `max_inflated` bytes are inflated, and no more than 16 MiB before the length of the pixel data is
/// known.
///
/// # Errors
/// As [`walk`]; and [`DicomError::TooMany`] beyond `max_inflated`.
pub(super) fn read(deflated: &[u8], max_inflated: usize) -> Result<(Vec<u8>, Found), DicomError> {
    let too_many = || DicomError::TooMany {
        what: "inflated bytes",
        max: max_inflated,
    };
    let mut stream = DeflateDecoder::new(deflated);
    let mut bytes = Vec::new();
    let is_whole = inflate_to(
        &mut stream,
        &mut bytes,
        HEADER_BYTES.min(max_inflated as u64),
    )?;
    let found = walk(&bytes, 0, WRITING, is_whole)?;
    if is_whole {
        return Ok((bytes, found));
    }
    // Encapsulated fragments are found only where they are: they are not deflated a second time.
    let Some(PixelData::Native { range, .. }) = &found.pixel_data else {
        return Err(DicomError::Unsupported {
            what: "a deflated data set of more than 16 MiB without pixels",
        });
    };
    if range.end > max_inflated {
        return Err(too_many());
    }
    inflate_to(&mut stream, &mut bytes, range.end as u64)?;
    if bytes.len() < range.end {
        return Err(DicomError::Damaged {
            what: "the pixel data ends early",
        });
    }
    Ok((bytes, found))
}

/// Inflates until `bytes` has `length` bytes or the stream ends, and says whether it ended.
fn inflate_to(
    stream: &mut DeflateDecoder<&[u8]>,
    bytes: &mut Vec<u8>,
    length: u64,
) -> Result<bool, DicomError> {
    let wanted = length - bytes.len() as u64;
    match stream.by_ref().take(wanted).read_to_end(bytes) {
        Ok(_) => Ok((bytes.len() as u64) < length),
        // Some writers leave the stream without its end; what is missing shows in the elements.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
        Err(_) => Err(DAMAGED),
    }
}
