//! What a JPEG or JPEG-LS codestream says before its first scan.

use super::{COMPONENTS_DIFFER, PRECISION_DIFFERS, SIZE_DIFFERS, damaged, unsupported};
use crate::error::ImageError;
use crate::image::dicom::pixel_format::PixelFormat;

/// What was done to a codestream's samples, by the marker of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// The cosine transform, baseline, extended or progressive, with Huffman codes.
    Dct,
    /// Prediction, with Huffman codes.
    Lossless,
    /// JPEG-LS.
    Ls,
}

/// The header, after comparison with a file's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    /// How the samples are coded.
    pub(super) process: Process,
    /// Bits of each sample.
    pub(super) precision: u32,
    /// Whether the components are brightness and colour differences.
    pub(super) is_ybr: bool,
}

impl JpegHeader {
    /// Reads up to the frame's segment.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] for damage, for a size, a number of components or a precision that the
    /// description does not have, and by name for kinds that are not read.
    pub(super) fn read(encoded: &[u8], format: &PixelFormat) -> Result<Self, ImageError> {
        let mut is_jfif = false;
        let mut segments = Segments::of(encoded)?;
        loop {
            let (marker, data) = segments.next()?;
            let process = match marker {
                0xc0..=0xc2 => Process::Dct,
                0xc3 => Process::Lossless,
                0xf7 => Process::Ls,
                0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err(unsupported("JPEG frames with arithmetic coding"));
                }
                0xc5..=0xc7 => return Err(unsupported("hierarchical JPEG frames")),
                0xf8 => return Err(unsupported("frames in JPEG-LS part 2")),
                0xd8..=0xda => return Err(NO_FRAME),
                0xe0 => {
                    is_jfif |= data.starts_with(b"JFIF");
                    continue;
                }
                _ => continue,
            };
            return Self::of_frame(process, data, is_jfif, format);
        }
    }

    fn of_frame(
        process: Process,
        data: &[u8],
        is_jfif: bool,
        format: &PixelFormat,
    ) -> Result<Self, ImageError> {
        let &[precision, y1, y0, x1, x0, count, ref components @ ..] = data else {
            return Err(NO_FRAME);
        };
        let rows = usize::from(u16::from_be_bytes([y1, y0]));
        let columns = usize::from(u16::from_be_bytes([x1, x0]));
        if rows == 0 {
            return Err(unsupported(
                "compressed frames whose height stands behind their samples",
            ));
        }
        if (columns, rows) != (format.columns, format.rows) {
            return Err(SIZE_DIFFERS);
        }
        if usize::from(count) != format.num_samples {
            return Err(COMPONENTS_DIFFER);
        }
        let precision = u32::from(precision);
        let is_possible = match process {
            Process::Dct => matches!(precision, 8 | 12),
            Process::Lossless | Process::Ls => matches!(precision, 2..=16),
        };
        if !is_possible {
            return Err(damaged(
                "a compressed frame has samples of impossible depth",
            ));
        }
        if precision > format.bits_allocated {
            return Err(PRECISION_DIFFERS);
        }
        let components = components.as_chunks::<3>().0;
        if components.len() < usize::from(count) {
            return Err(NO_FRAME);
        }
        let ids = || components.iter().map(|component| component[0]);
        // As pydicom decides: these identifiers, then JFIF, else the file's description. DCMTK goes
        // by the description alone, which agrees wherever the description does not err.
        let has_rgb_ids = ids().eq(*b"RGB") || ids().eq(*b"rgb");
        let is_ybr = count == 3 && !has_rgb_ids && (is_jfif || format.photometric.is_ybr());
        Ok(Self {
            process,
            precision,
            is_ybr,
        })
    }
}

const NO_FRAME: ImageError = damaged("a compressed frame has no header");

/// Walks over a codestream's marker segments, up to the first scan.
pub(super) struct Segments<'a> {
    encoded: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// Begins behind the marker that begins a codestream.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] where there is none.
    pub(super) fn of(encoded: &'a [u8]) -> Result<Self, ImageError> {
        match encoded.starts_with(&[0xff, 0xd8]) {
            true => Ok(Self { encoded, at: 2 }),
            false => Err(NO_FRAME),
        }
    }

    /// Begins anywhere in a codestream.
    pub(super) fn from(encoded: &'a [u8], at: usize) -> Self {
        Self { encoded, at }
    }

    /// Where the last segment that was returned ends.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Returns the next marker and its segment's data; none for the markers that begin and end a
    /// codestream.
    ///
    /// # Errors
    /// [`ImageError::Dicom`] where none begins or where one is cut off.
    pub(super) fn next(&mut self) -> Result<(u8, &'a [u8]), ImageError> {
        const CUT: ImageError = damaged("a compressed frame ends early");
        let mut marker = 0xff;
        if self.encoded.get(self.at) != Some(&0xff) {
            return Err(CUT);
        }
        // A marker may have any number of bytes before it that fill up space.
        while marker == 0xff {
            self.at += 1;
            marker = *self.encoded.get(self.at).ok_or(CUT)?;
        }
        self.at += 1;
        if matches!(marker, 0x01 | 0xd0..=0xd9) {
            return Ok((marker, &[]));
        }
        let length = self.encoded.get(self.at..self.at + 2).ok_or(CUT)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let end = self.at + length;
        let data = self.encoded.get(self.at + 2..end).ok_or(CUT)?;
        self.at = end;
        Ok((marker, data))
    }
}
