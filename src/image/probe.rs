//! Finds out what a file contains from its first bytes.
//!
//! A prompt is rendered before its files are decoded, so it must be known then how many images a
//! file becomes and what is written beside each.

use super::format::Format;

/// Number of bytes at the start of a file that are enough for this.
pub const PROBED_BYTES: usize = 1024;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaProbe {
    /// The file's format; `None` if it is not known, which decoding will report.
    pub format: Option<Format>,
    /// The images that the file becomes, in order; never empty.
    pub frames: Vec<Frame>,
}

/// One image of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Text that follows the image in the prompt, such as `SLICE 3`.
    pub label: Option<String>,
}

/// Finds out what a file contains from its first [`PROBED_BYTES`] bytes. Every format that is read
/// today becomes one image without a label: of an animation or a document, the first.
pub fn probe(head: &[u8]) -> MediaProbe {
    MediaProbe {
        format: Format::sniff(head),
        frames: vec![Frame::default()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_format_is_one_image() {
        for (head, format) in [
            (&b"\x89PNG\r\n\x1a\n"[..], Some(Format::Png)),
            (b"GIF89a", Some(Format::Gif)),
            (b"%PDF-1.7", None),
        ] {
            let MediaProbe {
                format: told,
                frames,
            } = probe(head);
            assert_eq!((told, frames), (format, vec![Frame { label: None }]));
        }
    }
}
