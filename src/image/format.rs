//! Detects a file's format from its magic bytes.
//!
//! A new format needs: a variant here, its size in `header`, its EXIF and XMP in `metadata`, a decoder
//! in `decode` (`decode_as` and `decoding_bytes`), its number of images in `plain_image`, and its name in two
//! messages of `crate::error::ImageError` (`UnknownFormat` and `BadDataUri`).

use super::jpeg2000;
use crate::error::ImageError;

/// The supported formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
    /// GIF.
    Gif,
    /// BMP.
    Bmp,
    /// TIFF, also BigTIFF.
    Tiff,
    /// JPEG 2000, in boxes or bare.
    Jpeg2000,
}

impl Format {
    /// Returns its name: `png`, `jpeg` …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Jpeg2000 => "jpeg2000",
        }
    }

    /// Detects the format by content; the media type that a client declares is ignored.
    pub(super) fn sniff(encoded: &[u8]) -> Option<Self> {
        match encoded {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Some(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            _ if encoded.starts_with(&jpeg2000::BOXES)
                || encoded.starts_with(&jpeg2000::CODESTREAM) =>
            {
                Some(Self::Jpeg2000)
            }
            _ => None,
        }
    }
}

/// Returns why a file of no known format is refused.
pub(super) fn refusal(encoded: &[u8]) -> ImageError {
    /// Bytes that are looked at.
    const HEAD: usize = 512;
    if encoded.starts_with(b"%PDF-") {
        return ImageError::Pdf;
    }
    let head = &encoded[..encoded.len().min(HEAD)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut off.
        Err(error) if error.valid_up_to() + 4 > HEAD => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => "",
    };
    let is_written = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    // Markup may be an image of a kind that is not read, such as SVG.
    let is_text = !text.is_empty() && !text.trim_start().starts_with('<');
    match is_text && text.chars().all(is_written) {
        true => ImageError::PlainText,
        false => ImageError::UnknownFormat,
    }
}

/// Returns the name of a format of images that is known and not read.
pub(super) fn unread(encoded: &[u8]) -> Option<&'static str> {
    match encoded {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4)? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                Some("HEIC")
            }
            _ => None,
        },
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        [0, 0, 1, 0, ..] => Some("ICO"),
        [b'8', b'B', b'P', b'S', ..] => Some("PSD"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_from_images() {
        let long = format!("{}é", "a".repeat(511));
        for (file, refused) in [
            (&b"%PDF-1.7\n%\xe2\xe3"[..], ImageError::Pdf),
            (b"Findings: none.\r\n", ImageError::PlainText),
            ("Über".as_bytes(), ImageError::PlainText),
            (long.as_bytes(), ImageError::PlainText),
            (b"<svg xmlns", ImageError::UnknownFormat),
            (b"\0\0\0", ImageError::UnknownFormat),
            (b"ab\xffcd", ImageError::UnknownFormat),
            (b"", ImageError::UnknownFormat),
        ] {
            assert_eq!(refusal(file), refused, "{file:?}");
        }
    }

    #[test]
    fn told_by_content() {
        for (head, format) in [
            (&b"\x89PNG\r\n\x1a\n"[..], Some(Format::Png)),
            (b"\xff\xd8\xff\xe0", Some(Format::Jpeg)),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some(Format::WebP)),
            (b"GIF89a", Some(Format::Gif)),
            (b"BM", Some(Format::Bmp)),
            (b"II*\0", Some(Format::Tiff)),
            (b"MM\0+", Some(Format::Tiff)),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Some(Format::Jpeg2000)),
            (b"\xff\x4f\xff\x51\0/", Some(Format::Jpeg2000)),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"<svg xmlns", None),
            (b"%PDF-1.7", None),
            (b"", None),
        ] {
            assert_eq!(Format::sniff(head), format, "{head:?}");
        }
    }
}
