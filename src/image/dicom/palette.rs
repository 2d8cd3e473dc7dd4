//! Palettes: colours for indices.

use super::data_set::{
    BLUE_PALETTE, BLUE_PALETTE_DESCRIPTOR, GREEN_PALETTE, GREEN_PALETTE_DESCRIPTOR, ItemView,
    RED_PALETTE, RED_PALETTE_DESCRIPTOR, SEGMENTED_BLUE_PALETTE, SEGMENTED_GREEN_PALETTE,
    SEGMENTED_RED_PALETTE, Tag,
};
use super::lut::Lut;
use crate::error::DicomError;

/// A table of red, one of green and one of blue.
#[derive(Debug)]
pub(super) struct Palette {
    channels: [Lut; 3],
    /// How far entries are shifted down to have 8 bits.
    shift: u32,
}

impl Palette {
    /// Reads a file's palette.
    ///
    /// # Errors
    /// [`DicomError::Missing`] without one, [`DicomError::Damaged`] as [`Lut::read`].
    pub(super) fn read(root: ItemView<'_>, is_signed: bool) -> Result<Self, DicomError> {
        let channel = |descriptor: Tag, plain: Tag, segmented: Tag| {
            let lut = match Lut::read(root, descriptor, plain, is_signed)? {
                Some(lut) => Some(lut),
                None => Lut::read_segmented(root, descriptor, segmented, is_signed)?,
            };
            lut.ok_or(DicomError::Missing {
                name: "palette of colours",
            })
        };
        let channels = [
            channel(RED_PALETTE_DESCRIPTOR, RED_PALETTE, SEGMENTED_RED_PALETTE)?,
            channel(
                GREEN_PALETTE_DESCRIPTOR,
                GREEN_PALETTE,
                SEGMENTED_GREEN_PALETTE,
            )?,
            channel(
                BLUE_PALETTE_DESCRIPTOR,
                BLUE_PALETTE,
                SEGMENTED_BLUE_PALETTE,
            )?,
        ];
        // Entries of 16 bits that never exceed 8 were written as 8.
        let is_wide = channels.iter().any(|lut| lut.largest() > 255);
        Ok(Self {
            channels,
            shift: if is_wide { 8 } else { 0 },
        })
    }

    /// Returns an index's colour.
    pub(super) fn color(&self, idx: i32) -> [u8; 3] {
        self.channels
            .each_ref()
            .map(|lut| (lut.at(idx) >> self.shift) as u8)
    }
}
