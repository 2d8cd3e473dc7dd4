//! A file that a client sent, opened: how many images it becomes is known, and none is decoded yet.
//!
//! ```text
//! encoded bytes ──open──▶ Source ──image(frame)──▶ Raster ─┬─ fit ───────▶ PixelValues
//!                 checks, labels    one at a time           └─ crops, fit ▶ PixelValues …
//!                 number of crops
//! ```
//!
//! A prompt is rendered before its files are decoded, so it must be known then how many images a
//! file becomes and what is written beside each. Frames are decoded one after the other, so that
//! memory is bounded by one of them. A new kind of file is a variant of [`File`] here.

use super::cancellation::Cancellation;
use super::decode::check_bytes;
use super::dicom::{DicomFile, is_dicom};
use super::pan_and_scan::crops;
use super::plain_image::PlainImage;
use super::processor::ImageProcessor;
use super::raster::Raster;
use super::report::{MediaReport, Warning, Warnings};
use crate::core::{PixelValues, Preparation};
use crate::error::ImageError;

/// An opened file.
pub struct Source {
    file: File,
    preparation: Preparation,
    processor: ImageProcessor,
    frames: Vec<Frame>,
}

/// The kinds of files.
enum File {
    /// PNG, JPEG and the others that become one image.
    Plain(PlainImage),
    /// An object of a hospital's archive, with one frame or several.
    Dicom(Box<DicomFile>),
}

/// One frame of a file, as it stands in the prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Text that follows the image in the prompt, such as `SLICE 3`.
    pub label: Option<String>,
    /// Number of crops that stand beside the image.
    pub num_crops: usize,
}

/// What [`Source::prepare`] makes of a frame.
#[derive(Debug)]
pub struct PreparedFrame {
    /// The whole frame, then its crops.
    pub pixels: Vec<PixelValues>,
    /// What a reader of the answer should know about it.
    pub warnings: Warnings,
}

impl std::fmt::Debug for Source {
    // Never the file: an image must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("num_frames", &self.frames.len())
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens a file: checks all that can be checked without decoding a frame, and finds out how
    /// many images it becomes. `processor` prepares them, with the fit that `preparation` says.
    ///
    /// # Errors
    /// [`ImageError`] for what its bytes and its header forbid.
    pub fn open(
        encoded: Vec<u8>,
        processor: &ImageProcessor,
        preparation: Preparation,
        cancellation: Cancellation<'_>,
    ) -> Result<Self, ImageError> {
        cancellation.check()?;
        let file = match is_dicom(&encoded) {
            true => {
                check_bytes(encoded.len(), &processor.limits)?;
                let file = DicomFile::open(encoded, &processor.limits, &preparation)?;
                File::Dicom(Box::new(file))
            }
            false => File::Plain(PlainImage::open(encoded, processor.limits)?),
        };
        let num_crops = |size| match &preparation.pan_and_scan {
            Some(settings) => crops(size, settings).len(),
            None => 0,
        };
        let frames = match &file {
            File::Plain(image) => vec![Frame {
                label: None,
                num_crops: num_crops(image.size()),
            }],
            File::Dicom(file) => {
                let frame = Frame {
                    label: None,
                    num_crops: num_crops(file.size()),
                };
                vec![frame; file.num_shown()]
            }
        };
        Ok(Self {
            processor: ImageProcessor {
                resize: preparation.fit,
                ..*processor
            },
            file,
            preparation,
            frames,
        })
    }

    /// Returns the frames that are shown, in order; never empty.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Returns the number of images that the model sees, crops included.
    pub fn num_images(&self) -> usize {
        let of_frames = self.frames.iter().map(|frame| 1 + frame.num_crops);
        of_frames.sum()
    }

    /// Returns the memory that the file holds while it is open, besides its encoded bytes.
    pub fn unpacked_bytes(&self) -> u64 {
        match &self.file {
            File::Plain(_) => 0,
            File::Dicom(file) => file.unpacked_bytes(),
        }
    }

    /// Returns the memory that [`Self::prepare`] takes for a frame, for as long as it lasts, at most.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn decoding_bytes(&self, frame_idx: usize) -> u64 {
        let decoding = match &self.file {
            File::Plain(image) => image.decoding_bytes(),
            File::Dicom(file) => file.decoding_bytes(frame_idx),
        };
        decoding + self.processor.prepared_bytes()
    }

    /// Decodes one frame, as it is shown, before it is made square.
    ///
    /// # Errors
    /// [`ImageError`] with a fixed text, as [`super::decode`].
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn image(
        &self,
        frame_idx: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<Raster, ImageError> {
        assert!(frame_idx < self.frames.len(), "a frame of this file");
        match &self.file {
            File::Plain(image) => image.decode(cancellation),
            File::Dicom(file) => file.image(frame_idx, cancellation),
        }
    }

    /// Decodes one frame and prepares it with its crops. Takes milliseconds to seconds of one core.
    ///
    /// # Errors
    /// The errors of [`Self::image`].
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn prepare(
        &self,
        frame_idx: usize,
        cancellation: Cancellation<'_>,
    ) -> Result<PreparedFrame, ImageError> {
        let raster = self.image(frame_idx, cancellation)?;
        let mut warnings = Warnings::new();
        if raster.is_stretched {
            warnings.insert(Warning::Stretched);
        }
        if raster.is_nearly_black() {
            warnings.insert(Warning::NearlyBlack);
        }
        let mut pixels = vec![self.processor.prepare(&raster, cancellation)?];
        if let Some(settings) = &self.preparation.pan_and_scan {
            for crop in crops((raster.width, raster.height), settings) {
                let part = raster.part((crop.left, crop.top), (crop.width, crop.height));
                pixels.push(self.processor.prepare(&part, cancellation)?);
            }
        }
        // The prompt has places for what the header said.
        if pixels.len() != 1 + self.frames[frame_idx].num_crops {
            return Err(ImageError::Undecodable);
        }
        Ok(PreparedFrame { pixels, warnings })
    }

    /// Returns what became of the file, as far as it is known without decoding; what
    /// [`Self::prepare`] warns of comes to it.
    pub fn report(&self) -> MediaReport {
        let mut report = match &self.file {
            File::Plain(image) => image.report(),
            File::Dicom(file) => file.report(),
        };
        report.images = self.num_images();
        report.fit = self.preparation.fit;
        if self.frames.len() < report.of {
            report.warnings.insert(Warning::NotAllImages);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::ImageLimits;
    use super::*;
    use crate::core::{ImageFit, PanAndScan};

    const PROCESSOR: ImageProcessor = ImageProcessor {
        size: 32,
        resize: ImageFit::Squash,
        limits: ImageLimits {
            max_bytes: 50 << 20,
            max_pixels: 64 << 20,
            max_side: 32_768,
            max_ratio: 200,
        },
    };

    fn open(file: &[u8], preparation: Preparation) -> Source {
        let opened = Source::open(file.to_vec(), &PROCESSOR, preparation, Cancellation::NEVER);
        opened.expect("it is sound")
    }

    macro_rules! golden {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/golden/images/", $name))
        };
    }

    #[test]
    fn a_file_is_one_image_and_is_as_it_is_processed_alone() {
        let file = golden!("rgb_1792x896.png");
        let source = open(file, Preparation::default());
        assert_eq!(source.frames(), [Frame::default()]);
        let frame = source.prepare(0, Cancellation::NEVER).expect("it is sound");
        let alone = PROCESSOR.process(file, Cancellation::NEVER);
        let alone = alone.expect("it is sound");
        assert_eq!(frame.pixels.len(), 1);
        assert_eq!(frame.pixels[0].hash, alone.hash);
        assert!(frame.warnings.is_empty());
        assert_eq!(source.report().images, 1);
    }

    #[test]
    fn crops_stand_beside_a_long_image_however_it_is_turned() {
        let preparation = Preparation {
            pan_and_scan: Some(PanAndScan {
                min_crop_size: 10,
                ..PanAndScan::default()
            }),
            ..Preparation::default()
        };
        // 40 × 24 as stored, and turned on its side: 24 / 40 is far from square either way.
        for file in [&golden!("exif_1.jpg")[..], golden!("exif_6.jpg")] {
            let source = open(file, preparation.clone());
            assert_eq!(source.frames()[0].num_crops, 2);
            let frame = source.prepare(0, Cancellation::NEVER).expect("it is sound");
            assert_eq!(frame.pixels.len(), source.num_images());
            let whole = source.image(0, Cancellation::NEVER).expect("it is sound");
            let half = match whole.width > whole.height {
                true => whole.part((20, 0), (20, 24)),
                false => whole.part((0, 20), (24, 20)),
            };
            let half = PROCESSOR.prepare(&half, Cancellation::NEVER);
            let half = half.expect("it is not cancelled");
            assert_eq!(frame.pixels[2].hash, half.hash);
        }
    }

    #[test]
    fn another_fit_is_another_image() {
        let file = golden!("rgb_61x47.png");
        let hash = |fit| {
            let preparation = Preparation {
                fit,
                ..Preparation::default()
            };
            let frame = open(file, preparation).prepare(0, Cancellation::NEVER);
            frame.expect("it is sound").pixels[0].hash
        };
        assert_ne!(hash(ImageFit::Squash), hash(ImageFit::Pad));
    }

    #[test]
    fn a_report_says_what_is_known() {
        for (file, kind, of, warnings) in [
            (&golden!("grey.png")[..], "png", 1, &[][..]),
            (golden!("jpeg_420.jpg"), "jpeg", 1, &[Warning::LossySource]),
            (
                golden!("webp_lossy.webp"),
                "webp",
                1,
                &[Warning::LossySource],
            ),
            (golden!("webp_lossless.webp"), "webp", 1, &[]),
            (
                golden!("gif_two_frames.gif"),
                "gif",
                2,
                &[Warning::NotAllImages],
            ),
            (
                golden!("tiff_two_pages.tif"),
                "tiff",
                2,
                &[Warning::NotAllImages],
            ),
            (golden!("tiff.tif"), "tiff", 1, &[]),
            (golden!("bmp.bmp"), "bmp", 1, &[]),
        ] {
            let report = open(file, Preparation::default()).report();
            let found: Vec<_> = report.warnings.into_iter().collect();
            assert_eq!((report.kind, report.of), (kind, of));
            assert_eq!(found, warnings, "{kind}");
        }
    }

    #[test]
    fn a_stretched_image_is_told_from_others() {
        for (file, expected) in [
            (&golden!("grey16_dark.png")[..], &[Warning::Stretched][..]),
            (golden!("grey16.png"), &[]),
        ] {
            let frame = open(file, Preparation::default()).prepare(0, Cancellation::NEVER);
            let warnings = frame.expect("it is sound").warnings;
            assert_eq!(warnings.into_iter().collect::<Vec<_>>(), expected);
        }
    }
}
