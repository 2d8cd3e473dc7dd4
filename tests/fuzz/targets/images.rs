//! Files of each format, and the data URIs that they come in.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use medgemma::core::ImageFit;
use medgemma::error::ImageError;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, data_uri};

const PROCESSOR: ImageProcessor = ImageProcessor {
    size: 32,
    resize: ImageFit::Squash,
    // Small, so that many files are tried in a second.
    limits: ImageLimits {
        max_bytes: 1 << 16,
        max_pixels: 1 << 14,
        max_side: 1 << 12,
        max_ratio: 200,
    },
};

/// Where the sources of dependencies lie, in the path that a panic states.
const DEPENDENCY: &str = "/registry/src/";

/// Prepares an image. A panic of our own code is a find. One of a decoder is an error of its file,
/// as the server answers it.
fn process(file: &[u8], magic: &[u8]) {
    thread_local!(static PANICKED: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // The fuzzer's own ends the process.
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info
                .location()
                .is_some_and(|at| at.file().contains(DEPENDENCY))
            {
                PANICKED.set(true);
            } else {
                usual(info);
            }
        }));
    });
    PANICKED.set(false);
    // Of its format, whatever the fuzzer made of the first bytes.
    let file = [magic, file.get(magic.len()..).unwrap_or_default()].concat();
    let processed = PROCESSOR.process(&file, Cancellation::NEVER);
    match processed {
        Ok(pixels) => assert_eq!(pixels.rgb.len(), 32 * 32 * 3),
        Err(error) => assert!(!PANICKED.get() || error == ImageError::Undecodable),
    }
}

pub(super) fn png(file: &[u8]) {
    process(file, b"\x89PNG\r\n\x1a\n");
}

pub(super) fn jpeg(file: &[u8]) {
    process(file, b"\xff\xd8\xff");
}

pub(super) fn webp(file: &[u8]) {
    let len = file.len().saturating_sub(8) as u32;
    let magic = [&b"RIFF"[..], &len.to_le_bytes(), b"WEBP"].concat();
    process(file, &magic);
}

pub(super) fn gif(file: &[u8]) {
    process(file, b"GIF8");
}

pub(super) fn bmp(file: &[u8]) {
    process(file, b"BM");
}

pub(super) fn tiff(file: &[u8]) {
    match file {
        [b'M', ..] => process(file, b"MM\0"),
        _ => process(file, b"II"),
    }
}

pub(super) fn data_uri(uri: &[u8]) {
    let Ok(uri) = std::str::from_utf8(uri) else {
        return;
    };
    if let Ok(file) = data_uri::from_data_uri(uri, &PROCESSOR.limits) {
        assert!(!file.is_empty() && file.len() <= PROCESSOR.limits.max_bytes);
    }
}
