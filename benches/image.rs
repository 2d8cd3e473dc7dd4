//! A chest X-ray on its way to the vision encoder: 1477×1198 to 896², on one core.
//!
//!     cargo bench --bench image                  # an image of the test files
//!     cargo bench --bench image -- PICTURE       # an image of your own

mod harness;

use std::path::PathBuf;

use harness::{Mode, median, report, seconds};
use medgemma::core::ImageFit;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, decode};

fn main() {
    let mode = Mode::from_arguments();
    let file = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .map_or_else(
            || {
                PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/golden/images/rgb_1477x1198.png")
            },
            PathBuf::from,
        );
    let encoded = std::fs::read(&file).expect("the image can be read");
    let processor = ImageProcessor {
        size: 896,
        resize: ImageFit::Squash,
        limits: ImageLimits::default(),
    };
    let runs = mode.pick(21, 1);
    let one_core = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("one thread");
    one_core.install(|| {
        let decoding = median(runs, || {
            seconds(|| {
                drop(decode(&encoded, &processor.limits, Cancellation::NEVER).expect("an image"))
            })
        });
        let whole = median(runs, || {
            seconds(|| {
                drop(
                    processor
                        .process(&encoded, Cancellation::NEVER)
                        .expect("an image"),
                )
            })
        });
        report("decode", decoding * 1e3, "ms");
        report("decode, resize to 896² and hash", whole * 1e3, "ms");
        report("the same without decoding", (whole - decoding) * 1e3, "ms");
    });
}
