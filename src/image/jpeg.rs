//! JPEG, by mozjpeg's copy of libjpeg-turbo.
//!
//! Pillow decodes with libjpeg-turbo, and decoders differ by up to 9 levels in subsampled colour;
//! this one gives the same bytes (accurate integer DCT and smooth upsampling are its defaults). It
//! is C, compiled with the crate, without assembler.
//!
//! Fatal errors leave the C code by unwinding, which the caller catches; so this needs
//! `panic = "unwind"`.

use std::io::{self, BufRead, Read};

use mozjpeg::{ColorSpace, Decompress};

use super::cancellation::Cancellation;
use super::encoded_file::EncodedFile;
use super::raster::{Layout, Raster, flatten};
use crate::error::ImageError;

/// What is done to the colours of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    /// Colour differences become RGB.
    Rgb,
    /// Nothing.
    AsStored,
}

/// Decodes a baseline or progressive file of 1, 3 or 4 components.
///
/// # Errors
/// [`ImageError::Undecodable`] also for a file that ends early, which libjpeg would fill with grey;
/// [`ImageError::Abandoned`] between rows.
///
/// # Panics
/// Unwinds, without a message, out of libjpeg's fatal errors.
pub(super) fn decode(
    file: EncodedFile<'_>,
    size: (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    let decoder = open(file, size)?;
    let (space, layout) = match decoder.components().len() {
        1 => (ColorSpace::JCS_GRAYSCALE, Layout::Grey8),
        3 => (ColorSpace::JCS_RGB, Layout::Rgb8),
        4 => (ColorSpace::JCS_CMYK, Layout::Cmyk8),
        _ => return Err(ImageError::UnsupportedVariant),
    };
    let row_len = size.0 * layout.bytes_per_pixel();
    let mut samples = rows(decoder, space, (row_len, size.1), cancellation)?;
    if layout == Layout::Cmyk8 {
        // Adobe stores ink inverted; like Pillow, take every file for one of Adobe's.
        samples.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    flatten(size, layout, samples)
}

/// Decodes the samples of a file of this width, height and number of components.
///
/// # Errors
/// As [`decode`], and [`ImageError::UnsupportedVariant`] for colours that the file stores otherwise
/// than `colors` expects.
///
/// # Panics
/// As [`decode`].
pub(super) fn samples(
    file: EncodedFile<'_>,
    (width, height, components): (usize, usize, usize),
    colors: Colors,
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let decoder = open(file, (width, height))?;
    if decoder.components().len() != components {
        return Err(ImageError::Undecodable);
    }
    let space = match (colors, decoder.color_space()) {
        (Colors::Rgb, ColorSpace::JCS_YCbCr) => ColorSpace::JCS_RGB,
        (Colors::Rgb, _) => return Err(ImageError::UnsupportedVariant),
        (Colors::AsStored, stored) => stored,
    };
    rows(decoder, space, (width * components, height), cancellation)
}

fn open(
    file: EncodedFile<'_>,
    size: (usize, usize),
) -> Result<Decompress<WholeFile<'_>>, ImageError> {
    let decoder = Decompress::new_reader(WholeFile(file)).map_err(|_| ImageError::Undecodable)?;
    if decoder.size() != size {
        return Err(ImageError::Undecodable);
    }
    Ok(decoder)
}

fn rows(
    decoder: Decompress<WholeFile<'_>>,
    space: ColorSpace,
    (row_len, height): (usize, usize),
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let damaged = |_: io::Error| ImageError::Undecodable;
    let mut started = decoder.to_colorspace(space).map_err(damaged)?;
    let mut samples = vec![0; row_len * height];
    for row in samples.chunks_exact_mut(row_len) {
        cancellation.check()?;
        started.read_scanlines_into(row).map_err(damaged)?;
    }
    started.finish().map_err(damaged)?;
    Ok(samples)
}

/// Reads a file whose end is an error: the `mozjpeg` crate would make up an end-of-image marker.
struct WholeFile<'a>(EncodedFile<'a>);

impl BufRead for WholeFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let piece = self.0.fill_buf()?;
        if piece.is_empty() {
            // Not `UnexpectedEof`, which is what is papered over.
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(piece)
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl Read for WholeFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
