//! A picture to the pixels that the vision tower takes.

use super::decode::{ImageLimits, decode};
use super::raster::Raster;
use super::resize::{Side, resize};
use crate::core::{ImageHash, PixelValues};
use crate::error::ImageError;

/// How a picture that is not square becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Each side for itself, as transformers' `Gemma3ImageProcessor` does.
    #[default]
    Squash,
    /// In the middle of a black square, as MedGemma's own serving container does ("as in
    /// training"); of an odd number of black rows or columns, more come after it.
    PadToSquare,
}

/// Decodes pictures and resizes them to `size × size`.
///
/// Normalisation, `(x − 127.5) / 127.5`, is the backend's: until then a picture is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageProcessor {
    /// Side of the square; 896 for Gemma 3.
    pub size: usize,
    /// How it becomes square.
    pub resize: Resize,
    /// What is taken at all.
    pub limits: ImageLimits,
}

impl ImageProcessor {
    /// Decodes and prepares one encoded picture. Takes milliseconds to seconds of one core.
    ///
    /// # Errors
    /// [`ImageError`] with a fixed text, as [`decode`].
    pub fn process(&self, encoded: &[u8]) -> Result<PixelValues, ImageError> {
        Ok(self.prepare(&decode(encoded, &self.limits)?))
    }

    /// Prepares a picture that is already decoded.
    pub fn prepare(&self, raster: &Raster) -> PixelValues {
        let (horizontal, vertical) = match self.resize {
            Resize::Squash => (Side::whole(raster.width), Side::whole(raster.height)),
            Resize::PadToSquare => {
                let side = raster.width.max(raster.height);
                (
                    Side::centred(raster.width, side),
                    Side::centred(raster.height, side),
                )
            }
        };
        let rgb = resize(raster, horizontal, vertical, self.size);
        let hash = self.hash(&rgb);
        PixelValues {
            size: self.size,
            rgb,
            hash,
        }
    }

    /// Over the pixels, the size and the settings: two pictures, or one at two settings, never
    /// share what is cached under it.
    fn hash(&self, rgb: &[u8]) -> ImageHash {
        let mut hasher = blake3::Hasher::new_derive_key("medgemma-server 1 prepared image");
        hasher.update(&(self.size as u64).to_le_bytes());
        hasher.update(&[match self.resize {
            Resize::Squash => 0,
            Resize::PadToSquare => 1,
        }]);
        hasher.update(rgb);
        ImageHash(*hasher.finalize().as_bytes())
    }
}
