//! `inputs` of an answer: what became of each file of the request.

use schemars::JsonSchema;
use serde::Serialize;

use crate::api::generate::images::Input;
use crate::core::{ImageFit, Window};
use crate::image::{ShownWindow, Warning};

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct InputReport<'a> {
    /// The file's path in the request.
    pub(crate) param: &'a str,
    /// The file's format, as its content says: `png`, `jpeg`, `dicom` …
    pub(crate) kind: &'static str,
    /// DICOM's modality, such as `CT`; null in files that have none.
    pub(crate) modality: Option<&'static str>,
    /// Number of images that the model sees, crops included.
    pub(crate) images: usize,
    /// Number of images (frames, slices, pages) that the file holds.
    pub(crate) of: usize,
    /// Which stored values became black and white; null where they are shown as they are.
    pub(crate) window: Option<WindowReport>,
    /// `squash` or `pad`.
    pub(crate) fit: &'static str,
    /// Codes of what a reader of the answer should know.
    pub(crate) warnings: Vec<&'static str>,
}

/// The stored values that became black and white.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WindowReport {
    /// One window.
    One(WindowNumbers),
    /// One for red, one for green and one for blue.
    Three([WindowNumbers; 3]),
    /// `table`: a table in the file.
    Table(&'static str),
}

/// A window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct WindowNumbers {
    pub(crate) center: f64,
    pub(crate) width: f64,
}

impl From<Window> for WindowNumbers {
    fn from(Window { center, width }: Window) -> Self {
        Self { center, width }
    }
}

impl From<ShownWindow> for WindowReport {
    fn from(window: ShownWindow) -> Self {
        match window {
            ShownWindow::One(window) => Self::One(window.into()),
            ShownWindow::Three(windows) => Self::Three(windows.map(WindowNumbers::from)),
            ShownWindow::Table => Self::Table("table"),
        }
    }
}

impl<'a> From<&'a Input> for InputReport<'a> {
    fn from(Input { param, report }: &'a Input) -> Self {
        Self {
            param,
            kind: report.kind,
            modality: report.modality,
            images: report.images,
            of: report.of,
            window: report.window.map(WindowReport::from),
            fit: match report.fit {
                ImageFit::Squash => "squash",
                ImageFit::Pad => "pad",
            },
            warnings: report
                .warnings
                .iter()
                .copied()
                .map(Warning::as_str)
                .collect(),
        }
    }
}
