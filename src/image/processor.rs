//! Converts an image to the vision encoder's input.

use super::cancellation::Cancellation;
use super::decode::{ImageLimits, decode, decoding_bytes};
use super::raster::Raster;
use super::resize::{Side, resize};
use crate::core::{ImageFit, ImageHash, PixelValues};
use crate::error::ImageError;

/// Decodes images and resizes them to `size × size`.
///
/// Normalisation, `(x − 127.5) / 127.5`, is the backend's: until then an image is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageProcessor {
    /// Side of the square, in pixels.
    pub size: usize,
    /// How images are made square.
    pub resize: ImageFit,
    /// Limits of accepted images.
    pub limits: ImageLimits,
}

impl ImageProcessor {
    /// Decodes and prepares one encoded image. Takes milliseconds to seconds of one core.
    ///
    /// # Errors
    /// [`ImageError`] with a fixed text, as [`decode`].
    pub fn process(
        &self,
        encoded: &[u8],
        cancellation: Cancellation<'_>,
    ) -> Result<PixelValues, ImageError> {
        self.prepare(&decode(encoded, &self.limits, cancellation)?, cancellation)
    }

    /// Memory that [`Self::process`] takes for as long as it lasts, at most, as the header says.
    ///
    /// # Errors
    /// [`ImageError`] for what its bytes and its header forbid.
    pub fn decoding_bytes(&self, encoded: &[u8]) -> Result<u64, ImageError> {
        Ok(decoding_bytes(encoded, &self.limits)? + self.prepared_bytes())
    }

    /// Memory that a prepared image takes.
    pub fn prepared_bytes(&self) -> u64 {
        (self.size * self.size * 3) as u64
    }

    /// Prepares an image that is already decoded.
    ///
    /// # Errors
    /// [`ImageError::Abandoned`] between rows, after the cancellation.
    pub fn prepare(
        &self,
        raster: &Raster,
        cancellation: Cancellation<'_>,
    ) -> Result<PixelValues, ImageError> {
        let (horizontal, vertical) = match self.resize {
            ImageFit::Squash => (Side::whole(raster.width), Side::whole(raster.height)),
            ImageFit::Pad => {
                let side = raster.width.max(raster.height);
                (
                    Side::centred(raster.width, side),
                    Side::centred(raster.height, side),
                )
            }
        };
        let rgb = resize(raster, horizontal, vertical, self.size, cancellation)?;
        let hash = self.hash(&rgb);
        Ok(PixelValues {
            size: self.size,
            rgb,
            hash,
        })
    }

    /// Over the pixels, the size and the settings: two images, or one at two settings, never
    /// share what is cached under it.
    fn hash(&self, rgb: &[u8]) -> ImageHash {
        let mut hasher = blake3::Hasher::new_derive_key("medgemma-server 1 prepared image");
        hasher.update(&(self.size as u64).to_le_bytes());
        hasher.update(&[match self.resize {
            ImageFit::Squash => 0,
            ImageFit::Pad => 1,
        }]);
        hasher.update(rgb);
        ImageHash(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(processor: ImageProcessor, raster: &Raster) -> PixelValues {
        processor
            .prepare(raster, Cancellation::NEVER)
            .expect("it is not cancelled")
    }

    fn processor(size: usize, resize: ImageFit) -> ImageProcessor {
        ImageProcessor {
            size,
            resize,
            limits: ImageLimits::default(),
        }
    }

    #[test]
    fn squashed_or_in_the_middle_of_black() {
        let raster = Raster::grey(3, 2, vec![10, 20, 30, 40, 50, 60]);
        let squashed = prepare(processor(3, ImageFit::Squash), &raster);
        let levels =
            |pixels: &PixelValues| pixels.rgb.iter().step_by(3).copied().collect::<Vec<_>>();
        assert_eq!(levels(&squashed), [10, 20, 30, 25, 35, 45, 40, 50, 60]);
        // One black row, and it comes after.
        let padded = prepare(processor(3, ImageFit::Pad), &raster);
        assert_eq!(levels(&padded), [10, 20, 30, 40, 50, 60, 0, 0, 0]);
        let wide = Raster::grey(4, 1, vec![9; 4]);
        let wide = prepare(processor(4, ImageFit::Pad), &wide);
        assert_eq!(
            levels(&wide),
            [0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn padding_a_very_long_image_takes_no_memory_for_its_square() {
        // The square would have 4 · 10¹⁰ pixels.
        let raster = Raster::grey(200_000, 1, vec![255; 200_000]);
        let pixels = prepare(processor(8, ImageFit::Pad), &raster);
        assert!(
            pixels.rgb.iter().all(|&v| v == 0),
            "one row of 200,000 rounds to nothing"
        );
    }

    #[test]
    fn the_hash_is_of_pixels_size_and_settings() {
        let black = |w: usize, h: usize| Raster::grey(w, h, vec![0; w * h]);
        let squash = processor(4, ImageFit::Squash);
        let hash = prepare(squash, &black(4, 4)).hash;
        assert_eq!(hash, prepare(squash, &black(4, 4)).hash);
        assert_eq!(
            hash,
            prepare(squash, &black(9, 2)).hash,
            "the same pixels in the end"
        );
        assert_ne!(
            hash,
            prepare(processor(5, ImageFit::Squash), &black(4, 4)).hash
        );
        assert_ne!(
            hash,
            prepare(processor(4, ImageFit::Pad), &black(4, 4)).hash
        );
        let mut grey = vec![0; 16];
        grey[5] = 1;
        assert_ne!(hash, prepare(squash, &Raster::grey(4, 4, grey)).hash);
    }
}
