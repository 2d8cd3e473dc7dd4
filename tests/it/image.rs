//! Images of every kind, against the levels that Pillow and transformers make of them.

use std::collections::BTreeMap;
use std::fs;

use medgemma::core::ImageFit;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, Samples, decode};
use serde::Deserialize;

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

#[derive(Deserialize)]
struct Listing {
    files: BTreeMap<String, Expected>,
}

fn listing() -> BTreeMap<String, Expected> {
    let json = fs::read(golden::path("images/expected.json")).expect("goldens are there");
    let listing: Listing = serde_json::from_slice(&json).expect("goldens are JSON");
    assert!(
        listing.files.len() > 50,
        "only {} images",
        listing.files.len()
    );
    listing.files
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
