//! What a file says of how a frame's samples are shown (PS3.3 sections C.11.1, C.11.2 and C.11.6).

use super::data_set::{
    DataSet, FRAME_VOI_LUT_SEQUENCE, ItemView, LUT_DATA, LUT_DESCRIPTOR, MODALITY_LUT_SEQUENCE,
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    PRESENTATION_LUT_SHAPE, RESCALE_INTERCEPT, RESCALE_SLOPE, SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    Tag, VOI_LUT_FUNCTION, VOI_LUT_SEQUENCE, WINDOW_CENTER, WINDOW_WIDTH,
};
use super::lut::Lut;
use super::pixel_format::{Photometric, PixelFormat};
use super::window::{Function, Window};
use crate::error::DicomError;

/// How a grey frame's samples become numbers with a meaning, and those become light.
#[derive(Debug)]
pub(super) struct Presentation {
    /// `slope · sample + intercept`, each as far as the file has it.
    pub(super) slope: Option<f64>,
    /// See [`Self::slope`].
    pub(super) intercept: Option<f64>,
    /// In place of slope and intercept.
    pub(super) modality_lut: Option<Lut>,
    /// The first window.
    pub(super) window: Option<Window>,
    /// The first table in place of a window.
    pub(super) voi_lut: Option<Lut>,
    /// Whether what is high is dark.
    pub(super) is_inverse: bool,
}

impl Presentation {
    /// Reads the presentation of frame `frame`, counted from 0: what stands for the frame itself, else
    /// what stands for all frames, else what stands for the file.
    ///
    /// # Errors
    /// [`DicomError::Damaged`] for numbers that cannot be read and for tables that are too short.
    pub(super) fn of(
        data_set: &DataSet,
        format: &PixelFormat,
        frame: usize,
    ) -> Result<Self, DicomError> {
        let root = data_set.root();
        let groups = [
            root.items(PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).nth(frame),
            root.first_item(SHARED_FUNCTIONAL_GROUPS_SEQUENCE),
        ];
        let macro_or_root = |sequence: Tag| {
            let in_groups = groups
                .iter()
                .flatten()
                .find_map(|group| group.first_item(sequence));
            in_groups.unwrap_or(root)
        };
        let values = macro_or_root(PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        let voi = macro_or_root(FRAME_VOI_LUT_SEQUENCE);
        let table =
            |item: ItemView<'_>, sequence: Tag, is_signed: bool| match item.first_item(sequence) {
                Some(item) => Lut::read(item, LUT_DESCRIPTOR, LUT_DATA, is_signed),
                None => Ok(None),
            };
        let modality_lut = table(root, MODALITY_LUT_SEQUENCE, format.is_signed)?;
        let intercept = values.decimal(RESCALE_INTERCEPT)?;
        // What a VOI LUT maps has been rescaled, so that it can be negative where samples are not.
        let can_be_negative =
            format.is_signed || intercept.is_some_and(|intercept| intercept < 0.0);
        let voi_lut = table(
            voi,
            VOI_LUT_SEQUENCE,
            can_be_negative && modality_lut.is_none(),
        )?;
        Ok(Self {
            slope: values.decimal(RESCALE_SLOPE)?,
            intercept,
            modality_lut,
            window: first_window(voi)?,
            voi_lut,
            is_inverse: is_inverse(root, format),
        })
    }

    /// Whether samples are shown as they are: nothing rescales them.
    pub(super) fn is_unscaled(&self) -> bool {
        self.modality_lut.is_none()
            && self.slope.unwrap_or(1.0) == 1.0
            && self.intercept.unwrap_or(0.0) == 0.0
    }

    /// Returns a sample's number: a table's entry, or `slope · sample + intercept`.
    pub(super) fn rescale(&self, sample: i32) -> f64 {
        match &self.modality_lut {
            Some(lut) => f64::from(lut.at(sample)),
            None => self.slope.unwrap_or(1.0) * f64::from(sample) + self.intercept.unwrap_or(0.0),
        }
    }
}

/// Returns the first window, if it has a width that its function allows.
fn first_window(voi: ItemView<'_>) -> Result<Option<Window>, DicomError> {
    let (Some(center), Some(width)) = (voi.decimal(WINDOW_CENTER)?, voi.decimal(WINDOW_WIDTH)?)
    else {
        return Ok(None);
    };
    let function = match voi.code(VOI_LUT_FUNCTION) {
        None | Some("LINEAR") => Function::Linear,
        Some("LINEAR_EXACT") => Function::LinearExact,
        Some("SIGMOID") => Function::Sigmoid,
        Some(_) => {
            return Err(DicomError::Unsupported {
                what: "an unknown VOI LUT function",
            });
        }
    };
    let is_allowed = match function {
        Function::Linear => width >= 1.0,
        Function::LinearExact | Function::Sigmoid => width > 0.0,
    };
    Ok(is_allowed.then_some(Window {
        center,
        width,
        function,
    }))
}

/// A shape that is stated counts before the photometric interpretation, which should agree with it.
fn is_inverse(root: ItemView<'_>, format: &PixelFormat) -> bool {
    match root.code(PRESENTATION_LUT_SHAPE) {
        Some("INVERSE") => true,
        _ => format.photometric == Photometric::Monochrome1,
    }
}
