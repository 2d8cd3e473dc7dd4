//! Converts F16 (IEEE half precision) to formats that models are computed in.
//!
//! Gemma 3's activations overflow in F16, so that its weights are never computed with as they are;
//! vLLM and transformers convert them likewise.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::backend::{HostDtype, HostTensor};

/// Numbers per task: few enough that they stay in the cache.
const PART: usize = 1 << 17;

/// Returns the numbers of an F16 tensor exactly: in bf16 if that holds each of them, as it does
/// where they were bf16 once, else in f32.
pub(super) fn from_f16(shape: Vec<usize>, bytes: &[u8]) -> HostTensor<'static> {
    let (numbers, _) = bytes.as_chunks::<2>();
    let widened = |number: &[u8; 2]| f16::from_le_bytes(*number).to_f32();
    let fits = numbers.par_chunks(PART).all(|part| {
        // Not `all`: without an early exit the loop is vectorised. A NaN differs from itself, but
        // its payload does not matter.
        let finer = |number: f32| {
            let narrowed = f32::from_bits(number.to_bits() & 0xFFFF_0000);
            narrowed != number && !number.is_nan()
        };
        !part
            .iter()
            .fold(false, |any, number| any | finer(widened(number)))
    });
    let mut data;
    if fits {
        data = vec![0; 2 * numbers.len()];
        let (out, _) = data.as_chunks_mut::<2>();
        out.par_chunks_mut(PART)
            .zip(numbers.par_chunks(PART))
            .for_each(|(out, part)| {
                for (out, number) in out.iter_mut().zip(part) {
                    *out = bf16::from_f32(widened(number)).to_le_bytes();
                }
            });
    } else {
        data = vec![0; 4 * numbers.len()];
        let (out, _) = data.as_chunks_mut::<4>();
        out.par_chunks_mut(PART)
            .zip(numbers.par_chunks(PART))
            .for_each(|(out, part)| {
                for (out, number) in out.iter_mut().zip(part) {
                    *out = widened(number).to_le_bytes();
                }
            });
    }
    HostTensor {
        dtype: if fits {
            HostDtype::Bf16
        } else {
            HostDtype::F32
        },
        shape,
        data: data.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of the format: 1 bit of sign, 5 of exponent, 10 of fraction.
    fn value(bits: u16) -> f64 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        match exponent {
            0 => sign * fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => sign * f64::INFINITY,
            31 => f64::NAN,
            _ => sign * (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
        }
    }

    fn is_same(number: f32, bits: u16) -> bool {
        let expected = value(bits);
        f64::from(number) == expected && number.is_sign_negative() == (bits >> 15 == 1)
            || number.is_nan() && expected.is_nan()
    }

    #[test]
    fn all_numbers_are_exact_in_f32() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let tensor = from_f16(vec![256, 256], &all);
        assert_eq!(tensor.dtype, HostDtype::F32);
        tensor.check_bytes().unwrap();
        for (bits, number) in (0..=u16::MAX).zip(tensor.to_f32()) {
            assert!(is_same(number, bits), "{bits:#x} became {number}");
        }
    }

    #[test]
    fn numbers_of_eight_significant_bits_become_bf16() {
        // Of the 11 bits of a fraction with its leading one the last three are zero.
        let short = (0..=u16::MAX).filter(|bits| bits & 7 == 0 && bits >> 10 & 31 != 31);
        let short: Vec<u16> = short.collect();
        let bytes: Vec<u8> = short.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let tensor = from_f16(vec![short.len()], &bytes);
        assert_eq!(tensor.dtype, HostDtype::Bf16);
        tensor.check_bytes().unwrap();
        for (bits, number) in short.iter().zip(tensor.to_f32()) {
            assert!(is_same(number, *bits), "{bits:#x} became {number}");
        }
        // One number more that needs nine.
        let finer = [&bytes[..], &0x3C04u16.to_le_bytes()].concat();
        assert_eq!(
            from_f16(vec![short.len() + 1], &finer).dtype,
            HostDtype::F32
        );
    }
}
