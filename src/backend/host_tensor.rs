//! Tensors in host memory, as a checkpoint stores them, and their storage formats.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Storage formats of numbers in checkpoint files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostDtype {
    /// 32-bit IEEE, little endian.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

impl HostDtype {
    /// Returns how the numbers are grouped.
    pub const fn blocks(self) -> BlockFormat {
        let num_bytes = match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        };
        BlockFormat {
            num_values: 1,
            num_bytes,
        }
    }
}

/// How a storage format groups numbers. Each row of a tensor consists of whole blocks of consecutive
/// numbers; a quantised format keeps a scale in each, a plain one has blocks of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFormat {
    /// Number of values in a block.
    pub num_values: usize,
    /// Number of bytes of a block.
    pub num_bytes: usize,
}

impl BlockFormat {
    /// Number of bytes of a row of `width` numbers; `None` if the row does not consist of whole
    /// blocks, or has more bytes than there are addresses.
    pub fn row_bytes(self, width: usize) -> Option<usize> {
        if !width.is_multiple_of(self.num_values) {
            return None;
        }
        (width / self.num_values).checked_mul(self.num_bytes)
    }

    /// Number of bytes of a tensor of this shape; `None` like [`Self::row_bytes`].
    pub fn num_bytes(self, shape: &[usize]) -> Option<usize> {
        let Some((&width, rows)) = shape.split_last() else {
            return self.row_bytes(1);
        };
        let mut num_bytes = self.row_bytes(width)?;
        for &size in rows {
            num_bytes = num_bytes.checked_mul(size)?;
        }
        Some(num_bytes)
    }
}

/// A checkpoint's tensor in host memory, usually a slice of the mapped file.
#[derive(Clone, Debug)]
pub struct HostTensor<'a> {
    /// Format of the numbers in `data`.
    pub dtype: HostDtype,
    /// Row-major.
    pub shape: Vec<usize>,
    /// The bytes that [`BlockFormat::num_bytes`] counts for `shape`.
    pub data: Cow<'a, [u8]>,
}

impl HostTensor<'_> {
    /// Checks that `data` fills `shape`.
    ///
    /// # Errors
    /// Returns `Backend` with both numbers of bytes if it does not.
    pub fn check_bytes(&self) -> Result<()> {
        let (expected, found) = (self.dtype.blocks().num_bytes(&self.shape), self.data.len());
        if expected == Some(found) {
            return Ok(());
        }
        let Self { dtype, shape, .. } = self;
        Err(Error::Backend(match expected {
            Some(expected) => format!(
                "a tensor of shape {shape:?} in {dtype:?} has {found} bytes, not {expected}"
            ),
            None => format!("a row of shape {shape:?} is not whole blocks of {dtype:?}"),
        }))
    }

    /// The numbers widened to f32, which is exact.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            HostDtype::F32 => self
                .data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            HostDtype::Bf16 => self
                .data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16))
                .collect(),
        }
    }

    /// Returns the index of the first number that is NaN or infinite, if there is one. Runs at
    /// memory bandwidth.
    pub fn first_not_finite(&self) -> Option<usize> {
        /// Numbers per part: few enough that the data is still in the cache when it is converted
        /// next.
        const PART: usize = 1 << 18;
        let (size, is_finite): (usize, fn(&[u8]) -> bool) = match self.dtype {
            HostDtype::F32 => (4, |part| {
                let bits = part.as_chunks::<4>().0.iter();
                let magnitude = bits.map(|bytes| u32::from_le_bytes(*bytes) & 0x7FFF_FFFF);
                // Not `any`: without an early exit the loop is vectorised.
                magnitude.fold(0, u32::max) < 0x7F80_0000
            }),
            HostDtype::Bf16 => (2, |part| {
                let bits = part.as_chunks::<2>().0.iter();
                let magnitude = bits.map(|bytes| u16::from_le_bytes(*bytes) & 0x7FFF);
                magnitude.fold(0, u16::max) < 0x7F80
            }),
        };
        let bad = self
            .data
            .par_chunks(PART)
            .enumerate()
            .find_first(|(_, part)| !is_finite(part));
        let (idx, part) = bad?;
        let within = part
            .chunks_exact(size)
            .position(|number| !is_finite(number));
        Some(idx * PART / size + within.expect("one of the part's numbers is not finite"))
    }

    /// Concatenates vectors, as f32. For small parameters.
    pub fn concat(parts: &[HostTensor<'_>]) -> HostTensor<'static> {
        let numbers: Vec<f32> = parts.iter().flat_map(HostTensor::to_f32).collect();
        HostTensor {
            dtype: HostDtype::F32,
            shape: vec![numbers.len()],
            data: numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_blocks_of_one() {
        assert_eq!(HostDtype::F32.blocks().num_bytes(&[3, 5]), Some(60));
        assert_eq!(HostDtype::Bf16.blocks().num_bytes(&[3, 5]), Some(30));
        assert_eq!(HostDtype::Bf16.blocks().num_bytes(&[]), Some(2));
        assert_eq!(HostDtype::F32.blocks().num_bytes(&[usize::MAX, 2]), None);
    }

    #[test]
    fn quantised_rows_are_whole_blocks() {
        // Q8_0 of GGUF: 32 signed bytes and a scale of two bytes.
        let q8 = BlockFormat {
            num_values: 32,
            num_bytes: 34,
        };
        assert_eq!(q8.row_bytes(640), Some(680));
        assert_eq!(q8.num_bytes(&[3, 640]), Some(2040));
        // As many numbers as six blocks have, but no row ends with a block.
        assert_eq!(q8.num_bytes(&[4, 48]), None);
    }

    #[test]
    fn bytes_must_fill_the_shape() {
        let mut tensor = HostTensor {
            dtype: HostDtype::Bf16,
            shape: vec![2, 4],
            data: vec![0; 16].into(),
        };
        tensor.check_bytes().unwrap();
        tensor.shape = vec![3, 4];
        let message = tensor.check_bytes().unwrap_err().to_string();
        assert!(message.contains("has 16 bytes, not 24"), "{message}");
    }
}
