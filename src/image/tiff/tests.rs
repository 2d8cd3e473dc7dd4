//! Files built by hand, one field at a time.

use super::super::cancellation::Cancellation;
use super::super::decode::{ImageLimits, decode};
use super::super::raster::Samples;
use super::description::*;
use crate::error::ImageError;

const SHORT: u16 = 3;
const LONG: u16 = 4;

/// A little-endian file of one plain strip, `fields` over the usual ones.
fn file((width, height): (u16, u16), data: &[u8], fields: &[(u16, u16, &[u32])]) -> Vec<u8> {
    let length = [data.len() as u32];
    let sides = [u32::from(width), u32::from(height)];
    let mut all: Vec<(u16, u16, &[u32])> = vec![
        (IMAGE_WIDTH, SHORT, &sides[..1]),
        (IMAGE_LENGTH, SHORT, &sides[1..]),
        (BITS_PER_SAMPLE, SHORT, &[8]),
        (PHOTOMETRIC, SHORT, &[1]),
        (STRIP_OFFSETS, LONG, &[8]),
        (SAMPLES_PER_PIXEL, SHORT, &[1]),
        (STRIP_BYTE_COUNTS, LONG, &length),
    ];
    for field in fields {
        all.retain(|(tag, ..)| *tag != field.0);
        all.push(*field);
    }
    all.sort_by_key(|(tag, ..)| *tag);
    let directory_at = 8 + data.len();
    let mut values_at = directory_at + 2 + 12 * all.len() + 4;
    let mut directory = (all.len() as u16).to_le_bytes().to_vec();
    let mut values = Vec::new();
    for (tag, kind, numbers) in all {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|n| n.to_le_bytes()[..if kind == SHORT { 2 } else { 4 }].to_vec())
            .collect();
        directory.extend(tag.to_le_bytes());
        directory.extend(kind.to_le_bytes());
        directory.extend((numbers.len() as u32).to_le_bytes());
        if bytes.len() <= 4 {
            directory.extend(&bytes);
            directory.resize(directory.len() + 4 - bytes.len(), 0);
        } else {
            directory.extend((values_at as u32).to_le_bytes());
            values_at += bytes.len();
            values.extend(bytes);
        }
    }
    directory.extend([0; 4]);
    let header = [&b"II*\0"[..], &(directory_at as u32).to_le_bytes()].concat();
    [header, data.to_vec(), directory, values].concat()
}

fn levels(encoded: &[u8]) -> Result<Vec<u8>, ImageError> {
    let raster = decode(encoded, &ImageLimits::default(), Cancellation::NEVER)?;
    Ok(match raster.samples {
        Samples::Grey(levels) | Samples::Rgb(levels) => levels,
    })
}

// What Pillow 13 makes of the same bytes, but for 16-bit grey.
#[test]
fn samples_get_their_meaning() {
    let words = |words: &[u16]| {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let rgb: &[(u16, u16, &[u32])] =
        &[(PHOTOMETRIC, SHORT, &[2]), (SAMPLES_PER_PIXEL, SHORT, &[3])];
    let rgba: &[(u16, u16, &[u32])] =
        &[(PHOTOMETRIC, SHORT, &[2]), (SAMPLES_PER_PIXEL, SHORT, &[4])];
    let plus = |fields: &[(u16, u16, &'static [u32])], more: &[(u16, u16, &'static [u32])]| {
        [fields, more].concat()
    };
    let palette: Vec<u32> = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]
        .map(|v| v * 256 + 255)
        .to_vec();
    for (name, encoded, expected) in [
        ("grey", file((2, 1), &[7, 9], &[]), vec![7, 9]),
        (
            "white is 0",
            file((2, 1), &[7, 9], &[(PHOTOMETRIC, SHORT, &[0])]),
            vec![248, 246],
        ),
        (
            "1 bit, white is 0, rows start at bytes",
            file(
                (3, 2),
                &[0b1010_0000, 0b0110_0000],
                &[(PHOTOMETRIC, SHORT, &[0]), (BITS_PER_SAMPLE, SHORT, &[1])],
            ),
            vec![0, 255, 0, 255, 0, 0],
        ),
        (
            "2 bits",
            file(
                (5, 1),
                &[0b0001_1011, 0b1000_0000],
                &[(BITS_PER_SAMPLE, SHORT, &[2])],
            ),
            vec![0, 85, 170, 255, 170],
        ),
        (
            "4 bits, white is 0",
            file(
                (3, 1),
                &[0x0f, 0x10],
                &[(PHOTOMETRIC, SHORT, &[0]), (BITS_PER_SAMPLE, SHORT, &[4])],
            ),
            vec![255, 0, 238],
        ),
        (
            "16 bits",
            file(
                (2, 1),
                &words(&[129, 65_535]),
                &[(BITS_PER_SAMPLE, SHORT, &[16])],
            ),
            vec![1, 255],
        ),
        (
            "16 bits, white is 0",
            file(
                (2, 1),
                &words(&[129, 65_535]),
                &[(BITS_PER_SAMPLE, SHORT, &[16]), (PHOTOMETRIC, SHORT, &[0])],
            ),
            vec![254, 0],
        ),
        (
            "palette",
            file(
                (2, 1),
                &[0b1100_0000],
                &[
                    (BITS_PER_SAMPLE, SHORT, &[2]),
                    (PHOTOMETRIC, SHORT, &[3]),
                    (COLOR_MAP, SHORT, &palette),
                ],
            ),
            vec![40, 80, 120, 10, 50, 90],
        ),
        ("RGB", file((1, 1), &[1, 2, 3], rgb), vec![1, 2, 3]),
        (
            "RGB in planes",
            file(
                (2, 1),
                &[1, 4, 2, 5, 3, 6],
                &plus(
                    rgb,
                    &[
                        (PLANAR_CONFIGURATION, SHORT, &[2]),
                        (STRIP_OFFSETS, LONG, &[8, 10, 12]),
                        (STRIP_BYTE_COUNTS, LONG, &[2, 2, 2]),
                    ],
                ),
            ),
            vec![1, 2, 3, 4, 5, 6],
        ),
        (
            "a fourth sample",
            file((1, 1), &[200, 100, 0, 51], rgba),
            vec![244, 224, 204],
        ),
        (
            "to be ignored",
            file(
                (1, 1),
                &[200, 100, 0, 51],
                &plus(rgba, &[(EXTRA_SAMPLES, SHORT, &[0])]),
            ),
            vec![200, 100, 0],
        ),
        (
            "multiplied in",
            file(
                (1, 1),
                &[40, 20, 0, 51],
                &plus(rgba, &[(EXTRA_SAMPLES, SHORT, &[1])]),
            ),
            vec![244, 224, 204],
        ),
        (
            "ink",
            file(
                (1, 1),
                &[0, 100, 255, 55],
                &[(PHOTOMETRIC, SHORT, &[5]), (SAMPLES_PER_PIXEL, SHORT, &[4])],
            ),
            vec![200, 122, 0],
        ),
        (
            "grey and alpha",
            file(
                (1, 1),
                &[0, 128],
                &[
                    (SAMPLES_PER_PIXEL, SHORT, &[2]),
                    (EXTRA_SAMPLES, SHORT, &[2]),
                ],
            ),
            vec![127],
        ),
    ] {
        assert_eq!(levels(&encoded), Ok(expected), "{name}");
    }
}

#[test]
fn a_tile_wider_than_the_image() {
    let data: Vec<u8> = (0..=255).collect();
    let encoded = file(
        (2, 2),
        &data,
        &[
            (TILE_WIDTH, SHORT, &[16]),
            (TILE_LENGTH, SHORT, &[16]),
            (TILE_OFFSETS, LONG, &[8]),
            (TILE_BYTE_COUNTS, LONG, &[256]),
        ],
    );
    // Strips as well as tiles is nothing that a writer does.
    assert_eq!(levels(&encoded), Err(ImageError::Undecodable));
    let without_strips: Vec<u8> = encoded
        .windows(2)
        .position(|tag| tag == STRIP_OFFSETS.to_le_bytes())
        .map(|at| {
            let mut copy = encoded.clone();
            copy[at..at + 2].copy_from_slice(&60_000u16.to_le_bytes());
            let at = at + 24;
            copy[at..at + 2].copy_from_slice(&60_001u16.to_le_bytes());
            copy
        })
        .expect("it has strips");
    assert_eq!(levels(&without_strips), Ok(vec![0, 1, 16, 17]));
}

#[test]
fn what_is_not_read_is_said_so() {
    for (tag, value) in [
        (PHOTOMETRIC, 8),
        (COMPRESSION, 6),
        (COMPRESSION, 34_712),
        (SAMPLE_FORMAT, 2),
        (SAMPLE_FORMAT, 3),
        (FILL_ORDER, 2),
        (BITS_PER_SAMPLE, 32),
        (BITS_PER_SAMPLE, 12),
    ] {
        let encoded = file((1, 1), &[0; 4], &[(tag, SHORT, &[value])]);
        assert_eq!(
            levels(&encoded),
            Err(ImageError::UnsupportedVariant),
            "{tag} {value}"
        );
    }
}

#[test]
fn a_tile_far_larger_than_its_image_takes_no_memory() {
    for compression in [2, 3, 4, 7, 50_000] {
        for side in [65_535, u32::MAX] {
            let encoded = file(
                (1, 1),
                &[0; 16],
                &[
                    (COMPRESSION, SHORT, &[compression]),
                    (
                        BITS_PER_SAMPLE,
                        SHORT,
                        &[if compression < 7 { 1 } else { 8 }],
                    ),
                    (TILE_WIDTH, LONG, &[side]),
                    (TILE_LENGTH, LONG, &[side]),
                    (TILE_OFFSETS, LONG, &[8]),
                    (TILE_BYTE_COUNTS, LONG, &[16]),
                ],
            );
            let refused = Err(ImageError::UnsupportedVariant);
            assert_eq!(levels(&encoded), refused, "{compression}, {side}");
        }
    }
}
