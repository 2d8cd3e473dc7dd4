//! What a file says of its image: its frames, the form of their samples, what was imaged.

use super::damaged;
use super::data_set::{
    BITS_ALLOCATED, BITS_STORED, COLUMNS, DataSet, HIGH_BIT, ItemView, MODALITY, NUMBER_OF_FRAMES,
    PHOTOMETRIC_INTERPRETATION, PIXEL_REPRESENTATION, PLANAR_CONFIGURATION, PixelData, ROWS,
    SAMPLES_PER_PIXEL,
};
use super::pixel_format::{Photometric, PixelFormat};
use super::transfer_syntax::Compression;
use crate::error::DicomError;

/// Most frames of a file.
pub(super) const MAX_FRAMES: usize = 4096;

/// The description of a file with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// The form of every frame.
    pub(super) format: PixelFormat,
    /// Number of frames; at least 1.
    pub(super) num_frames: usize,
    /// What was imaged.
    pub(super) modality: Modality,
}

/// The kind of device, as far as it decides how an image is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modality {
    /// Computed tomography: samples are Hounsfield units.
    Ct,
    /// Magnetic resonance: samples have no scale of their own.
    Mr,
    /// Another of DICOM's kinds, by its code; `OT` where the code is none of them.
    Other(&'static str),
}

impl Modality {
    /// DICOM's code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Ct => "CT",
            Self::Mr => "MR",
            Self::Other(code) => code,
        }
    }

    fn of(code: Option<&str>) -> Self {
        const OTHERS: &[&str] = &[
            "AR", "BI", "BMD", "CR", "DG", "DMS", "DX", "ECG", "EPS", "ES", "GM", "HC", "HD", "IO",
            "IVOCT", "IVUS", "KER", "LEN", "LS", "MG", "NM", "OAM", "OCT", "OP", "OPM", "OPR",
            "OPT", "OPTENF", "OPV", "PA", "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SC", "SEG",
            "SM", "TG", "US", "VA", "XA", "XC",
        ];
        match code {
            Some("CT") => Self::Ct,
            Some("MR") => Self::Mr,
            code => Self::Other(
                OTHERS
                    .iter()
                    .find(|known| Some(**known) == code)
                    .copied()
                    .unwrap_or("OT"),
            ),
        }
    }
}

impl Description {
    /// Reads the description.
    ///
    /// # Errors
    /// [`DicomError`] where a number is missing, contradicts another or is not read.
    pub(super) fn of(data_set: &DataSet) -> Result<Self, DicomError> {
        let root = data_set.root();
        let num_frames = num_frames(&root)?;
        let mut format = pixel_format(&root, data_set.syntax.compression)?;
        if format.photometric == Photometric::YbrFull422
            && is_expanded(&format, num_frames, data_set)
        {
            format.photometric = Photometric::YbrFull;
        }
        Ok(Self {
            format,
            num_frames,
            modality: Modality::of(root.code(MODALITY)),
        })
    }
}

/// Whether uncompressed pixel data has the length of samples that do not share their colours, as some
/// writers store what they call `YBR_FULL_422`.
fn is_expanded(format: &PixelFormat, num_frames: usize, data_set: &DataSet) -> bool {
    let expanded = format.num_values() * format.bits_allocated as usize / 8 * num_frames;
    matches!(&data_set.pixel_data, Some(PixelData::Native { range, .. }) if range.len() >= expanded)
}

fn num_frames(root: &ItemView<'_>) -> Result<usize, DicomError> {
    // Absent, empty and zero are written for one frame.
    let stated = root.decimal(NUMBER_OF_FRAMES)?.unwrap_or(1.0).max(1.0);
    if stated > MAX_FRAMES as f64 {
        return Err(DicomError::TooMany {
            what: "frames",
            max: MAX_FRAMES,
        });
    }
    match stated.fract() == 0.0 {
        true => Ok(stated as usize),
        false => Err(damaged("its number of frames is not a whole number")),
    }
}

fn pixel_format(root: &ItemView<'_>, compression: Compression) -> Result<PixelFormat, DicomError> {
    let number = |tag| root.u16(tag);
    let needed = |tag, name| number(tag)?.ok_or(DicomError::Missing { name });
    let columns = needed(COLUMNS, "Columns")?;
    let rows = needed(ROWS, "Rows")?;
    if columns == 0 || rows == 0 {
        return Err(damaged("it has no rows or no columns"));
    }
    let num_samples = usize::from(number(SAMPLES_PER_PIXEL)?.unwrap_or(1));
    let photometric = photometric(root, num_samples)?;
    if num_samples != photometric.num_samples() {
        return Err(match num_samples {
            4 => DicomError::Unsupported {
                what: "four samples per pixel",
            },
            _ => damaged(
                "its number of samples per pixel does not fit its photometric interpretation",
            ),
        });
    }
    let bits_allocated = u32::from(needed(BITS_ALLOCATED, "BitsAllocated")?);
    if !matches!(bits_allocated, 1 | 8 | 16 | 32) {
        return Err(DicomError::Unsupported {
            what: "samples whose BitsAllocated is not 1, 8, 16 or 32",
        });
    }
    let bits_stored = number(BITS_STORED)?.map_or(bits_allocated, u32::from);
    if !(1..=bits_allocated).contains(&bits_stored) {
        return Err(damaged("BitsStored does not fit BitsAllocated"));
    }
    let high_bit = number(HIGH_BIT)?.map_or(bits_stored - 1, u32::from);
    let is_compressed = !matches!(
        compression,
        Compression::Native
            | Compression::EncapsulatedNative
            | Compression::DeflatedFrames
            | Compression::Rle
    );
    // A codec hands out numbers, for which the place of their bits means nothing.
    let high_bit = if is_compressed {
        bits_stored - 1
    } else {
        high_bit
    };
    if !(bits_stored - 1..bits_allocated).contains(&high_bit) {
        return Err(damaged("HighBit does not fit BitsStored and BitsAllocated"));
    }
    let is_signed = match number(PIXEL_REPRESENTATION)? {
        None | Some(0) => false,
        Some(1) => true,
        Some(_) => return Err(damaged("PixelRepresentation is neither 0 nor 1")),
    };
    if num_samples > 1 && (is_signed || bits_allocated == 1 || bits_allocated == 32) {
        return Err(DicomError::Unsupported {
            what: "colours that are signed, or not of 8 or 16 bits",
        });
    }
    Ok(PixelFormat {
        columns: columns.into(),
        rows: rows.into(),
        num_samples,
        photometric,
        bits_allocated,
        bits_stored,
        high_bit,
        is_signed,
        is_planar: num_samples > 1 && number(PLANAR_CONFIGURATION)? == Some(1),
    })
}

fn photometric(root: &ItemView<'_>, num_samples: usize) -> Result<Photometric, DicomError> {
    let unsupported = |what| Err(DicomError::Unsupported { what });
    match root.code(PHOTOMETRIC_INTERPRETATION) {
        Some("MONOCHROME1") => Ok(Photometric::Monochrome1),
        Some("MONOCHROME2") => Ok(Photometric::Monochrome2),
        Some("PALETTE COLOR") => Ok(Photometric::PaletteColor),
        Some("RGB") => Ok(Photometric::Rgb),
        Some("YBR_FULL") => Ok(Photometric::YbrFull),
        Some("YBR_FULL_422") => Ok(Photometric::YbrFull422),
        Some("YBR_ICT") => Ok(Photometric::YbrIct),
        Some("YBR_RCT") => Ok(Photometric::YbrRct),
        Some("YBR_PARTIAL_422" | "YBR_PARTIAL_420") => {
            unsupported("colours of the video range (YBR_PARTIAL)")
        }
        Some("CMYK" | "ARGB" | "HSV") => {
            unsupported("colours of a retired kind (CMYK, ARGB or HSV)")
        }
        Some("XYB") => unsupported("the colours of JPEG XL (XYB)"),
        Some(_) => unsupported("an unknown photometric interpretation"),
        // Absent in some old files of grey.
        None if num_samples == 1 => Ok(Photometric::Monochrome2),
        None => Err(DicomError::Missing {
            name: "PhotometricInterpretation",
        }),
    }
}
