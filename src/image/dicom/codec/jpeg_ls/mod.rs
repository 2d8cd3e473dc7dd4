//! JPEG-LS (ITU-T T.87), without loss or nearly so: 2 to 16 bits, one or three components, interleaved
//! in any of its three ways.
//!
//! Our own, since what is to be had reads one component only, or needs cmake.

mod bits;
mod contexts;
mod parameters;
mod scan;

use self::parameters::{Parameters, Presets};
use self::scan::{Interleave, Scan};
use super::jpeg_header::Segments;
use super::{damaged, unsupported};
use crate::error::ImageError;
use crate::image::cancellation::Cancellation;
use crate::image::dicom::pixel_format::PixelFormat;

/// Decodes a codestream whose frame header fits `format`; returns `(rows, columns, components)`.
///
/// # Errors
/// [`ImageError::Dicom`] for damage and by name for what is not read; [`ImageError::Abandoned`]
/// between rows.
pub(super) fn decode(
    encoded: &[u8],
    format: &PixelFormat,
    cancellation: Cancellation<'_>,
) -> Result<Vec<u16>, ImageError> {
    let mut segments = Segments::of(encoded)?;
    let mut frame: Option<Frame> = None;
    let mut presets = Presets::default();
    let mut samples = vec![0; format.num_values()];
    let mut decoded = vec![false; format.num_samples];
    // Each scan has components of its own, so that no more than three are read.
    while decoded.contains(&false) {
        let (marker, data) = segments.next()?;
        match (marker, &mut frame) {
            (0xf7, None) => frame = Some(Frame::read(data, format)?),
            (0xf8, _) => presets = Presets::read(data)?,
            (0xdd, _) if data.iter().any(|byte| *byte != 0) => {
                return Err(unsupported("JPEG-LS frames with restart markers"));
            }
            (0xe8, _) if matches!(data, [b'm', b'r', b'f', b'x', 1..=255, ..]) => {
                return Err(unsupported("JPEG-LS frames with a maker's own colours"));
            }
            (0xda, Some(frame)) => {
                let header = ScanHeader::read(data, frame)?;
                for &component in &header.components {
                    if std::mem::replace(&mut decoded[component], true) {
                        return Err(damaged("a JPEG-LS frame has a component twice"));
                    }
                }
                let parameters = Parameters::new(frame.precision, header.near, presets)?;
                let scan = Scan {
                    parameters,
                    interleave: header.interleave,
                    components: &header.components,
                };
                let start = segments.position();
                let read = scan.decode(&encoded[start..], &mut samples, format, cancellation)?;
                segments = Segments::from(encoded, start + read);
            }
            (0xd8 | 0xd9 | 0xda | 0xf7, _) => return Err(DAMAGED),
            // Comments, and what applications add.
            _ => {}
        }
    }
    Ok(samples)
}

const DAMAGED: ImageError = damaged("a JPEG-LS frame is damaged or ends early");

struct Frame {
    precision: u32,
    ids: Vec<u8>,
}

impl Frame {
    fn read(data: &[u8], format: &PixelFormat) -> Result<Self, ImageError> {
        let &[precision @ 2..=16, _, _, _, _, _, ref components @ ..] = data else {
            return Err(DAMAGED);
        };
        let components = components.as_chunks::<3>().0;
        let components = components.get(..format.num_samples).ok_or(DAMAGED)?;
        if components.iter().any(|component| component[1] != 0x11) {
            return Err(unsupported("JPEG-LS frames with components of unlike size"));
        }
        Ok(Self {
            precision: precision.into(),
            ids: components.iter().map(|component| component[0]).collect(),
        })
    }
}

struct ScanHeader {
    /// Positions in a pixel.
    components: Vec<usize>,
    near: i32,
    interleave: Interleave,
}

impl ScanHeader {
    fn read(data: &[u8], frame: &Frame) -> Result<Self, ImageError> {
        let (&count, rest) = data.split_first().ok_or(DAMAGED)?;
        let (specified, rest) = rest
            .split_at_checked(usize::from(count) * 2)
            .ok_or(DAMAGED)?;
        let mut components = Vec::new();
        for &[id, table] in specified.as_chunks::<2>().0 {
            let component = frame.ids.iter().position(|own| *own == id);
            components.push(component.ok_or(DAMAGED)?);
            if table != 0 {
                return Err(unsupported("JPEG-LS frames with mapping tables"));
            }
        }
        let &[near, interleave, transform] = rest else {
            return Err(DAMAGED);
        };
        if transform != 0 {
            return Err(unsupported("JPEG-LS frames with a point transform"));
        }
        let interleave = match (components.len(), interleave) {
            (1, _) => Interleave::None,
            (3, 1) => Interleave::Line,
            (3, 2) => Interleave::Sample,
            _ => return Err(DAMAGED),
        };
        Ok(Self {
            components,
            near: near.into(),
            interleave,
        })
    }
}
