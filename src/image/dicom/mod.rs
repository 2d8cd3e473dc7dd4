//! DICOM: an object of a hospital's archive, shown as the model was trained to see it.
//!
//! ```text
//! file ──data_set──▶ attributes ──description──▶ form, frames, modality
//!        the gate    pixel data ──frames──▶ one frame's bytes ──codec──▶ samples
//!                    attributes ──presentation──▶ windows, tables        │
//!                                          Raster ◀──grayscale, palette──┘
//! ```
//!
//! Only attributes that are used are ever read ([`data_set`]); names, dates and identifiers of
//! patients are walked over. References: pydicom 3 for samples, DCMTK where pydicom is silent, and for
//! windows what models were trained with.

mod codec;
mod data_set;
mod description;
mod frames;
mod grayscale;
mod lut;
mod palette;
mod pixel_format;
mod presentation;
mod transfer_syntax;
mod window;

use self::codec::FrameSamples;
pub(super) use self::data_set::is_dicom;
use self::data_set::{BURNED_IN_ANNOTATION, DataSet, LOSSY_IMAGE_COMPRESSION};
use self::description::{Description, Modality};
use self::frames::Frames;
use self::grayscale::{SampleRange, range_of, show};
pub(super) use self::grayscale::{Shown, Windowing};
use self::palette::Palette;
use self::pixel_format::Photometric;
use self::presentation::Presentation;
pub(super) use self::window::{Bounds, Function, Window};
use super::cancellation::Cancellation;
use super::raster::Raster;
use crate::error::{DicomError, ImageError};

/// A file whose structure and description have been checked.
pub(super) struct Dicom<'a> {
    data_set: DataSet<'a>,
    description: Description,
    frames: Frames,
}

impl<'a> Dicom<'a> {
    /// Reads all but the pixels.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for what cannot be shown.
    pub(super) fn read(file: &'a [u8], max_inflated: usize) -> Result<Self, ImageError> {
        let data_set = DataSet::read(file, max_inflated)?;
        let description = match data_set.pixel_data {
            Some(_) => Description::of(&data_set)?,
            None => return Err(DicomError::NoImage.into()),
        };
        let frames = Frames::of(&data_set, &description)?;
        Ok(Self {
            data_set,
            description,
            frames,
        })
    }

    /// Number of frames; at least 1.
    pub(super) fn num_frames(&self) -> usize {
        self.description.num_frames
    }

    /// Columns and rows of each frame.
    pub(super) fn size(&self) -> (usize, usize) {
        (
            self.description.format.columns,
            self.description.format.rows,
        )
    }

    /// DICOM's code of what was imaged, such as `CT`.
    pub(super) fn modality(&self) -> &'static str {
        self.description.modality.code()
    }

    /// Whether the file says that text is part of its image.
    pub(super) fn has_burned_in_annotation(&self) -> bool {
        self.data_set.root().code(BURNED_IN_ANNOTATION) == Some("YES")
    }

    /// Whether the file says that its image was once compressed with loss.
    pub(super) fn is_lossy(&self) -> bool {
        self.data_set.root().code(LOSSY_IMAGE_COMPRESSION) == Some("01")
    }

    /// Memory that decoding a frame takes for as long as it lasts, at most.
    pub(super) fn decoding_bytes(&self) -> u64 {
        let format = &self.description.format;
        let frame = self.frames.bytes(&self.data_set, 0);
        // What is decoded, and the light that is made of it.
        codec::decoding_bytes(self.data_set.syntax, format, frame.encoded())
            + format.num_pixels() as u64 * 3
    }

    /// Returns frame `idx`, counted from 0, as light.
    ///
    /// `whole_range` is what [`Self::sample_range`] returned, where it is needed.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for damage and what is not read; [`ImageError::Abandoned`] after the
    /// cancellation.
    pub(super) fn frame(
        &self,
        idx: usize,
        windowing: Windowing,
        whole_range: Option<SampleRange>,
        cancellation: Cancellation<'_>,
    ) -> Result<(Raster, Shown), ImageError> {
        let format = &self.description.format;
        let (columns, rows) = self.size();
        let samples = match self.decode(idx, cancellation)? {
            FrameSamples::Rgb(rgb) => {
                return Ok((Raster::rgb(columns, rows, rgb), Shown::AsStored));
            }
            FrameSamples::Grey(samples) => samples,
        };
        cancellation.check()?;
        if format.photometric == Photometric::PaletteColor {
            let palette = Palette::read(self.data_set.root(), format.is_signed)?;
            let rgb = samples.iter().flat_map(|&idx| palette.color(idx)).collect();
            return Ok((Raster::rgb(columns, rows, rgb), Shown::AsStored));
        }
        let presentation = Presentation::of(&self.data_set, format, idx)?;
        let whole_range = whole_range.unwrap_or_else(|| range_of(&samples));
        let modality = self.description.modality;
        Ok(show(
            &samples,
            format,
            modality,
            &presentation,
            windowing,
            whole_range,
        )?)
    }

    /// Returns the least and the greatest sample of all frames, if `windowing` needs them: MR in the
    /// model's way.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub(super) fn sample_range(
        &self,
        windowing: Windowing,
        cancellation: Cancellation<'_>,
    ) -> Result<Option<SampleRange>, ImageError> {
        let is_needed =
            matches!(windowing, Windowing::Model(_)) && self.description.modality == Modality::Mr;
        if !is_needed || self.num_frames() == 1 {
            return Ok(None);
        }
        let mut whole: Option<SampleRange> = None;
        for idx in 0..self.num_frames() {
            if let FrameSamples::Grey(samples) = self.decode(idx, cancellation)? {
                let (low, high) = range_of(&samples);
                whole = Some(whole.map_or((low, high), |(least, greatest)| {
                    (least.min(low), greatest.max(high))
                }));
            }
        }
        Ok(whole)
    }

    fn decode(
        &self,
        idx: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<FrameSamples, ImageError> {
        let frame = self.frames.bytes(&self.data_set, idx);
        codec::decode_frame(
            self.data_set.syntax,
            &self.description.format,
            frame.encoded(),
            cancellation,
        )
    }
}
