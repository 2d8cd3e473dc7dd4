//! Where each container keeps its EXIF block and its XMP packet.
//!
//! Walks the container's own structure over a slice, so nothing is allocated or decompressed for
//! it and no length in a file is believed. Knows nothing of what EXIF and XMP mean.

use super::format::Format;

/// EXIF (a TIFF structure) and XMP (XML), as far as the file has them.
#[derive(Default)]
pub(super) struct Metadata<'a> {
    pub(super) exif: Option<&'a [u8]>,
    pub(super) xmp: Option<&'a [u8]>,
}

/// Finds them; a damaged container yields what came before the damage.
///
/// Not looked for: XMP that a PNG keeps compressed, and EXIF that old software wrote into a PNG's
/// text ("Raw profile type exif").
pub(super) fn find(format: Format, encoded: &[u8]) -> Metadata<'_> {
    match format {
        Format::Jpeg => in_jpeg(encoded),
        Format::Png => in_png(encoded),
        Format::WebP => in_webp(encoded),
        // A TIFF file is itself what EXIF is made of.
        Format::Tiff => Metadata {
            exif: Some(encoded),
            xmp: None,
        },
        Format::Gif | Format::Bmp | Format::Jpeg2000 => Metadata::default(),
    }
}

fn in_jpeg(encoded: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    for segment in jpeg_segments(encoded) {
        match segment.marker {
            0xe1 => {
                if let Some(exif) = segment.payload.strip_prefix(b"Exif\0\0") {
                    found.exif.get_or_insert(exif);
                } else if let Some(xmp) = segment
                    .payload
                    .strip_prefix(b"http://ns.adobe.com/xap/1.0/\0")
                {
                    found.xmp.get_or_insert(xmp);
                }
            }
            0xda => break,
            _ => {}
        }
    }
    found
}

/// One marker segment of a JPEG file.
pub(super) struct JpegSegment<'a> {
    /// The byte after `0xff`.
    pub(super) marker: u8,
    /// What follows the length; empty for markers that have none.
    pub(super) payload: &'a [u8],
}

/// All marker segments to the end of the image, those between and after scans too.
pub(super) fn jpeg_segments(encoded: &[u8]) -> impl Iterator<Item = JpegSegment<'_>> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        loop {
            // Entropy-coded bytes and stray bytes lie between markers; a coded 0xff is followed by
            // 0, and 0xff may be repeated as a filler.
            let start = rest.iter().position(|&b| b == 0xff)?;
            rest = &rest[start..];
            let marker = rest.iter().position(|&b| b != 0xff)?;
            let code = rest[marker];
            rest = &rest[marker + 1..];
            match code {
                0x00 | 0x01 | 0xd0..=0xd8 => {}
                0xd9 => {
                    rest = &[];
                    return Some(JpegSegment {
                        marker: code,
                        payload: &[],
                    });
                }
                _ => {
                    let (length, after) = rest.split_first_chunk::<2>()?;
                    let length = usize::from(u16::from_be_bytes(*length)).checked_sub(2)?;
                    let payload = after.get(..length)?;
                    rest = &after[length..];
                    return Some(JpegSegment {
                        marker: code,
                        payload,
                    });
                }
            }
        }
    })
}

fn in_png(encoded: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    for chunk in png_chunks(encoded) {
        match chunk.kind {
            b"eXIf" => {
                found.exif.get_or_insert(chunk.data);
            }
            b"iTXt" => {
                // keyword, compressed?, method, language, translated keyword, text
                if let Some(text) = chunk.data.strip_prefix(b"XML:com.adobe.xmp\0\0\0") {
                    found.xmp.get_or_insert(text);
                }
            }
            _ => {}
        }
    }
    found
}

/// One chunk of a PNG file.
pub(super) struct PngChunk<'a> {
    pub(super) kind: &'a [u8; 4],
    pub(super) data: &'a [u8],
}

/// The chunks of a PNG file, its checksums unread; ends at the first that does not fit.
pub(super) fn png_chunks(encoded: &[u8]) -> impl Iterator<Item = PngChunk<'_>> {
    let mut rest = encoded.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let data = after.get(..u32::from_be_bytes(*length) as usize)?;
        rest = after.get(data.len() + 4..).unwrap_or_default();
        Some(PngChunk { kind, data })
    })
}

fn in_webp(encoded: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    for chunk in riff_chunks(encoded.get(12..).unwrap_or_default()) {
        match chunk.kind {
            b"EXIF" => {
                // Some writers keep the JPEG's prefix.
                let exif = chunk.data.strip_prefix(b"Exif\0\0").unwrap_or(chunk.data);
                found.exif.get_or_insert(exif);
            }
            b"XMP " => {
                found.xmp.get_or_insert(chunk.data);
            }
            _ => {}
        }
    }
    found
}

/// One chunk of a RIFF list.
pub(super) struct RiffChunk<'a> {
    pub(super) kind: &'a [u8; 4],
    pub(super) data: &'a [u8],
}

/// The chunks of a RIFF list; ends at the first that does not fit.
pub(super) fn riff_chunks(list: &[u8]) -> impl Iterator<Item = RiffChunk<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (kind, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = after.get(..length)?;
        rest = after
            .get(length.checked_add(length % 2)?..)
            .unwrap_or_default();
        Some(RiffChunk { kind, data })
    })
}
