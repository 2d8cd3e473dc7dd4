//! A file of a format of images: PNG, JPEG and the others. It becomes one image, of an animation or
//! a document the first.

use super::cancellation::Cancellation;
use super::decode::{ImageLimits, decode, decoding_bytes, stated};
use super::format::Format;
use super::ifd::Directory;
use super::metadata::{png_chunks, riff_chunks};
use super::orientation::Orientation;
use super::raster::Raster;
use super::report::{MediaReport, Warning, Warnings};
use super::{format, ifd, metadata};
use crate::core::ImageFit;
use crate::error::ImageError;

/// Most images of a file that are counted.
const MAX_COUNTED: usize = 4096;

/// An opened file.
pub(super) struct PlainImage {
    encoded: Vec<u8>,
    limits: ImageLimits,
    format: Format,
    /// Width and height as it is shown.
    size: (usize, usize),
    decoding_bytes: u64,
}

impl PlainImage {
    /// Checks a file's header.
    ///
    /// # Errors
    /// [`ImageError`] for what its bytes and its header forbid.
    pub(super) fn open(encoded: Vec<u8>, limits: ImageLimits) -> Result<Self, ImageError> {
        let stated = stated(&encoded, &limits).map_err(|error| match error {
            ImageError::UnknownFormat => format::refusal(&encoded),
            error => error,
        });
        let (format, (width, height)) = stated?;
        let decoding_bytes = decoding_bytes(&encoded, &limits)?;
        let orientation = Orientation::of(&metadata::find(format, &encoded));
        let size = match orientation.swaps_sides() {
            true => (height, width),
            false => (width, height),
        };
        Ok(Self {
            encoded,
            limits,
            format,
            size,
            decoding_bytes,
        })
    }

    /// Returns width and height as it is shown.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Returns the memory that decoding takes for as long as it lasts, at most.
    pub(super) fn decoding_bytes(&self) -> u64 {
        self.decoding_bytes
    }

    /// Decodes the image.
    ///
    /// # Errors
    /// As [`decode`].
    pub(super) fn decode(&self, cancellation: Cancellation<'_>) -> Result<Raster, ImageError> {
        decode(&self.encoded, &self.limits, cancellation)
    }

    /// Returns what is known of it without decoding.
    pub(super) fn report(&self) -> MediaReport {
        let mut warnings = Warnings::new();
        if is_lossy(self.format, &self.encoded) {
            warnings.insert(Warning::LossySource);
        }
        MediaReport {
            kind: self.format.as_str(),
            modality: None,
            images: 1,
            of: num_images(self.format, &self.encoded).clamp(1, MAX_COUNTED),
            window: None,
            fit: ImageFit::Squash,
            warnings,
        }
    }
}

/// Whether a file's compression surely lost something. A PNG that was made of a JPEG is not told.
fn is_lossy(format: Format, encoded: &[u8]) -> bool {
    const COMPRESSION: u16 = 259;
    match format {
        Format::Jpeg => true,
        Format::WebP => {
            let chunks = riff_chunks(encoded.get(12..).unwrap_or_default());
            chunks.take(MAX_COUNTED).any(|chunk| match chunk.kind {
                b"VP8 " => true,
                // A frame of an animation: its place, then chunks of its own.
                b"ANMF" => {
                    let mut nested = riff_chunks(chunk.data.get(16..).unwrap_or_default());
                    nested.any(|chunk| chunk.kind == b"VP8 ")
                }
                _ => false,
            })
        }
        Format::Tiff => {
            let compression = Directory::first_in(encoded).and_then(|tags| tags.value(COMPRESSION));
            matches!(compression, Some(6 | 7))
        }
        Format::Png | Format::Gif | Format::Bmp | Format::Jpeg2000 => false,
    }
}

/// Returns the number of images that a file says to hold.
fn num_images(format: Format, encoded: &[u8]) -> usize {
    match format {
        Format::Gif => num_gif_frames(encoded),
        Format::WebP => {
            let chunks = riff_chunks(encoded.get(12..).unwrap_or_default());
            let frames = chunks.filter(|chunk| chunk.kind == b"ANMF");
            frames.take(MAX_COUNTED).count()
        }
        Format::Png => {
            let control = png_chunks(encoded)
                .take_while(|chunk| chunk.kind != b"IDAT")
                .find(|chunk| chunk.kind == b"acTL");
            let number = control.and_then(|chunk| chunk.data.first_chunk::<4>());
            number.map_or(1, |number| u32::from_be_bytes(*number) as usize)
        }
        Format::Tiff => ifd::num_images(encoded, MAX_COUNTED),
        Format::Jpeg | Format::Bmp | Format::Jpeg2000 => 1,
    }
}

fn num_gif_frames(encoded: &[u8]) -> usize {
    let palette_len = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let walk = || {
        let mut num_frames = 0;
        let mut rest = encoded.get(13 + palette_len(*encoded.get(10)?)..);
        while let Some(blocks) = rest {
            // What stands before a block's pieces, each with its length before it.
            let head = match blocks {
                [0x21, _, ..] => 2,
                [0x2c, frame @ ..] => {
                    num_frames += 1;
                    11 + palette_len(*frame.get(8)?)
                }
                _ => break,
            };
            let mut pieces = blocks.get(head..)?;
            while let [length @ 1..=255, after @ ..] = pieces {
                pieces = after.get(usize::from(*length)..)?;
            }
            rest = pieces.get(1..).filter(|_| num_frames < MAX_COUNTED);
        }
        Some(num_frames)
    };
    walk().unwrap_or(1)
}
