//! Cuts images into the rows that the patch embedding multiplies.

use crate::core::PixelValues;

/// Returns every patch as a normalised row of `(images · patches, 3 · patch²)`, channel first.
pub(super) fn patches(images: &[PixelValues], patch_size: usize) -> Vec<f32> {
    let mut rows = Vec::new();
    for image in images {
        let grid = image.size / patch_size;
        rows.reserve(grid * grid * 3 * patch_size * patch_size);
        for patch in 0..grid * grid {
            let (top, left) = (patch / grid * patch_size, patch % grid * patch_size);
            for channel in 0..3 {
                for y in top..top + patch_size {
                    let row = &image.rgb[y * image.size * 3..(y + 1) * image.size * 3];
                    rows.extend(
                        (left..left + patch_size)
                            // Rescaling and normalising are combined in one step, as in the
                            // reference.
                            .map(|x| (f32::from(row[x * 3 + channel]) - 127.5) / 127.5),
                    );
                }
            }
        }
    }
    rows
}
