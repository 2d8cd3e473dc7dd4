//! Decodes and prepares the images of a request's opened files off the async threads, each frame on
//! its own.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::media::{MediaPlace, OpenedFile, OpenedMedia};
use crate::api::http::error::ApiError;
use crate::api::http::request_memory::{Charge, RequestMemory};
use crate::api::http::state::AppState;
use crate::core::PixelValues;
use crate::error::ImageError;
use crate::image::{
    Cancellation, ImageProcessor, MediaReport, PreparedFrame, Source, Warning, Warnings,
};

/// Images that are ready for the engine.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// In the order of their places in the prompt.
    pub(crate) pixels: Vec<PixelValues>,
    /// What became of the files, in the order of their places.
    pub(crate) inputs: Vec<Input>,
    /// The memory charged for them.
    pub(crate) held: Vec<Charge>,
}

/// A file of the prompt and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    /// The file's path in the request.
    pub(crate) param: String,
    pub(crate) report: MediaReport,
}

/// Where the text of a prompt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastPart {
    /// A text of the client's.
    Text,
    /// An image: models then tend to ignore the text before several images.
    Image,
}

/// Returns the pixels of all images, in order.
///
/// # Errors
/// 400 for the first invalid file; 503 or 413 if there is not enough memory.
pub(crate) async fn decode_all(
    media: OpenedMedia,
    last: LastPart,
    processor: &ImageProcessor,
    app: &AppState,
) -> Result<Images, ApiError> {
    let num_shown = media.num_images();
    let is_series = media.num_frames() > 1;
    let OpenedMedia {
        files,
        places,
        held: held_by_files,
    } = media;
    if places.is_empty() {
        return Ok(Images::default());
    }
    let place_of = |file_idx: usize| {
        let place = places.iter().find(|place| place.file_idx == file_idx);
        place.map_or("messages", |place| &place.param)
    };
    let mut sources: Vec<Arc<Source>> = Vec::with_capacity(files.len());
    for (file_idx, file) in files.into_iter().enumerate() {
        match file {
            OpenedFile::Read(source) => sources.push(source),
            OpenedFile::Unread { error, .. } => {
                return Err(ApiError::from(error).at(place_of(file_idx)));
            }
        }
    }
    let num_images: usize = sources.iter().map(|source| source.num_images()).sum();
    let mut held = app.request_memory().charge();
    held.hold_more(num_images as u64 * processor.prepared_bytes())?;
    let mut frames = Vec::with_capacity(num_images);
    for (file_idx, source) in sources.iter().enumerate() {
        frames.extend((0..source.frames().len()).map(|frame_idx| (file_idx, frame_idx)));
    }
    let pool = app.blocking_pool();
    let prepared: Vec<(usize, PreparedFrame)> = stream::iter(frames)
        .map(|(file_idx, frame_idx)| {
            let source = Arc::clone(&sources[file_idx]);
            let metrics = Arc::clone(app.metrics());
            let memory = app.request_memory().clone();
            let work = move |token: &CancellationToken| {
                let prepared = prepare(&source, frame_idx, &memory, token);
                match &prepared {
                    Ok(frame) => frame.pixels.iter().for_each(|_| metrics.image_decoded()),
                    Err(ImageError::Abandoned) => metrics.image_abandoned(),
                    Err(_) => {}
                }
                prepared
            };
            let param = place_of(file_idx);
            async move {
                let prepared = pool.run_cancellable(work).await?;
                let prepared = prepared.map_err(|error| ApiError::from(error).at(param))?;
                Ok::<_, ApiError>((file_idx, prepared))
            }
        })
        .buffered(pool.num_places())
        .try_collect()
        .await?;
    let mut pixels_of: Vec<Vec<PixelValues>> = sources.iter().map(|_| Vec::new()).collect();
    let mut reports: Vec<MediaReport> = sources.iter().map(|source| source.report()).collect();
    for (file_idx, PreparedFrame { pixels, warnings }) in prepared {
        pixels_of[file_idx].extend(pixels);
        reports[file_idx].warnings.extend(warnings);
    }
    let pixels = places.iter().flat_map(|place| &pixels_of[place.file_idx]);
    let pixels: Vec<PixelValues> = pixels.cloned().collect();
    debug_assert_eq!(pixels.len(), num_shown, "a place for each");
    Ok(Images {
        pixels,
        inputs: inputs(places, &reports, is_series && last == LastPart::Image),
        held: held_by_files.into_iter().chain([held]).collect(),
    })
}

/// Returns what became of the file at each place. `lacks_text` says that no text follows the last of
/// several images.
fn inputs(places: Vec<MediaPlace>, reports: &[MediaReport], lacks_text: bool) -> Vec<Input> {
    let input = |MediaPlace { param, file_idx }| Input {
        param,
        report: reports[file_idx].clone(),
    };
    let mut inputs: Vec<Input> = places.into_iter().map(input).collect();
    if lacks_text && let Some(input) = inputs.last_mut() {
        input.report.warnings.insert(Warning::NoTextAfterImages);
    }
    inputs
}

/// Returns the warnings about all files together.
pub(crate) fn warnings<'i>(inputs: impl Iterator<Item = &'i Input>) -> Warnings {
    let of_each = inputs.flat_map(|input| &input.report.warnings);
    of_each.copied().collect()
}

fn prepare(
    source: &Source,
    frame_idx: usize,
    memory: &RequestMemory,
    token: &CancellationToken,
) -> Result<PreparedFrame, ImageError> {
    let _room = memory.wait_for_room(source.decoding_bytes(frame_idx), token)?;
    let is_cancelled = || token.is_cancelled();
    source.prepare(frame_idx, Cancellation::when(&is_cancelled))
}
