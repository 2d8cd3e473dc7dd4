//! Images of every kind, against the levels that Pillow and transformers make of them.

use std::collections::BTreeMap;
use std::fs;

use medgemma::core::{ImageFit, PreparationFields};
use medgemma::error::ImageError;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, Samples, Source, decode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::golden;

/// Thin images, which requests may not show, are resized as the reference does too.
const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 50 << 20,
    max_pixels: 64 << 20,
    max_side: 1 << 16,
    max_ratio: 1 << 16,
};

/// One entry of `images/expected.json`: BLAKE3 of the RGB levels.
#[derive(Deserialize)]
struct Expected {
    width: usize,
    height: usize,
    decoded: String,
    #[serde(rename = "32")]
    small: String,
    #[serde(rename = "896")]
    full: String,
}

/// An image with its crops, as the reference prepares them with these settings.
#[derive(Deserialize)]
struct Cropped {
    file: String,
    settings: Map<String, Value>,
    #[serde(rename = "32")]
    small: Vec<String>,
}

#[derive(Deserialize)]
struct Listing {
    files: BTreeMap<String, Expected>,
    cropped: Vec<Cropped>,
}

fn listing() -> BTreeMap<String, Expected> {
    whole_listing().files
}

fn whole_listing() -> Listing {
    let json = fs::read(golden::path("images/expected.json")).expect("goldens are there");
    let listing: Listing = serde_json::from_slice(&json).expect("goldens are JSON");
    assert!(
        listing.files.len() > 50,
        "only {} images",
        listing.files.len()
    );
    listing
}

fn digest(levels: &[u8]) -> String {
    blake3::hash(levels).to_hex().to_string()
}

// Not a level of tolerance, for lossy files neither: the decoders compute as Pillow's do.
#[test]
fn every_image_decodes_to_the_reference_levels() {
    for (name, expected) in listing() {
        let encoded = fs::read(golden::path(&format!("images/{name}"))).expect("goldens are there");
        let raster = decode(&encoded, &LIMITS, Cancellation::NEVER)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (raster.width, raster.height),
            (expected.width, expected.height),
            "{name}"
        );
        let rgb = match raster.samples {
            Samples::Rgb(rgb) => rgb,
            Samples::Grey(grey) => grey.into_iter().flat_map(|v| [v; 3]).collect(),
        };
        assert_eq!(digest(&rgb), expected.decoded, "{name}");
    }
}

/// One entry of `pillow/expected.json`.
#[derive(Deserialize)]
struct Levels {
    width: usize,
    height: usize,
    /// BLAKE3 of the levels, of one or three channels.
    decoded: String,
}

// `tests/golden/make/pillow.py` made the files, and Pillow 13 the levels.
#[test]
fn what_pillow_reads_is_read_and_what_it_refuses_is_refused() {
    let json = fs::read(golden::path("pillow/expected.json")).expect("goldens are there");
    let listing: BTreeMap<String, Option<Levels>> =
        serde_json::from_slice(&json).expect("goldens are JSON");
    let num_refused = listing.values().filter(|levels| levels.is_none()).count();
    assert_eq!((listing.len(), num_refused), (50, 8));
    for (name, expected) in listing {
        let encoded = fs::read(golden::path(&format!("pillow/{name}"))).expect("goldens are there");
        let decoded = decode(&encoded, &LIMITS, Cancellation::NEVER);
        let (expected, raster) = match (expected, decoded) {
            (Some(expected), Ok(raster)) => (expected, raster),
            (None, Err(error)) => {
                assert_eq!(error, ImageError::Undecodable, "{name}");
                continue;
            }
            (Some(_), Err(error)) => panic!("{name}: Pillow reads it; {error}"),
            (None, Ok(_)) => panic!("{name}: Pillow refuses it"),
        };
        assert_eq!(
            (raster.width, raster.height),
            (expected.width, expected.height),
            "{name}"
        );
        let (Samples::Grey(levels) | Samples::Rgb(levels)) = raster.samples;
        assert_eq!(digest(&levels), expected.decoded, "{name}");
    }
}

#[test]
fn lossy_jpeg_2000_is_within_a_level_of_pillow() {
    let encoded = fs::read(golden::path("pillow/lossy.jp2")).expect("goldens are there");
    let expected = fs::read(golden::path("pillow/lossy.rgb")).expect("goldens are there");
    let raster = decode(&encoded, &LIMITS, Cancellation::NEVER).expect("it is sound");
    let Samples::Rgb(levels) = raster.samples else {
        panic!("it has colours")
    };
    assert_eq!(levels.len(), expected.len());
    for (level, expected) in levels.iter().zip(&expected) {
        assert!(level.abs_diff(*expected) <= 1, "{level} for {expected}");
    }
}

#[test]
fn every_image_is_resized_to_the_reference_levels() {
    for (name, expected) in listing() {
        let encoded = fs::read(golden::path(&format!("images/{name}"))).expect("goldens are there");
        for (size, levels) in [(32, &expected.small), (896, &expected.full)] {
            let processor = ImageProcessor {
                size,
                resize: ImageFit::Squash,
                limits: LIMITS,
            };
            let pixels = processor
                .process(&encoded, Cancellation::NEVER)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(pixels.size, size);
            assert_eq!(&digest(&pixels.rgb), levels, "{name} at {size}");
        }
    }
}

#[test]
fn crops_have_the_reference_levels() {
    let cropped = whole_listing().cropped;
    assert!(cropped.iter().filter(|image| image.small.len() > 2).count() > 8);
    for Cropped {
        file,
        mut settings,
        small,
    } in cropped
    {
        settings.insert("do_pan_and_scan".to_owned(), Value::Bool(true));
        let fields = PreparationFields::read(&settings).expect("settings of the reference");
        let encoded = fs::read(golden::path(&format!("images/{file}"))).expect("goldens are there");
        let processor = ImageProcessor {
            size: 32,
            resize: ImageFit::Squash,
            limits: LIMITS,
        };
        let source = Source::open(encoded, &processor, fields.resolve(), Cancellation::NEVER)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(source.num_images(), small.len(), "{file}");
        let frame = source
            .prepare(0, Cancellation::NEVER)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let found: Vec<String> = frame
            .pixels
            .iter()
            .map(|image| digest(&image.rgb))
            .collect();
        assert_eq!(found, small, "{file} with {settings:?}");
    }
}
