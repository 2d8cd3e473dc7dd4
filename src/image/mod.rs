//! Converts images from the bytes that a client sends to the vision encoder's input.
//!
//! ```text
//! data: URI ─data_uri▶ encoded bytes ──decode──▶ Raster ──processor──▶ PixelValues
//!                                      format    8-bit     resize       size×size RGB
//!                                      header    grey or   hash         + 256-bit hash
//!                                      jpeg …    RGB
//! ```
//!
//! Before all of this, `probe` finds out from the first bytes how many images a file becomes.
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
mod png;
mod probe;
mod processor;
mod raster;
mod resize;
mod tiff;

pub use cancellation::Cancellation;
pub use decode::{ImageLimits, decode};
pub use format::Format;
pub use probe::{Frame, MediaProbe, PROBED_BYTES, probe};
pub use processor::ImageProcessor;
pub use raster::{Raster, Samples};
