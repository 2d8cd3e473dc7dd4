//! What a TIFF's fields say of its samples, and whether they can be believed.

use super::super::ifd::{Directory, Entry};
use super::fax::FaxCoding;
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
pub(super) const T4_OPTIONS: u16 = 292;
pub(super) const JPEG_TABLES: u16 = 347;
pub(super) const YCBCR_COEFFICIENTS: u16 = 529;
pub(super) const YCBCR_SUBSAMPLING: u16 = 530;
pub(super) const REFERENCE_BLACK_WHITE: u16 = 532;

/// What the samples mean.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

impl Photometric {
    pub(super) fn num_colors(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// How chunks are compressed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Zstd,
    Jpeg,
    Fax(FaxCoding),
}

impl Compression {
    fn of(directory: &Directory<'_>, number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::None,
            2 => Self::Fax(FaxCoding::Huffman),
            3 => {
                let options = directory.value(T4_OPTIONS).unwrap_or(0);
                // Uncompressed runs within a fax were never in use.
                if options & 2 != 0 {
                    return None;
                }
                Self::Fax(FaxCoding::T4 {
                    two_dimensional: options & 1 != 0,
                })
            }
            4 => Self::Fax(FaxCoding::T6),
            5 => Self::Lzw,
            7 => Self::Jpeg,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            50000 => Self::Zstd,
            _ => return None,
        })
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
    pub(super) compression: Compression,
    /// The bits of each byte of a fax stand in reverse.
    pub(super) is_reversed: bool,
    /// Columns and rows of pixels that share the colour of a YCbCr image.
    pub(super) subsampling: (usize, usize),
    pub(super) bits: u32,
    pub(super) samples: usize,
    pub(super) alpha: Alpha,
    pub(super) planar: bool,
    /// Width and height of a strip or tile.
    pub(super) chunk: (usize, usize),
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
            6 => Photometric::YCbCr,
            _ => return Err(ImageError::UnsupportedVariant),
        };
        let compression = Compression::of(directory, value(COMPRESSION, 1)?);
        let compression = compression.ok_or(ImageError::UnsupportedVariant)?;
        let is_fax = matches!(compression, Compression::Fax(_));
        let fill_order = value(FILL_ORDER, 1)?;
        if !(fill_order == 1 || fill_order == 2 && is_fax)
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
        let subsampling = match all(YCBCR_SUBSAMPLING).as_deref() {
            // What TIFF says of files that do not.
            None => (2, 2),
            Some(&[h @ (1 | 2 | 4), v @ (1 | 2 | 4)]) => (h as usize, v as usize),
            Some(_) => return Err(ImageError::UnsupportedVariant),
        };
        let is_read = match compression {
            Compression::Fax(_) => bits == 1 && samples == 1,
            Compression::Jpeg => bits == 8 && !planar && photometric != Photometric::Palette,
            _ if photometric == Photometric::YCbCr => {
                bits == 8 && !planar && value(PREDICTOR, 1)? == 1 && has_usual_levels(directory)
            }
            _ => true,
        };
        if !is_read || photometric == Photometric::YCbCr && samples != 3 {
            return Err(ImageError::UnsupportedVariant);
        }
        let (chunk, num_chunks) = if directory.names(TILE_OFFSETS) {
            match (
                value(TILE_WIDTH, 0)? as usize,
                value(TILE_LENGTH, 0)? as usize,
            ) {
                // TIFF asks for multiples of 16; without, a file could ask for millions of tiles.
                (0..16, _) | (_, 0..16) => return Err(ImageError::Undecodable),
                (across, down) => (
                    (across, down),
                    width.div_ceil(across) * height.div_ceil(down),
                ),
            }
        } else {
            match value(ROWS_PER_STRIP, u32::MAX)? as usize {
                0 => return Err(ImageError::Undecodable),
                rows => ((width, rows.min(height)), height.div_ceil(rows)),
            }
        };
        let num_chunks = num_chunks * if planar { samples } else { 1 };
        Ok(Self {
            photometric,
            compression,
            is_reversed: fill_order == 2,
            subsampling,
            bits,
            samples,
            alpha,
            planar,
            chunk,
            num_chunks,
        })
    }
}

/// Whether the fields that change what YCbCr means are absent or say the usual.
fn has_usual_levels(directory: &Directory<'_>) -> bool {
    let says = |tag, usual: &[f64]| match directory.entry(tag) {
        None => !directory.names(tag),
        Some(entry) => {
            let found: Vec<f64> = entry.rationals().collect();
            found.len() == usual.len() && found.iter().zip(usual).all(|(a, b)| (a - b).abs() < 1e-3)
        }
    };
    says(YCBCR_COEFFICIENTS, &[0.299, 0.587, 0.114])
        && says(
            REFERENCE_BLACK_WHITE,
            &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0],
        )
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
