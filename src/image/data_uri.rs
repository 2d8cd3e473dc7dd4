//! Decodes the data URI of an image.
//!
//! Only `data:` URLs: the image comes with the request, and nothing is ever fetched from a
//! network or a disk because a request names it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::decode::ImageLimits;
use crate::error::ImageError;

const PADDING_OPTIONAL: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OPTIONAL);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OPTIONAL);

/// Decodes `data:[<media type>];base64,<data>`.
///
/// The standard and the URL-safe alphabet, with or without padding, with line breaks or without.
/// The media type is not looked at: content decides.
///
/// # Errors
/// [`ImageError::Remote`] for http and https, [`ImageError::NotADataUri`] for everything else that
/// is not `data:`, [`ImageError::BadDataUri`] for one that is not base64 (percent-encoded data
/// too), [`ImageError::TooManyBytes`], before anything is decoded.
pub fn from_data_uri(uri: &str, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
    let uri = uri.trim();
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") {
        return Err(ImageError::Remote);
    }
    if !scheme.eq_ignore_ascii_case("data") {
        return Err(ImageError::NotADataUri);
    }
    let (declared, data) = uri.split_once(',').ok_or(ImageError::BadDataUri)?;
    let encoding = declared
        .rsplit_once(';')
        .map_or("", |(_, encoding)| encoding);
    if !encoding.trim().eq_ignore_ascii_case("base64") {
        return Err(ImageError::BadDataUri);
    }
    let data = without_whitespace(data);
    let bytes = data.trim_end_matches('=').len() * 3 / 4;
    let max_bytes = limits.max_bytes;
    if bytes > max_bytes {
        return Err(ImageError::TooManyBytes { bytes, max_bytes });
    }
    let engine = if data.contains(['-', '_']) {
        URL_SAFE
    } else {
        STANDARD
    };
    match engine.decode(&*data) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(ImageError::BadDataUri),
    }
}

fn without_whitespace(data: &str) -> Cow<'_, str> {
    if data.contains(|c: char| c.is_ascii_whitespace()) {
        Cow::Owned(data.split_ascii_whitespace().collect())
    } else {
        Cow::Borrowed(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(uri: &str) -> Result<Vec<u8>, ImageError> {
        from_data_uri(
            uri,
            &ImageLimits {
                max_bytes: 6,
                ..ImageLimits::default()
            },
        )
    }

    #[test]
    fn base64_in_its_usual_forms() {
        for uri in [
            "data:image/png;base64,+/+/AQ==",
            "data:image/png;base64,+/+/AQ",
            "data:image/png;base64,-_-_AQ",
            "data:image/png;base64,-_-_AQ==",
            "data:image/png;base64,+/+/\r\n AQ==\n",
            "data:;base64,+/+/AQ==",
            "data:text/plain;charset=x;base64,+/+/AQ==",
            "  DATA:image/png;BASE64,+/+/AQ==",
        ] {
            assert_eq!(fetch(uri), Ok(vec![0xfb, 0xff, 0xbf, 1]), "{uri}");
        }
    }

    #[test]
    fn what_is_not_base64_is_malformed() {
        for uri in [
            "data:",
            "data:,",
            "data:image/png",
            "data:image/png;base64",
            "data:image/png;base64,",
            "data:image/png;base64, \n",
            "data:image/png;base64,====",
            "data:image/png;base64,A",
            "data:image/png;base64,AAA*",
            "data:image/png;base64,AA=A",
            "data:image/png;base64,+_+_",
            "data:image/png;base64,AB",
            "data:image/png;base64,%2B%2F",
            "data:image/png;base64,AAAÄ",
            "data:image/svg+xml,%3Csvg%3E",
            "data:base64,AAAA",
        ] {
            assert_eq!(fetch(uri), Err(ImageError::BadDataUri), "{uri}");
        }
    }

    #[test]
    fn nothing_is_fetched() {
        for uri in [
            "http://example.com/a.png",
            "https://example.com/",
            "HTTPS://x",
            " http:",
        ] {
            assert_eq!(fetch(uri), Err(ImageError::Remote), "{uri}");
        }
        for uri in [
            "file:///etc/passwd",
            "ftp://x/y",
            "/etc/passwd",
            "a.png",
            "",
            "iVBORw0KGgo=",
        ] {
            assert_eq!(fetch(uri), Err(ImageError::NotADataUri), "{uri}");
        }
    }

    #[test]
    fn size_is_told_before_decoding() {
        assert_eq!(fetch("data:;base64,AAAAAAAA"), Ok(vec![0; 6]));
        // Not even base64: only its length has been looked at.
        let too_large = ImageError::TooManyBytes {
            bytes: 9,
            max_bytes: 6,
        };
        assert_eq!(fetch("data:;base64,************"), Err(too_large));
    }
}
