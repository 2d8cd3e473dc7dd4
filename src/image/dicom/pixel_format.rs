//! How a frame's samples are stored, as the Image Pixel module (PS3.3 section C.7.6.3) says.

/// The form of every frame of a file. All numbers have been checked against one another and against
/// the limits of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PixelFormat {
    /// Pixels in a row; at least 1.
    pub(super) columns: usize,
    /// Rows; at least 1.
    pub(super) rows: usize,
    /// Samples of a pixel: 1, or 3 for the colours of [`Photometric::num_samples`].
    pub(super) num_samples: usize,
    /// What samples mean.
    pub(super) photometric: Photometric,
    /// Bits from one sample to the next in uncompressed data: 1, 8, 16 or 32.
    pub(super) bits_allocated: u32,
    /// Bits of a sample, `1..=bits_allocated`.
    pub(super) bits_stored: u32,
    /// Position of a sample's highest bit, `bits_stored - 1 ..= bits_allocated - 1`.
    pub(super) high_bit: u32,
    /// Whether samples are in two's complement.
    pub(super) is_signed: bool,
    /// Whether uncompressed colours are stored plane after plane.
    pub(super) is_planar: bool,
}

/// What samples mean: the values of Photometric Interpretation that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    /// Grey, the lowest value is white.
    Monochrome1,
    /// Grey, the lowest value is black.
    Monochrome2,
    /// Indices into a table of colours.
    PaletteColor,
    /// Red, green and blue.
    Rgb,
    /// Brightness and two colour differences, as in JPEG files, full range.
    YbrFull,
    /// As [`Self::YbrFull`], two neighbours of a row share their colour differences.
    YbrFull422,
    /// The colours of JPEG 2000's lossy transform.
    YbrIct,
    /// The colours of JPEG 2000's lossless transform.
    YbrRct,
}

impl Photometric {
    /// Number of samples of a pixel.
    pub(super) fn num_samples(self) -> usize {
        match self {
            Self::Monochrome1 | Self::Monochrome2 | Self::PaletteColor => 1,
            _ => 3,
        }
    }
}

impl PixelFormat {
    /// Number of pixels of a frame.
    pub(super) fn num_pixels(&self) -> usize {
        self.columns * self.rows
    }

    /// Number of samples of a frame once chroma is expanded.
    pub(super) fn num_values(&self) -> usize {
        self.num_pixels() * self.num_samples
    }

    /// Bytes of an uncompressed frame, without padding. Frames of one bit a sample are counted as if
    /// each began at a byte.
    pub(super) fn native_bytes(&self) -> usize {
        match self.photometric {
            Photometric::YbrFull422 => {
                self.columns.div_ceil(2) * 4 * self.rows * self.bits_allocated as usize / 8
            }
            _ => (self.num_values() * self.bits_allocated as usize).div_ceil(8),
        }
    }
}
