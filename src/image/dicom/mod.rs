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

use std::sync::Mutex;

use self::codec::FrameSamples;
pub(super) use self::data_set::is_dicom;
use self::data_set::{BURNED_IN_ANNOTATION, DataSet, LOSSY_IMAGE_COMPRESSION};
use self::description::{Description, Modality};
use self::frames::Frames;
use self::grayscale::{SampleRange, Windowing, mapped, range_of, show};
use self::palette::Palette;
use self::pixel_format::Photometric;
use self::presentation::Presentation;
use super::cancellation::Cancellation;
use super::decode::{ImageLimits, check_size};
use super::raster::Raster;
use super::report::{MediaReport, ShownWindow, Warning, Warnings};
use crate::core::{ImageFit, Preparation};
use crate::error::{DicomError, ImageError};

/// A file whose structure and description have been checked.
pub(super) struct DicomFile {
    data_set: DataSet,
    description: Description,
    frames: Frames,
    windowing: Windowing,
    /// The frames that are shown, counted from 0; never empty.
    shown: Vec<usize>,
    /// The least and the greatest sample of all frames, once they have been needed.
    sample_range: Mutex<Option<SampleRange>>,
}

impl DicomFile {
    /// Reads all but the pixels.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for what cannot be shown and for a frame that is not there; the other
    /// kinds for what is larger than `limits`.
    pub(super) fn open(
        file: Vec<u8>,
        limits: &ImageLimits,
        preparation: &Preparation,
    ) -> Result<Self, ImageError> {
        let data_set = DataSet::read(file, limits.max_bytes)?;
        if data_set.pixel_data.is_none() {
            return Err(DicomError::NoImage.into());
        }
        let description = Description::of(&data_set)?;
        let format = &description.format;
        check_size((format.columns as u32, format.rows as u32), limits)?;
        let frames = Frames::of(&data_set, &description)?;
        let num_frames = description.num_frames;
        let shown = preparation.frames.of(num_frames);
        let shown = shown.map_err(|number| DicomError::NoSuchFrame { number, num_frames })?;
        Ok(Self {
            data_set,
            description,
            frames,
            windowing: Windowing::of(preparation),
            shown,
            sample_range: Mutex::new(None),
        })
    }

    /// Number of frames that are shown; at least 1.
    pub(super) fn num_shown(&self) -> usize {
        self.shown.len()
    }

    /// Columns and rows of each frame.
    pub(super) fn size(&self) -> (usize, usize) {
        (
            self.description.format.columns,
            self.description.format.rows,
        )
    }

    /// Memory that the file takes beyond its own bytes while it is open.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        self.data_set.unpacked_bytes()
    }

    /// Memory that decoding the frame in place `place` takes for as long as it lasts, at most.
    pub(super) fn decoding_bytes(&self, place: usize) -> u64 {
        let format = &self.description.format;
        let frame = self.frames.bytes(&self.data_set, self.shown[place]);
        // What is decoded, and the light that is made of it.
        codec::decoding_bytes(self.data_set.syntax, format, frame.encoded())
            + format.num_pixels() as u64 * 3
    }

    /// Returns the frame that is shown in place `place`, as light.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for damage and what is not read; [`ImageError::Abandoned`] after the
    /// cancellation.
    pub(super) fn image(
        &self,
        place: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<Raster, ImageError> {
        let idx = self.shown[place];
        let format = &self.description.format;
        let (columns, rows) = self.size();
        let samples = match self.decode(idx, cancellation)? {
            FrameSamples::Rgb(rgb) => return Ok(Raster::rgb(columns, rows, rgb)),
            FrameSamples::Grey(samples) => samples,
        };
        cancellation.check()?;
        if format.photometric == Photometric::PaletteColor {
            let palette = Palette::read(self.data_set.root(), format.is_signed)?;
            let rgb = mapped(&samples, |idx| palette.color(idx)).into_flattened();
            return Ok(Raster::rgb(columns, rows, rgb));
        }
        let presentation = Presentation::of(&self.data_set, format, idx)?;
        let range = match self.needs_range_of_all() {
            true => self.sample_range(cancellation)?,
            false => range_of(&samples),
        };
        let modality = self.description.modality;
        Ok(show(
            &samples,
            format,
            modality,
            &presentation,
            self.windowing,
            range,
        )?)
    }

    /// Returns what is known of the file without decoding. A window is the first image's.
    pub(super) fn report(&self) -> MediaReport {
        let mut warnings = Warnings::new();
        let root = self.data_set.root();
        if root.code(BURNED_IN_ANNOTATION) == Some("YES") {
            warnings.insert(Warning::BurnedInAnnotation);
        }
        if root.code(LOSSY_IMAGE_COMPRESSION) == Some("01") {
            warnings.insert(Warning::LossySource);
        }
        MediaReport {
            kind: "dicom",
            modality: Some(self.description.modality.code()),
            images: self.num_shown(),
            of: self.description.num_frames,
            window: self.shown_window(),
            fit: ImageFit::Squash,
            warnings,
        }
    }

    fn shown_window(&self) -> Option<ShownWindow> {
        let format = &self.description.format;
        if format.num_samples != 1 || format.photometric == Photometric::PaletteColor {
            return None;
        }
        let presentation = Presentation::of(&self.data_set, format, self.shown[0]).ok()?;
        self.windowing
            .shown(self.description.modality, &presentation)
    }

    /// MR in the model's way has one range for all frames.
    fn needs_range_of_all(&self) -> bool {
        let is_model = matches!(self.windowing, Windowing::Model(_));
        is_model && self.description.modality == Modality::Mr && self.description.num_frames > 1
    }

    /// Returns the least and the greatest sample of all frames. The first call decodes them.
    fn sample_range(&self, cancellation: Cancellation<'_>) -> Result<SampleRange, ImageError> {
        let mut known = self.sample_range.lock().expect("decoding catches panics");
        if let Some(range) = *known {
            return Ok(range);
        }
        let mut whole = (i32::MAX, i32::MIN);
        for idx in 0..self.description.num_frames {
            if let FrameSamples::Grey(samples) = self.decode(idx, cancellation)? {
                let (low, high) = range_of(&samples);
                whole = (whole.0.min(low), whole.1.max(high));
            }
        }
        *known = Some(whole);
        Ok(whole)
    }

    fn decode(
        &self,
        idx: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<FrameSamples, ImageError> {
        let frame = self.frames.bytes(&self.data_set, idx);
        let format = &self.description.format;
        codec::decode_frame(self.data_set.syntax, format, frame.encoded(), cancellation)
    }
}

/// The error of a file whose `what`, a clause, shows that it is damaged.
const fn damaged(what: &'static str) -> DicomError {
    DicomError::Damaged { what }
}
