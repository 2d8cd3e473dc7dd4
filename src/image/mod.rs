//! Converts images from the bytes that a client sends to the vision encoder's input.
//!
//! ```text
//! data: URI ─data_uri▶ encoded bytes ──decode──▶ Raster ──processor──▶ PixelValues
//!                                      format    8-bit     resize       size×size RGB
//!                                      header    grey or   hash         + 256-bit hash
//!                                      jpeg …    RGB
//! ```
//!
//! `source` opens a file before any of it is decoded, and finds out how many images it becomes.
//!
//! The reference is Pillow 13 and transformers 5.23 (`image_transforms.convert_to_rgb`,
//! `Gemma3ImageProcessor`); where a file says that it differs, it says why.
//!
//! Nothing here knows of HTTP, prompts or models. Everything is synchronous and bound by the
//! CPU: callers keep it off their async threads. An image's bytes, its text and a decoder's own
//! words never reach an error, a log or `Debug`.

mod cancellation;
pub mod data_uri;
mod decode;
mod depth;
mod dicom;
mod encoded_file;
mod format;
mod gif;
mod header;
mod ifd;
mod jpeg;
mod jpeg2000;
mod metadata;
mod orientation;
mod pan_and_scan;
mod plain_image;
mod png;
mod processor;
mod raster;
mod report;
mod resize;
mod source;
mod tiff;

pub use cancellation::Cancellation;
pub use decode::{ImageLimits, decode};
pub use format::Format;
pub use processor::ImageProcessor;
pub use raster::{Raster, Samples};
pub use report::{MediaReport, ShownWindow, Warning, Warnings};
pub use source::{Frame, PreparedFrame, Source};
