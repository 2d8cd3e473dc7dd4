//! Makes light of a grey frame's samples.
//!
//! | what | how |
//! |---|---|
//! | CT | Hounsfield units in the model's three windows, one for each colour |
//! | MR | from the least to the greatest stored sample of all frames |
//! | others | rescaled; the first window, else the first VOI LUT, else bytes as they are, else the frame's own range |
//!
//! On request every kind is shown as the last row says, or in windows that the client chose.

use super::description::Modality;
use super::pixel_format::PixelFormat;
use super::presentation::Presentation;
use super::window::{Bounds, Window};
use crate::core::{self, Preparation, WindowChoice};
use crate::error::DicomError;
use crate::image::raster::Raster;
use crate::image::report::ShownWindow;

/// How a frame is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Windowing {
    /// As the model was trained: CT in these windows for red, green and blue, MR in its own range, and
    /// all else as [`Self::Header`].
    Model([core::Window; 3]),
    /// As the file says.
    Header,
    /// Each number in one window.
    One(core::Window),
    /// A window for each colour.
    Three([core::Window; 3]),
}

impl Windowing {
    /// Returns what a client or a model chose.
    pub(super) fn of(preparation: &Preparation) -> Self {
        match preparation.window {
            WindowChoice::Model => Self::Model(preparation.ct_windows.windows()),
            WindowChoice::Header => Self::Header,
            WindowChoice::Preset(preset) => Self::One(preset.window()),
            WindowChoice::One(window) => Self::One(window),
            WindowChoice::Three(windows) => Self::Three(windows),
        }
    }

    /// Returns the window that is used, as far as it is known without samples.
    pub(super) fn shown(
        self,
        modality: Modality,
        presentation: &Presentation,
    ) -> Option<ShownWindow> {
        match self {
            Self::Model(windows) if modality == Modality::Ct => Some(ShownWindow::Three(windows)),
            Self::Three(windows) => Some(ShownWindow::Three(windows)),
            Self::One(window) => Some(ShownWindow::One(window)),
            Self::Model(_) if modality == Modality::Mr => None,
            Self::Model(_) | Self::Header => match presentation {
                Presentation {
                    window: Some(Window { center, width, .. }),
                    ..
                } => Some(ShownWindow::One(core::Window {
                    center: *center,
                    width: *width,
                })),
                Presentation {
                    voi_lut: Some(_), ..
                } => Some(ShownWindow::Table),
                _ => None,
            },
        }
    }
}

/// Least and greatest sample, for MR: of all frames of the file.
pub(super) type SampleRange = (i32, i32);

/// Returns the least and the greatest of some samples.
pub(super) fn range_of(samples: &[i32]) -> SampleRange {
    samples
        .iter()
        .fold((i32::MAX, i32::MIN), |(low, high), &sample| {
            (low.min(sample), high.max(sample))
        })
}

/// Shows a frame's samples, `(rows, columns)`.
///
/// # Errors
/// [`DicomError::NotHounsfield`] for CT in the model's windows without slope or intercept.
pub(super) fn show(
    samples: &[i32],
    format: &PixelFormat,
    modality: Modality,
    presentation: &Presentation,
    windowing: Windowing,
    whole_range: SampleRange,
) -> Result<Raster, DicomError> {
    let size = (format.columns, format.rows);
    let number = |sample: i32| presentation.rescale(sample);
    match windowing {
        Windowing::Model(windows) if modality == Modality::Ct => {
            check_hounsfield(presentation)?;
            Ok(three(size, samples, number, windows))
        }
        Windowing::Model(_) if modality == Modality::Mr => {
            let (low, high) = whole_range;
            let level = |sample: i32| match low == high {
                // A frame without contrast is white, as in MedGemma's own container.
                true => 255,
                false => stretched(sample.into(), low.into(), high.into()),
            };
            Ok(one(size, samples, level))
        }
        Windowing::Three(windows) => Ok(three(size, samples, number, windows)),
        Windowing::One(window) => {
            let bounds = Bounds::of(window);
            let level = |sample| inverted_if(presentation.is_inverse, bounds.level(number(sample)));
            Ok(one(size, samples, level))
        }
        Windowing::Model(_) | Windowing::Header => {
            Ok(show_as_stated(samples, format, presentation))
        }
    }
}

fn show_as_stated(samples: &[i32], format: &PixelFormat, presentation: &Presentation) -> Raster {
    let size = (format.columns, format.rows);
    let number = |sample: i32| presentation.rescale(sample);
    let inverted = |level: u8| inverted_if(presentation.is_inverse, level);
    if let Some(window) = presentation.window {
        return one(size, samples, |sample| {
            inverted(window.level(number(sample)))
        });
    }
    if let Some(lut) = &presentation.voi_lut {
        let most = f64::from(lut.max_entry());
        let level = |sample: i32| {
            let entry = lut.at(number(sample).round_ties_even() as i32);
            (f64::from(entry) * 255.0 / most).round_ties_even() as u8
        };
        return one(size, samples, |sample| inverted(level(sample)));
    }
    let is_byte = format.bits_stored == 8 && !format.is_signed;
    if is_byte && presentation.is_unscaled() {
        return one(size, samples, |sample| inverted(sample as u8));
    }
    let (least, greatest) = range_of(samples);
    // A slope below 0 turns the order of samples around; a table may do anything with it.
    let numbers = match &presentation.modality_lut {
        Some(_) => samples
            .iter()
            .map(|&sample| number(sample))
            .fold(EMPTY, extended),
        None => [least, greatest]
            .map(number)
            .into_iter()
            .fold(EMPTY, extended),
    };
    let (low, high) = numbers;
    let level = |sample: i32| match low == high {
        true => 0,
        false => stretched(number(sample), low, high),
    };
    one(size, samples, |sample| inverted(level(sample)))
}

const EMPTY: (f64, f64) = (f64::INFINITY, f64::NEG_INFINITY);

fn extended((low, high): (f64, f64), number: f64) -> (f64, f64) {
    (low.min(number), high.max(number))
}

/// CT's windows are in Hounsfield units. Other software takes stored samples for them where a file
/// does not say how to convert them; an error is better than air that looks like bone.
fn check_hounsfield(presentation: &Presentation) -> Result<(), DicomError> {
    let missing = match presentation {
        Presentation {
            modality_lut: Some(_),
            ..
        } => return Ok(()),
        Presentation { slope: None, .. } => "RescaleSlope",
        Presentation {
            intercept: None, ..
        } => "RescaleIntercept",
        _ => return Ok(()),
    };
    Err(DicomError::NotHounsfield { missing })
}

fn stretched(number: f64, low: f64, high: f64) -> u8 {
    ((number - low) / (high - low) * 255.0).round_ties_even() as u8
}

fn inverted_if(is_inverse: bool, level: u8) -> u8 {
    if is_inverse { 255 - level } else { level }
}

fn one((columns, rows): (usize, usize), samples: &[i32], level: impl Fn(i32) -> u8) -> Raster {
    Raster::grey(columns, rows, mapped(samples, level))
}

fn three(
    (columns, rows): (usize, usize),
    samples: &[i32],
    number: impl Fn(i32) -> f64,
    windows: [core::Window; 3],
) -> Raster {
    let bounds = windows.map(Bounds::of);
    let color = |sample| bounds.map(|bounds| bounds.level(number(sample)));
    Raster::rgb(columns, rows, mapped(samples, color).into_flattened())
}

/// Applies `light` to each sample: to each value once, where samples share few values.
pub(super) fn mapped<T: Copy>(samples: &[i32], light: impl Fn(i32) -> T) -> Vec<T> {
    let (least, greatest) = range_of(samples);
    let num_values = i64::from(greatest) - i64::from(least) + 1;
    if num_values > samples.len() as i64 {
        return samples.iter().map(|&sample| light(sample)).collect();
    }
    let table: Vec<T> = (least..=greatest).map(light).collect();
    samples
        .iter()
        .map(|&sample| table[(sample - least) as usize])
        .collect()
}
