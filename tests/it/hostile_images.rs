//! Files that are broken, lie or are made to hurt: each ends in an error, none in a panic.

use std::cell::Cell;
use std::fs;
use std::panic;
use std::sync::Once;

use medgemma::core::ImageFit;
use medgemma::error::ImageError;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, decode};

use crate::golden;

const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 21,
    max_side: 1 << 15,
    max_ratio: 200,
};

fn sample(name: &str) -> Vec<u8> {
    fs::read(golden::path(&format!("images/{name}"))).expect("goldens are there")
}

/// Decodes; a panic inside, which [`decode`] would turn into an error, fails the test.
fn refusal(encoded: &[u8], limits: &ImageLimits) -> Option<ImageError> {
    thread_local!(static PANICKED: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            usual(info);
        }));
    });
    PANICKED.set(false);
    let result = decode(encoded, limits, Cancellation::NEVER);
    assert!(!PANICKED.get(), "a decoder panicked");
    result.err()
}

/// `bytes` with others in place of those at `at`.
fn with(mut bytes: Vec<u8>, at: usize, others: &[u8]) -> Vec<u8> {
    bytes[at..at + others.len()].copy_from_slice(others);
    bytes
}

fn find(bytes: &[u8], pattern: &[u8]) -> usize {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
        .expect("the sample has it")
}

/// A JPEG whose header states another size.
fn jpeg_of(height: u16, width: u16) -> Vec<u8> {
    let bytes = sample("jpeg_420.jpg");
    let frame = find(&bytes, &[0xff, 0xc0]);
    let bytes = with(bytes, frame + 5, &height.to_be_bytes());
    with(bytes, frame + 7, &width.to_be_bytes())
}

/// A TIFF (little-endian, directory first or last) with another first value of a tag.
fn tiff_with(tag: u16, value: u32) -> Vec<u8> {
    let bytes = sample("tiff.tif");
    let directory = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
    let num_entries = usize::from(u16::from_le_bytes([bytes[directory], bytes[directory + 1]]));
    let entry = (0..num_entries)
        .map(|idx| directory + 2 + idx * 12)
        .find(|&at| bytes[at..at + 2] == tag.to_le_bytes())
        .expect("the sample has the tag");
    with(bytes, entry + 8, &value.to_le_bytes())
}

#[test]
fn each_lie_has_its_refusal() {
    let too_many = |width, height| ImageError::TooManyPixels {
        width,
        height,
        max_pixels: LIMITS.max_pixels,
    };
    let empty = |width, height| ImageError::Empty { width, height };
    let webp = |name: &str, at, bytes: &[u8]| with(sample(name), at, bytes);
    let jpeg_frame = find(&sample("jpeg_420.jpg"), &[0xff, 0xc0]);
    let gif_screen = |w: u16, h: u16| {
        with(
            with(sample("gif.gif"), 6, &w.to_le_bytes()),
            8,
            &h.to_le_bytes(),
        )
    };
    let cases: Vec<(&str, Vec<u8>, ImageError)> = vec![
        ("nothing", vec![], ImageError::UnknownFormat),
        ("one byte", vec![0xff], ImageError::UnknownFormat),
        (
            "text",
            b"hello, this is not an image".to_vec(),
            ImageError::UnknownFormat,
        ),
        (
            "SVG",
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(),
            ImageError::UnknownFormat,
        ),
        ("PDF", b"%PDF-1.7\n".to_vec(), ImageError::UnknownFormat),
        (
            "DICOM",
            [&[0; 128][..], b"DICM"].concat(),
            ImageError::UnknownFormat,
        ),
        (
            "JPEG 2000 signature only",
            b"\0\0\0\x0cjP  \r\n\x87\n".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "JPEG 2000 start only",
            b"\xff\x4f\xff\x51".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "JPEG-LS",
            with(sample("jpeg_420.jpg"), jpeg_frame + 1, &[0xf7]),
            ImageError::UnreadFormat { name: "JPEG-LS" },
        ),
        (
            "AVIF",
            b"\0\0\0\x1cftypavif\0\0\0\0".to_vec(),
            ImageError::UnreadFormat { name: "AVIF" },
        ),
        (
            "HEIC",
            b"\0\0\0\x18ftypheic\0\0\0\0".to_vec(),
            ImageError::UnreadFormat { name: "HEIC" },
        ),
        (
            "JPEG XL",
            b"\0\0\0\x0cJXL \r\n\x87\n".to_vec(),
            ImageError::UnreadFormat { name: "JPEG XL" },
        ),
        ("ZIP", b"PK\x03\x04".to_vec(), ImageError::UnknownFormat),
        ("zeros", vec![0; 4096], ImageError::UnknownFormat),
        (
            "PNG signature only",
            b"\x89PNG\r\n\x1a\n".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "JPEG start only",
            vec![0xff, 0xd8, 0xff],
            ImageError::Undecodable,
        ),
        (
            "JPEG without a frame",
            vec![0xff, 0xd8, 0xff, 0xd9],
            ImageError::Undecodable,
        ),
        (
            "WebP header only",
            b"RIFF\x04\0\0\0WEBP".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "GIF header only",
            b"GIF89a".to_vec(),
            ImageError::Undecodable,
        ),
        ("BMP header only", b"BM".to_vec(), ImageError::Undecodable),
        (
            "TIFF header only",
            b"II*\0".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "TIFF directory beyond",
            b"II*\0\xff\xff\xff\xff".to_vec(),
            ImageError::Undecodable,
        ),
        (
            "huge PNG",
            with(sample("rgba.png"), 16, &[0, 1, 0, 0, 0, 1, 0, 0]),
            too_many(65_536, 65_536),
        ),
        (
            "PNG of 2³² − 1",
            with(sample("rgba.png"), 16, &[0xff; 8]),
            too_many(u32::MAX, u32::MAX),
        ),
        (
            "empty PNG",
            with(sample("rgba.png"), 16, &[0; 4]),
            empty(0, 34),
        ),
        (
            "PNG taller than its data",
            with(sample("rgba.png"), 20, &[0, 0, 1, 0]),
            ImageError::Undecodable,
        ),
        (
            "huge JPEG",
            jpeg_of(65_500, 65_500),
            too_many(65_500, 65_500),
        ),
        ("JPEG of no height", jpeg_of(0, 70), empty(70, 0)),
        ("JPEG of no width", jpeg_of(52, 0), empty(0, 52)),
        (
            "12-bit JPEG",
            with(sample("jpeg_420.jpg"), jpeg_frame + 4, &[12]),
            ImageError::UnsupportedVariant,
        ),
        (
            "lossless JPEG",
            with(sample("jpeg_420.jpg"), jpeg_frame + 1, &[0xc3]),
            ImageError::UnsupportedVariant,
        ),
        (
            "arithmetic JPEG",
            with(sample("jpeg_420.jpg"), jpeg_frame + 1, &[0xc9]),
            ImageError::UnsupportedVariant,
        ),
        (
            "JPEG of 2 components",
            with(sample("jpeg_420.jpg"), jpeg_frame + 9, &[2]),
            ImageError::UnsupportedVariant,
        ),
        (
            "JPEG of 500 scans",
            many_scans(500),
            ImageError::UnsupportedVariant,
        ),
        (
            "huge GIF",
            gif_screen(65_535, 65_535),
            too_many(65_535, 65_535),
        ),
        (
            "GIF without a frame",
            sample("gif.gif")[..13 + 768].to_vec(),
            ImageError::Undecodable,
        ),
        (
            "huge BMP",
            with(sample("bmp.bmp"), 18, &[0, 0, 1, 0, 0, 0, 1, 0]),
            too_many(65_536, 65_536),
        ),
        (
            "empty BMP",
            with(sample("bmp.bmp"), 18, &[0; 4]),
            empty(0, 39),
        ),
        (
            "BMP of negative width",
            with(sample("bmp.bmp"), 18, &[0xff; 4]),
            ImageError::Undecodable,
        ),
        (
            "BMP of the least height",
            with(sample("bmp.bmp"), 22, &[0, 0, 0, 0x80]),
            too_many(52, 1 << 31),
        ),
        ("huge TIFF", tiff_with(256, 1 << 30), too_many(1 << 30, 39)),
        ("empty TIFF", tiff_with(257, 0), empty(52, 0)),
        (
            "TIFF of 65,535 samples",
            tiff_with(277, 65_535),
            ImageError::UnsupportedVariant,
        ),
        (
            "TIFF strips of no rows",
            tiff_with(278, 0),
            ImageError::Undecodable,
        ),
        (
            "TIFF with rows that no strip has",
            tiff_with(278, 1),
            ImageError::Undecodable,
        ),
        (
            "TIFF strip beyond the file",
            tiff_with(273, u32::MAX),
            ImageError::Undecodable,
        ),
        (
            "TIFF of an unknown compression",
            tiff_with(259, 6),
            ImageError::UnsupportedVariant,
        ),
        (
            "huge WebP",
            webp("webp_lossy.webp", 26, &[0xff; 4]),
            too_many(16_383, 16_383),
        ),
        (
            "empty WebP",
            webp("webp_lossy.webp", 26, &[0; 2]),
            empty(0, 39),
        ),
        (
            "huge lossless WebP",
            webp("webp_lossless.webp", 21, &[0xff, 0xff, 0xff, 0x0f]),
            too_many(16_384, 16_384),
        ),
        (
            "WebP canvas unlike its image",
            webp("webp_exif_8.webp", 24, &[0xff; 6]),
            ImageError::Undecodable,
        ),
        (
            "WebP chunk longer than the file",
            webp("webp_lossy.webp", 16, &[0xff; 4]),
            ImageError::Undecodable,
        ),
    ];
    assert!(cases.len() >= 25);
    for (name, encoded, error) in cases {
        assert_eq!(refusal(&encoded, &LIMITS), Some(error), "{name}");
        let message = error.to_string();
        assert!(
            message.is_ascii() || message.contains(['×', '…']),
            "{message}"
        );
    }
}

/// A progressive JPEG that asks for its last scan again and again.
fn many_scans(num: usize) -> Vec<u8> {
    let bytes = sample("jpeg_progressive.jpg");
    let (start, end) = (find(&bytes, &[0xff, 0xda]), bytes.len() - 2);
    let scan = [&[0xff, 0xda, 0, 8, 1, 1, 0, 1, 1, 0x10][..], &[0; 4]].concat();
    [
        &bytes[..start],
        &bytes[start..end],
        &scan.repeat(num),
        &[0xff, 0xd9],
    ]
    .concat()
}

/// The checksum of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Makes the checksums of a PNG's chunks right; they would hide the damage from the decoder.
fn mend_sums(file: &mut [u8]) {
    let mut rest = match file {
        [0x89, b'P', b'N', b'G', _, _, _, _, chunks @ ..] => chunks,
        _ => return,
    };
    while let Some((length, after)) = rest.split_first_chunk_mut::<4>() {
        let end = (u32::from_be_bytes(*length) as usize).saturating_add(4);
        let Some((chunk, after)) = after.split_at_mut_checked(end) else {
            return;
        };
        let Some((sum, after)) = after.split_first_chunk_mut::<4>() else {
            return;
        };
        *sum = crc32(chunk).to_be_bytes();
        rest = after;
    }
}

/// A PNG whose palette has `len` bytes and a right checksum.
fn png_with_palette(name: &str, len: usize) -> Vec<u8> {
    let bytes = sample(name);
    let start = find(&bytes, b"PLTE");
    let stated = bytes[start - 4..start].try_into().expect("four bytes");
    let end = start + 4 + u32::from_be_bytes(stated) as usize;
    let colours = bytes[start + 4..end].iter().cycle().take(len);
    let chunk: Vec<u8> = b"PLTE".iter().chain(colours).copied().collect();
    [
        &bytes[..start - 4],
        &(len as u32).to_be_bytes(),
        &chunk,
        &crc32(&chunk).to_be_bytes(),
        &bytes[end + 4..],
    ]
    .concat()
}

#[test]
fn a_palette_of_any_length_ends_in_an_image_or_an_error() {
    for name in ["palette.png", "palette_alpha.png", "palette_one_clear.png"] {
        let whole = png_with_palette(name, 768);
        assert_eq!(refusal(&whole, &LIMITS), None, "{name}");
        for len in (0..12).chain(750..=773) {
            let refusal = refusal(&png_with_palette(name, len), &LIMITS);
            if len % 3 != 0 {
                assert_eq!(refusal, Some(ImageError::Undecodable), "{name} {len}");
            }
        }
    }
}

#[test]
fn limits_are_inclusive() {
    let encoded = sample("rgb_61x47.png");
    let bytes = encoded.len();
    let limits = |max_bytes, max_pixels| ImageLimits {
        max_bytes,
        max_pixels,
        ..LIMITS
    };
    assert_eq!(refusal(&encoded, &limits(bytes, 61 * 47)), None);
    let max_pixels = 61 * 47 - 1;
    let too_many = ImageError::TooManyPixels {
        width: 61,
        height: 47,
        max_pixels,
    };
    assert_eq!(
        refusal(&encoded, &limits(bytes, max_pixels)),
        Some(too_many)
    );
    let max_bytes = bytes - 1;
    let too_large = ImageError::TooManyBytes { bytes, max_bytes };
    assert_eq!(
        refusal(&encoded, &limits(max_bytes, 61 * 47)),
        Some(too_large)
    );
}

/// One image of each way to decode, and of the turns that follow.
const WAYS: [&str; 16] = [
    "bmp.bmp",
    "exif_6.jpg",
    "gif.gif",
    "interlaced.png",
    "jpeg_420.jpg",
    "jpeg_progressive.jpg",
    "rgb_47x61.png",
    "tiff.tif",
    "tiff_lzw.tif",
    "tiff_exif_6.tif",
    "webp_lossless.webp",
    "webp_lossy.webp",
    "../pillow/jpeg_ycbcr.tif",
    "../pillow/jpeg_cmyk.tif",
    "../pillow/grey.jp2",
    "../pillow/rgba.jp2",
];

#[test]
fn an_image_that_is_not_wanted_any_more_ends_at_the_next_row() {
    let processor = ImageProcessor {
        size: 32,
        resize: ImageFit::Squash,
        limits: LIMITS,
    };
    for name in WAYS {
        let file = sample(name);
        let height = decode(&file, &LIMITS, Cancellation::NEVER)
            .expect(name)
            .height;
        let num_asked = Cell::new(0);
        let process = |num_wanted: usize| {
            num_asked.set(0);
            let is_cancelled = || {
                num_asked.set(num_asked.get() + 1);
                num_asked.get() > num_wanted
            };
            processor.process(&file, Cancellation::when(&is_cancelled))
        };
        assert!(process(usize::MAX).is_ok(), "{name}");
        let times = num_asked.get();
        assert!(
            times >= height,
            "{name}: asked {times} times in {height} rows"
        );
        for num_wanted in 0..times {
            assert_eq!(
                process(num_wanted).err(),
                Some(ImageError::Abandoned),
                "{name}"
            );
            // Once more, to tell a decoder that was stopped from one that met damage.
            let more = num_asked.get() - num_wanted;
            assert!(more <= 2, "{name}: went on for {more} questions");
        }
    }
}

#[test]
fn a_thin_image_is_refused_whatever_is_in_it() {
    // A sample of 61 × 47 whose header says otherwise, so that only the header can be judged.
    let png = |width: u32, height: u32| {
        let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
        with(sample("rgb_61x47.png"), 16, &sides)
    };
    let thin = |width, height| ImageError::TooThin {
        width,
        height,
        max_ratio: 200,
    };
    let long = |width, height| ImageError::SideTooLong {
        width,
        height,
        max_side: 1 << 15,
    };
    for (width, height, error) in [
        (1, 201, thin(1, 201)),
        (201, 1, thin(201, 1)),
        (10, 2001, thin(10, 2001)),
        (60, 32_769, long(60, 32_769)),
        (32_769, 60, long(32_769, 60)),
        (1, 2_000_000, long(1, 2_000_000)),
        (10, 2000, ImageError::Undecodable),
        (2000, 10, ImageError::Undecodable),
    ] {
        let refused = refusal(&png(width, height), &LIMITS);
        assert_eq!(refused, Some(error), "{width}×{height}");
    }
}

fn samples() -> Vec<(String, Vec<u8>)> {
    samples_in("images")
}

/// The files of a folder of goldens.
fn samples_in(folder: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(golden::path(folder)).expect("goldens are there");
    let mut samples: Vec<_> = files
        .map(|entry| {
            entry
                .expect("goldens can be read")
                .file_name()
                .into_string()
        })
        .map(|name| name.expect("goldens have plain names"))
        .filter(|name| !name.starts_with("expected"))
        .map(|name| {
            let file = golden::path(&format!("{folder}/{name}"));
            (name, fs::read(file).expect("goldens can be read"))
        })
        .collect();
    samples.sort();
    assert!(samples.len() > 50, "only {} samples", samples.len());
    samples
}

#[test]
fn a_file_that_ends_early_is_refused() {
    for (name, whole) in samples() {
        // Ends that cut into the first image of every sample, also of those with a second one and of
        // those with a pixel or two, whose trailers are as long as their images.
        let is_short = name.contains("two") || whole.len() < 100;
        let all_but = whole.len() / if is_short { 2 } else { 10 };
        for part in 0..24 {
            let cut = (whole.len() - all_but) * part / 24;
            let refused = refusal(&whole[..cut], &LIMITS);
            assert!(refused.is_some(), "{name}: {cut} of {} bytes", whole.len());
        }
        for cut in (whole.len() - all_but.min(16))..whole.len() {
            // May be whole without its trailer; must not panic.
            let _ = refusal(&whole[..cut], &LIMITS);
        }
        if name.ends_with(".jpg") {
            let refused = refusal(&whole[..whole.len() - 2], &LIMITS);
            assert_eq!(
                refused,
                Some(ImageError::Undecodable),
                "{name} without its end marker"
            );
        }
    }
}

#[test]
fn no_damage_makes_a_decoder_panic() {
    let small: Vec<_> = samples()
        .into_iter()
        .chain(samples_in("pillow"))
        .filter(|(_, whole)| whole.len() < 12_000)
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let (mut num_refused, num_files) = (0, 8000);
    for round in 0..num_files {
        let (_, whole) = &small[round % small.len()];
        let mut damaged = whole.clone();
        // Headers decide most: half of the damage goes there.
        let reach = if random(2) == 0 {
            damaged.len()
        } else {
            damaged.len().min(200)
        };
        for _ in 0..1 + random(6) {
            damaged[random(reach)] = [0, 0xff, random(256) as u8][random(3)];
        }
        if random(4) == 0 {
            damaged.truncate(1 + random(damaged.len()));
        }
        if random(2) == 0 {
            mend_sums(&mut damaged);
        }
        num_refused += usize::from(refusal(&damaged, &LIMITS).is_some());
    }
    assert!(
        num_refused > num_files / 4,
        "only {num_refused} of {num_files} were refused"
    );
}
