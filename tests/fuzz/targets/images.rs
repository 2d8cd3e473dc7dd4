//! Files of each format, and the data URIs that they come in.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use medgemma::core::{ImageFit, PanAndScan, Preparation};
use medgemma::error::ImageError;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, Source, data_uri};

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

/// Crops of small images too.
const CROPS: PanAndScan = PanAndScan {
    min_crop_size: 1,
    max_num_crops: 4,
    min_ratio_to_activate: 1.0,
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
    let preparation = Preparation {
        pan_and_scan: Some(CROPS),
        ..Preparation::default()
    };
    let prepared = Source::open(file, &PROCESSOR, preparation, Cancellation::NEVER)
        .and_then(|source| {
            let report = source.report();
            assert!(report.of >= 1 && report.images == source.num_images());
            Ok((source.num_images(), source.prepare(0, Cancellation::NEVER)?))
        });
    match prepared {
        Ok((num_images, frame)) => {
            assert_eq!(frame.pixels.len(), num_images);
            assert!(frame.pixels.iter().all(|image| image.rgb.len() == 32 * 32 * 3));
        }
        Err(error) => assert!(!PANICKED.get() || error == ImageError::Undecodable),
    }
}

pub(super) fn png(file: &[u8]) {
    const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
    process(file, MAGIC);
    // Again with the checksums that the fuzzer does not find by itself.
    let mut mended = file.to_vec();
    let mut at = MAGIC.len();
    while let Some(length) = mended.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(chunk) = mended.get(at + 4..(at + 8).saturating_add(length)) else {
            break;
        };
        let sum = crc32(chunk).to_be_bytes();
        at += 8 + length;
        match mended.get_mut(at..at + 4) {
            Some(place) => place.copy_from_slice(&sum),
            None => break,
        }
        at += 4;
    }
    process(&mended, MAGIC);
}

/// The checksum of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
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

pub(super) fn jpeg2000(file: &[u8]) {
    match file {
        [0xff, ..] => process(file, b"\xff\x4f\xff\x51"),
        _ => process(file, b"\0\0\0\x0cjP  \r\n\x87\n"),
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
