//! What a TIFF's fields say of its samples, and whether they can be believed.

use super::super::ifd::{Directory, Entry};
use crate::error::ImageError;

pub(super) const IMAGE_WIDTH: u16 = 256;
pub(super) const IMAGE_LENGTH: u16 = 257;
pub(super) const BITS_PER_SAMPLE: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
pub(super) const FILL_ORDER: u16 = 266;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const SAMPLES_PER_PIXEL: u16 = 277;
pub(super) const ROWS_PER_STRIP: u16 = 278;
pub(super) const STRIP_BYTE_COUNTS: u16 = 279;
pub(super) const PLANAR_CONFIGURATION: u16 = 284;
pub(super) const PREDICTOR: u16 = 317;
pub(super) const COLOR_MAP: u16 = 320;
pub(super) const TILE_WIDTH: u16 = 322;
pub(super) const TILE_LENGTH: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_BYTE_COUNTS: u16 = 325;
pub(super) const EXTRA_SAMPLES: u16 = 338;
pub(super) const SAMPLE_FORMAT: u16 = 339;
pub(super) const YCBCR_SUBSAMPLING: u16 = 530;

/// What the samples mean.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
}

impl Photometric {
    pub(super) fn num_colors(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb => 3,
            Self::Cmyk => 4,
        }
    }
}

/// What the first sample beyond the colours means.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Alpha {
    /// There is none, or it is to be ignored.
    None,
    Plain,
    Premultiplied,
}

/// The fields that decide how samples are read.
pub(super) struct Description {
    pub(super) photometric: Photometric,
    pub(super) bits: u32,
    pub(super) samples: usize,
    pub(super) alpha: Alpha,
    pub(super) planar: bool,
    /// Strips or tiles that the image needs.
    num_chunks: usize,
}

impl Description {
    pub(super) fn of(
        directory: &Directory<'_>,
        (width, height): (usize, usize),
    ) -> Result<Self, ImageError> {
        let value = |tag, default| match directory.names(tag) {
            true => directory.value(tag).ok_or(ImageError::Undecodable),
            false => Ok(default),
        };
        let all = |tag| {
            directory
                .entry(tag)
                .map(|entry| entry.uints().collect::<Vec<_>>())
        };

        let photometric = match value(PHOTOMETRIC, 0)? {
            0 => Photometric::WhiteIsZero,
            1 => Photometric::BlackIsZero,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            5 => Photometric::Cmyk,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        // None, fax group 4, LZW, Deflate (both numbers), PackBits.
        if !matches!(value(COMPRESSION, 1)?, 1 | 4 | 5 | 8 | 32773 | 32946)
            || value(FILL_ORDER, 1)? != 1
            || all(SAMPLE_FORMAT).is_some_and(|formats| formats.iter().any(|&format| format != 1))
        {
            return Err(ImageError::UnsupportedVariant);
        }
        let samples = match value(SAMPLES_PER_PIXEL, 1)? as usize {
            samples @ 1..=MAX_SAMPLES => samples,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        let bits = all(BITS_PER_SAMPLE).unwrap_or(vec![1]);
        let bits = match bits.first() {
            Some(&first @ (1 | 2 | 4 | 8 | 16)) if bits.iter().all(|&b| b == first) => first as u32,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        let num_extra = samples.checked_sub(photometric.num_colors());
        let alpha = match (num_extra, all(EXTRA_SAMPLES).as_deref()) {
            (None, _) => return Err(ImageError::Undecodable),
            (Some(0), _) => Alpha::None,
            (Some(_), Some([1, ..])) => Alpha::Premultiplied,
            (Some(_), Some([2, ..])) => Alpha::Plain,
            // Pillow takes an RGB file's fourth sample that nothing is said about for alpha.
            (Some(1), None) if photometric == Photometric::Rgb => Alpha::Plain,
            (Some(_), _) => Alpha::None,
        };

        let planar = value(PLANAR_CONFIGURATION, 1)? == 2;
        let num_chunks = if directory.names(TILE_OFFSETS) {
            match (
                value(TILE_WIDTH, 0)? as usize,
                value(TILE_LENGTH, 0)? as usize,
            ) {
                // TIFF asks for multiples of 16; without, a file could ask for millions of tiles.
                (0..16, _) | (_, 0..16) => return Err(ImageError::Undecodable),
                (across, down) => width.div_ceil(across) * height.div_ceil(down),
            }
        } else {
            match value(ROWS_PER_STRIP, u32::MAX)? as usize {
                0 => return Err(ImageError::Undecodable),
                rows => height.div_ceil(rows),
            }
        };
        let num_chunks = num_chunks * if planar { samples } else { 1 };
        Ok(Self {
            photometric,
            bits,
            samples,
            alpha,
            planar,
            num_chunks,
        })
    }
}

/// Most samples a pixel that Pillow reads.
const MAX_SAMPLES: usize = 6;

/// Refuses what the `tiff` crate would believe: it makes room for as many values as an entry
/// announces (32 bytes each), leaves rows black that no strip covers, and panics over a strip too
/// many.
pub(super) fn check_counts(
    directory: &Directory<'_>,
    description: &Description,
) -> Result<(), ImageError> {
    let (offsets, lengths) = match directory.entry(TILE_OFFSETS) {
        Some(offsets) => (Some(offsets), directory.entry(TILE_BYTE_COUNTS)),
        None => (
            directory.entry(STRIP_OFFSETS),
            directory.entry(STRIP_BYTE_COUNTS),
        ),
    };
    let one_each = |entry: &Option<Entry<'_>>| {
        entry
            .as_ref()
            .is_some_and(|entry| entry.uints().count() == description.num_chunks)
    };
    let few = |tag| match directory.entry(tag) {
        Some(entry) => entry.uints().take(MAX_SAMPLES + 1).count() <= MAX_SAMPLES,
        // Absent, or with values that are not in the file.
        None => !directory.names(tag),
    };
    let sound = one_each(&offsets)
        && one_each(&lengths)
        && [
            BITS_PER_SAMPLE,
            EXTRA_SAMPLES,
            SAMPLE_FORMAT,
            PREDICTOR,
            YCBCR_SUBSAMPLING,
        ]
        .into_iter()
        .all(few)
        && [
            IMAGE_WIDTH,
            IMAGE_LENGTH,
            COMPRESSION,
            PHOTOMETRIC,
            SAMPLES_PER_PIXEL,
        ]
        .into_iter()
        .chain([
            ROWS_PER_STRIP,
            PLANAR_CONFIGURATION,
            TILE_WIDTH,
            TILE_LENGTH,
        ])
        .all(|tag| !directory.names(tag) || directory.value(tag).is_some());
    // Of a BigTIFF's entry of an unknown type it passes over half and loses its place.
    let in_step = !(directory.is_big() && directory.has_unknown_types());
    if sound && in_step {
        Ok(())
    } else {
        Err(ImageError::Undecodable)
    }
}
