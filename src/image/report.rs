//! What became of a file: how many images it gave, how they were shown, and what a reader of the
//! answer should know.

use std::collections::BTreeSet;

use crate::core::{ImageFit, Window};

/// What became of a file. It holds nothing of the file but what its kind and its numbers are.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaReport {
    /// The file's format: `png`, `jpeg`, `dicom` …
    pub kind: &'static str,
    /// DICOM's modality (`CT`, `CR` …); `None` in files that have none.
    pub modality: Option<&'static str>,
    /// Number of images that the model sees, crops included.
    pub images: usize,
    /// Number of images (frames, slices, pages) that the file holds.
    pub of: usize,
    /// Which stored values became black and white; `None` where they are shown as they are.
    pub window: Option<ShownWindow>,
    /// How images that are not square were made square.
    pub fit: ImageFit,
    /// What a reader of the answer should know.
    pub warnings: Warnings,
}

/// The stored values that became black and white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShownWindow {
    /// One window.
    One(Window),
    /// One for red, one for green and one for blue.
    Three([Window; 3]),
    /// A table in the file.
    Table,
}

/// A set of warnings, in one order everywhere.
pub type Warnings = BTreeSet<Warning>;

/// Something that a reader of an answer should know about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warning {
    /// The header says that writing is burned into the pixels: it may name a patient.
    BurnedInAnnotation,
    /// The pixels were compressed with loss before they came here.
    LossySource,
    /// The distances between slices differ: some may be missing.
    UnevenSpacing,
    /// The slices are not axial, on which the model was trained.
    NotAxial,
    /// Several images are followed by no text: the model then tends to ignore what was asked
    /// before them.
    NoTextAfterImages,
    /// The kind of image, or of its preparation, is not one that the model was trained on.
    OutsideTraining,
    /// Nearly all of an image is black once it is shown.
    NearlyBlack,
    /// Samples of 16 bits use a small part of their range, which was stretched.
    Stretched,
    /// The file holds more images than are shown.
    NotAllImages,
}

impl Warning {
    /// Returns its code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BurnedInAnnotation => "burned_in_annotation",
            Self::LossySource => "lossy_source",
            Self::UnevenSpacing => "uneven_spacing",
            Self::NotAxial => "not_axial",
            Self::NoTextAfterImages => "no_text_after_images",
            Self::OutsideTraining => "outside_training",
            Self::NearlyBlack => "nearly_black",
            Self::Stretched => "stretched",
            Self::NotAllImages => "not_all_images",
        }
    }
}
