//! How a file's elements are written and how its frames are compressed.

/// A transfer syntax of DICOM PS3.5 section 10 whose images are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransferSyntax {
    /// How elements are written.
    pub(super) encoding: Encoding,
    /// How each frame's samples are stored.
    pub(super) compression: Compression,
}

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Little endian, elements without their value representation.
    ImplicitLittle,
    /// Little endian, elements with their value representation.
    ExplicitLittle,
    /// Big endian, elements with their value representation.
    ExplicitBig,
    /// As [`Self::ExplicitLittle`], and all after the file's meta group is one raw Deflate stream.
    DeflatedLittle,
}

/// How each frame's samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// Uncompressed, all frames in one value.
    Native,
    /// Uncompressed, each frame in fragments.
    EncapsulatedNative,
    /// Each frame is a raw Deflate stream.
    DeflatedFrames,
    /// Byte planes, each run-length encoded (PS3.5 annex G).
    Rle,
    /// JPEG with 8 bits: baseline, extended or progressive.
    Jpeg,
    /// JPEG lossless with any predictor.
    JpegLossless,
    /// JPEG-LS, without loss or nearly so.
    JpegLs,
    /// JPEG 2000, also of its parts 2 and 15, without loss or with it.
    Jpeg2000,
    /// JPEG XL.
    JpegXl,
}

impl TransferSyntax {
    /// DICOM's default: uncompressed, little endian, without value representations.
    pub(super) const IMPLICIT_LITTLE: Self = Self {
        encoding: Encoding::ImplicitLittle,
        compression: Compression::Native,
    };

    /// Returns the syntax of a UID without its padding, or the name of one that is known and not
    /// read.
    pub(super) fn of_uid(uid: &str) -> Result<Self, &'static str> {
        let suffix = uid.strip_prefix("1.2.840.10008.1.2");
        let compression = match suffix {
            Some("") => return Ok(Self::IMPLICIT_LITTLE),
            Some(".1") => Compression::Native,
            Some(".1.98") => Compression::EncapsulatedNative,
            Some(".1.99") => {
                return Ok(Self {
                    encoding: Encoding::DeflatedLittle,
                    compression: Compression::Native,
                });
            }
            Some(".2") => {
                return Ok(Self {
                    encoding: Encoding::ExplicitBig,
                    compression: Compression::Native,
                });
            }
            Some(".5") => Compression::Rle,
            Some(".8.1") => Compression::DeflatedFrames,
            Some(".4.50" | ".4.51" | ".4.53" | ".4.55") => Compression::Jpeg,
            Some(".4.57" | ".4.70") => Compression::JpegLossless,
            Some(".4.80" | ".4.81") => Compression::JpegLs,
            Some(".4.90" | ".4.91" | ".4.92" | ".4.93" | ".4.201" | ".4.202" | ".4.203") => {
                Compression::Jpeg2000
            }
            Some(".4.110" | ".4.111" | ".4.112") => Compression::JpegXl,
            _ => return Err(Self::name_of_unread(suffix)),
        };
        Ok(Self {
            encoding: Encoding::ExplicitLittle,
            compression,
        })
    }

    fn name_of_unread(suffix: Option<&str>) -> &'static str {
        match suffix {
            Some(".4.94" | ".4.95" | ".4.204" | ".4.205") => {
                "pixels that stay on another server (JPIP)"
            }
            Some(".4.100" | ".4.100.1" | ".4.101" | ".4.101.1") => "MPEG-2 video",
            Some(
                ".4.102" | ".4.102.1" | ".4.103" | ".4.103.1" | ".4.104" | ".4.104.1" | ".4.105"
                | ".4.105.1" | ".4.106" | ".4.106.1",
            ) => "H.264 video",
            Some(".4.107" | ".4.108") => "H.265 video",
            Some(_) => "a retired or future transfer syntax",
            None => "a private transfer syntax",
        }
    }
}
