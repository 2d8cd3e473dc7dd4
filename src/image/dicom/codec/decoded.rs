//! What decoders hand out, and how a frame's samples are made of it.

use super::color::ybr_to_rgb;
use super::native::eight_bits;
use super::{COMPONENTS_DIFFER, FrameSamples, SIZE_DIFFERS};
use crate::error::ImageError;
use crate::image::dicom::pixel_format::{Photometric, PixelFormat};

/// Samples as a decoder hands them out.
pub(super) struct Decoded<T> {
    /// Bits without a sign, `(rows, columns, components)`.
    pub(super) values: Vec<T>,
    /// Bits of each sample.
    pub(super) bits: u32,
    /// Whether the three components are brightness and colour differences.
    pub(super) is_ybr: bool,
}

impl<T: Copy + Into<u32>> Decoded<T> {
    /// Makes a frame's samples, whose sign is as the description says whatever the codec says.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for too few or too many of them.
    pub(super) fn into_samples(self, format: &PixelFormat) -> Result<FrameSamples, ImageError> {
        if self.values.len() != format.num_values() {
            return Err(SIZE_DIFFERS);
        }
        let values = self.values.into_iter().map(Into::into);
        match format.num_samples {
            1 => {
                let number = Number::new(self.bits, format.is_signed);
                Ok(FrameSamples::Grey(
                    values.map(|bits| number.of(bits)).collect(),
                ))
            }
            3 => {
                let mut rgb: Vec<u8> = values.map(|bits| eight_bits(bits, self.bits)).collect();
                if self.is_ybr {
                    ybr_to_rgb(&mut rgb);
                }
                Ok(FrameSamples::Rgb(rgb))
            }
            _ => Err(COMPONENTS_DIFFER),
        }
    }
}

/// How the lowest bits of a word are read as a number.
#[derive(Clone, Copy)]
pub(super) struct Number {
    unused: u32,
    is_signed: bool,
}

impl Number {
    /// Takes the lowest `bits`, `1..=32`; without a sign, 31 at most have a meaning.
    pub(super) fn new(bits: u32, is_signed: bool) -> Self {
        Self {
            unused: 32 - bits,
            is_signed,
        }
    }

    /// Returns the number, with what stands above its bits cleared or made of its sign.
    pub(super) fn of(self, word: u32) -> i32 {
        let high = word << self.unused;
        match self.is_signed {
            true => (high as i32) >> self.unused,
            false => (high >> self.unused) as i32,
        }
    }
}

impl Photometric {
    /// Whether the description says that components are brightness and colour differences which no
    /// codec converts.
    pub(super) fn is_ybr(self) -> bool {
        matches!(self, Self::YbrFull | Self::YbrFull422)
    }
}
