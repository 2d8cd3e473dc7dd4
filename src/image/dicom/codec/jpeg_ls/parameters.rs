//! What a scan's coding depends on (T.87 annexes A.1 and C.2.4).

use super::{DAMAGED, unsupported};
use crate::error::ImageError;

/// Parameters that a codestream may state itself; those that are 0 have their usual value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Presets {
    max_value: i32,
    thresholds: [i32; 3],
    reset: i32,
}

impl Presets {
    /// Reads a segment of presets.
    pub(super) fn read(data: &[u8]) -> Result<Self, ImageError> {
        match data {
            [1, numbers @ ..] => {
                let numbers = numbers.as_chunks::<2>().0;
                let &[max_value, low, middle, high, reset] = numbers else {
                    return Err(DAMAGED);
                };
                let number = |bytes| i32::from(u16::from_be_bytes(bytes));
                Ok(Self {
                    max_value: number(max_value),
                    thresholds: [low, middle, high].map(number),
                    reset: number(reset),
                })
            }
            [2 | 3, ..] => Err(unsupported("JPEG-LS frames with mapping tables")),
            _ => Err(DAMAGED),
        }
    }
}

/// Parameters of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Greatest sample.
    pub(super) max_value: i32,
    /// Greatest difference from the original.
    pub(super) near: i32,
    /// Distance between levels: `2 × near + 1`.
    pub(super) step: i32,
    /// Number of different errors.
    pub(super) range: i32,
    /// Bits of an error that is written as it is.
    pub(super) error_bits: u32,
    /// Bits of the longest code.
    pub(super) limit: u32,
    /// Where gradients are told apart.
    pub(super) thresholds: [i32; 3],
    /// How many samples a context counts before it halves its counters.
    pub(super) reset: i32,
}

impl Parameters {
    /// Fills in what is not stated.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for numbers that contradict one another.
    pub(super) fn new(precision: u32, near: i32, presets: Presets) -> Result<Self, ImageError> {
        let highest = (1 << precision) - 1;
        let or = |stated: i32, usual: i32| if stated == 0 { usual } else { stated };
        let max_value = or(presets.max_value, highest);
        if max_value > highest || near > (max_value / 2).min(255) {
            return Err(DAMAGED);
        }
        let usual = usual_thresholds(max_value, near);
        let [low, middle, high] = [0, 1, 2].map(|idx| or(presets.thresholds[idx], usual[idx]));
        let reset = or(presets.reset, 64);
        if !(near < low && low <= middle && middle <= high && high <= max_value) || reset < 3 {
            return Err(DAMAGED);
        }
        let step = 2 * near + 1;
        let range = (max_value + 2 * near) / step + 1;
        let bits_of = |count: i32| 32 - (count as u32 - 1).leading_zeros();
        let sample_bits = bits_of(max_value + 1).max(2);
        Ok(Self {
            max_value,
            near,
            step,
            range,
            error_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            thresholds: [low, middle, high],
            reset,
        })
    }
}

/// T.87 section C.2.4.1.1.
fn usual_thresholds(max_value: i32, near: i32) -> [i32; 3] {
    let clamp = |value: i32, least: i32| match (least..=max_value).contains(&value) {
        true => value,
        false => least,
    };
    let (low, middle, high);
    if max_value >= 128 {
        let factor = (max_value.min(4095) + 128) / 256;
        low = clamp(factor + 2 + 3 * near, near + 1);
        middle = clamp(factor * 4 + 3 + 5 * near, low);
        high = clamp(factor * 17 + 4 + 7 * near, middle);
    } else {
        let factor = 256 / (max_value + 1);
        low = clamp((3 / factor + 3 * near).max(2), near + 1);
        middle = clamp((7 / factor + 5 * near).max(3), low);
        high = clamp((21 / factor + 7 * near).max(4), middle);
    }
    [low, middle, high]
}
