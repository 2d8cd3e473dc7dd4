//! Windows: the range of numbers that is shown from black to white.

use crate::core;

/// A window as a file or a client states it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// The number that becomes grey.
    pub(super) center: f64,
    /// The width of the range; above 0, at least 1 with [`Function::Linear`].
    pub(super) width: f64,
    /// How numbers in the range become light.
    pub(super) function: Function,
}

/// How numbers become light (PS3.3 section C.11.2.1.2 and C.11.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// DICOM's default, made for whole numbers: the range is one narrower than the width.
    Linear,
    /// From `center − width / 2` to `center + width / 2`.
    LinearExact,
    /// A logistic curve.
    Sigmoid,
}

impl Window {
    /// Returns a number's light, 0 to 255, rounded half to even.
    pub(super) fn level(&self, number: f64) -> u8 {
        let Self {
            center,
            width,
            function,
        } = *self;
        let light = match function {
            Function::Linear => {
                let (center, width) = (center - 0.5, width - 1.0);
                // Of width 0 all is black or white, also the centre itself.
                if number <= center - width / 2.0 {
                    0.0
                } else if number > center + width / 2.0 {
                    1.0
                } else {
                    (number - center) / width + 0.5
                }
            }
            Function::LinearExact => (number - center) / width + 0.5,
            Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (number - center) / width).exp()),
        };
        (light.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
    }
}

/// Lowest and highest number of a window, as models were trained with: computed in `f32` like the
/// notebooks that windowed their slices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    low: f32,
    high: f32,
}

impl Bounds {
    /// Returns the ends of a window.
    pub(super) fn of(window: core::Window) -> Self {
        let half = window.width / 2.0;
        Self {
            low: (window.center - half) as f32,
            high: (window.center + half) as f32,
        }
    }

    /// Returns a number's light, 0 to 255, rounded half to even.
    pub(super) fn level(&self, number: f64) -> u8 {
        let Self { low, high } = *self;
        let clipped = number.clamp(low.into(), high.into()) as f32;
        // f32: the notebooks convert before they subtract.
        ((clipped - low) / (high - low) * 255.0).round_ties_even() as u8
    }
}
