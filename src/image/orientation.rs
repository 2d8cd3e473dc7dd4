//! Which way up an image is, and turning it.
//!
//! As `PIL.ImageOps.exif_transpose`: EXIF's Orientation, else XMP's; anything but 2 to 8 means
//! upright.

use super::cancellation::Cancellation;
use super::ifd::Directory;
use super::metadata::Metadata;
use super::raster::{Raster, Samples};
use crate::error::ImageError;

/// What must be done to a stored image to show it, in EXIF's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Orientation {
    Upright = 1,
    FlipLeftRight = 2,
    Turn180 = 3,
    FlipTopBottom = 4,
    Transpose = 5,
    TurnClockwise = 6,
    Transverse = 7,
    TurnAnticlockwise = 8,
}

/// The TIFF tag, which is EXIF's too.
const ORIENTATION: u16 = 274;

impl Orientation {
    /// What a file's metadata says; upright where it says nothing that can be read.
    pub(super) fn of(metadata: &Metadata<'_>) -> Self {
        let value = metadata
            .exif
            .and_then(Directory::first_in)
            .and_then(|directory| directory.value(ORIENTATION))
            .or_else(|| metadata.xmp.and_then(in_xmp));
        match value {
            Some(2) => Self::FlipLeftRight,
            Some(3) => Self::Turn180,
            Some(4) => Self::FlipTopBottom,
            Some(5) => Self::Transpose,
            Some(6) => Self::TurnClockwise,
            Some(7) => Self::Transverse,
            Some(8) => Self::TurnAnticlockwise,
            _ => Self::Upright,
        }
    }

    /// Whether width and height are exchanged.
    pub(super) fn swaps_sides(self) -> bool {
        matches!(
            self,
            Self::Transpose | Self::TurnClockwise | Self::Transverse | Self::TurnAnticlockwise
        )
    }
}

/// The digit after the first `tiff:Orientation="` or `tiff:Orientation>`.
fn in_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        rest = &rest[at + NAME.len()..];
        if let [b'=', b'"', digit @ b'0'..=b'9', ..] | [b'>', digit @ b'0'..=b'9', ..] = rest {
            return Some(u32::from(digit - b'0'));
        }
    }
    None
}

/// Turns an image upright.
///
/// # Errors
/// [`ImageError::Abandoned`] between rows.
pub(super) fn apply(
    orientation: Orientation,
    raster: Raster,
    cancellation: Cancellation<'_>,
) -> Result<Raster, ImageError> {
    if orientation == Orientation::Upright {
        return Ok(raster);
    }
    let Raster {
        width,
        height,
        samples,
        is_stretched,
    } = raster;
    let size = (width, height);
    let samples = match samples {
        Samples::Grey(grey) => Samples::Grey(turned::<1>(orientation, size, &grey, cancellation)?),
        Samples::Rgb(rgb) => Samples::Rgb(turned::<3>(orientation, size, &rgb, cancellation)?),
    };
    let (width, height) = if orientation.swaps_sides() {
        (height, width)
    } else {
        (width, height)
    };
    Ok(Raster {
        width,
        height,
        samples,
        is_stretched,
    })
}

fn turned<const N: usize>(
    orientation: Orientation,
    (width, height): (usize, usize),
    samples: &[u8],
    cancellation: Cancellation<'_>,
) -> Result<Vec<u8>, ImageError> {
    let (pixels, _) = samples.as_chunks::<N>();
    let (new_width, new_height) = if orientation.swaps_sides() {
        (height, width)
    } else {
        (width, height)
    };
    let mut out = Vec::with_capacity(samples.len());
    for y in 0..new_height {
        cancellation.check()?;
        for x in 0..new_width {
            let (from_x, from_y) = match orientation {
                Orientation::Upright => (x, y),
                Orientation::FlipLeftRight => (width - 1 - x, y),
                Orientation::Turn180 => (width - 1 - x, height - 1 - y),
                Orientation::FlipTopBottom => (x, height - 1 - y),
                Orientation::Transpose => (y, x),
                Orientation::TurnClockwise => (y, height - 1 - x),
                Orientation::Transverse => (width - 1 - y, height - 1 - x),
                Orientation::TurnAnticlockwise => (width - 1 - y, x),
            };
            out.extend_from_slice(&pixels[from_y * width + from_x]);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_of_six_pixels() {
        // 1 2 3
        // 4 5 6
        for (orientation, width, expected) in [
            (Orientation::Upright, 3, [1, 2, 3, 4, 5, 6]),
            (Orientation::FlipLeftRight, 3, [3, 2, 1, 6, 5, 4]),
            (Orientation::Turn180, 3, [6, 5, 4, 3, 2, 1]),
            (Orientation::FlipTopBottom, 3, [4, 5, 6, 1, 2, 3]),
            (Orientation::Transpose, 2, [1, 4, 2, 5, 3, 6]),
            (Orientation::TurnClockwise, 2, [4, 1, 5, 2, 6, 3]),
            (Orientation::Transverse, 2, [6, 3, 5, 2, 4, 1]),
            (Orientation::TurnAnticlockwise, 2, [3, 6, 2, 5, 1, 4]),
        ] {
            let raster = Raster::grey(3, 2, vec![1, 2, 3, 4, 5, 6]);
            let turned = apply(orientation, raster, Cancellation::NEVER).unwrap();
            let Samples::Grey(grey) = turned.samples else {
                panic!("grey stays grey")
            };
            assert_eq!(
                (turned.width, grey),
                (width, expected.to_vec()),
                "{orientation:?}"
            );
        }
    }

    #[test]
    fn xmp_in_both_forms() {
        for (xmp, value) in [
            (r#"<rdf tiff:Orientation="6"/>"#, Some(6)),
            ("<tiff:Orientation>8</tiff:Orientation>", Some(8)),
            (r#"tiff:Orientation=6 tiff:Orientation="3""#, Some(3)),
            ("tiff:Orientation", None),
            ("", None),
        ] {
            assert_eq!(in_xmp(xmp.as_bytes()), value, "{xmp}");
        }
    }

    #[test]
    fn exif_wins_over_xmp() {
        let exif = *b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let xmp = Some(&br#"tiff:Orientation="3""#[..]);
        let both = Metadata {
            exif: Some(&exif),
            xmp,
        };
        assert_eq!(Orientation::of(&both), Orientation::TurnClockwise);
        assert_eq!(
            Orientation::of(&Metadata { exif: None, xmp }),
            Orientation::Turn180
        );
        assert_eq!(Orientation::of(&Metadata::default()), Orientation::Upright);
    }
}
