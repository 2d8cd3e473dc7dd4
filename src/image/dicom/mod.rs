//! DICOM files.

mod codec;
mod pixel_format;
mod transfer_syntax;
