//! Decodes and resizes a request's images off the async threads. Equal images are decoded once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::api::http::error::ApiError;
use crate::api::http::request_memory::{Charge, RequestMemory};
use crate::api::http::state::AppState;
use crate::core::PixelValues;
use crate::error::ImageError;
use crate::image::{Cancellation, ImageProcessor, MediaProbe, PROBED_BYTES, data_uri, probe};

/// A file as the client sent it.
#[derive(Debug)]
pub(crate) struct WireMedia {
    /// Its path: `messages[i].content[j]`.
    pub(crate) param: String,
    /// A data URI, not yet checked.
    pub(crate) url: String,
    /// Number of images that it becomes, as the prompt has places for them.
    pub(crate) num_images: usize,
}

/// Tells from the first bytes of a data URI what the file holds.
pub(crate) fn probe_media(url: &str) -> MediaProbe {
    probe(&data_uri::head_of_data_uri(url, PROBED_BYTES))
}

/// Images that are ready for the engine.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// In the order of their places in the prompt.
    pub(crate) pixels: Vec<PixelValues>,
    /// The memory charged for them.
    pub(crate) held: Option<Charge>,
}

/// Returns the pixels of all images of `media`, in order.
///
/// # Errors
/// 400 for the first invalid file; 503 or 413 if there is not enough memory.
pub(crate) async fn decode_all(
    media: Vec<WireMedia>,
    processor: &ImageProcessor,
    app: &AppState,
) -> Result<Images, ApiError> {
    if media.is_empty() {
        return Ok(Images::default());
    }
    let (distinct, places) = deduplicate(media);
    let num_images: usize = distinct.iter().map(|media| media.num_images).sum();
    let mut held = app.request_memory().charge();
    held.hold_more(num_images as u64 * processor.prepared_bytes())?;
    let pool = app.blocking_pool();
    let pixels: Vec<Vec<PixelValues>> = stream::iter(distinct)
        .map(|media| {
            let processor = *processor;
            async move {
                let WireMedia {
                    param,
                    url,
                    num_images,
                } = media;
                let metrics = Arc::clone(app.metrics());
                let memory = app.request_memory().clone();
                let work = move |token: &CancellationToken| {
                    let decoded = decode(&url, &processor, &memory, token);
                    match &decoded {
                        Ok(pixels) => pixels.iter().for_each(|_| metrics.image_decoded()),
                        Err(ImageError::Abandoned) => metrics.image_abandoned(),
                        Err(_) => {}
                    }
                    decoded
                };
                let decoded = pool.run_cancellable(work).await?;
                let pixels = decoded.map_err(|error| ApiError::from(error).at(&param))?;
                // The prompt has places for what the probe saw.
                match pixels.len() == num_images {
                    true => Ok(pixels),
                    false => Err(ApiError::from(ImageError::Undecodable).at(param)),
                }
            }
        })
        .buffered(pool.num_places())
        .try_collect()
        .await?;
    let pixels = places.into_iter().flat_map(|place| pixels[place].clone());
    Ok(Images {
        pixels: pixels.collect(),
        held: Some(held),
    })
}

fn decode(
    url: &str,
    processor: &ImageProcessor,
    memory: &RequestMemory,
    token: &CancellationToken,
) -> Result<Vec<PixelValues>, ImageError> {
    let encoded = data_uri::from_data_uri(url, &processor.limits)?;
    let needed = processor.decoding_bytes(&encoded)?;
    let _room = memory.wait_for_room(needed, token)?;
    let is_cancelled = || token.is_cancelled();
    let image = processor.process(&encoded, Cancellation::when(&is_cancelled))?;
    Ok(vec![image])
}

/// Returns the distinct files in order of appearance, and for each of `media` its index among them.
fn deduplicate(media: Vec<WireMedia>) -> (Vec<WireMedia>, Vec<usize>) {
    let mut distinct: Vec<WireMedia> = Vec::new();
    let mut places = Vec::with_capacity(media.len());
    let mut place_of: HashMap<String, usize> = HashMap::with_capacity(media.len());
    for mut media in media {
        places.push(match place_of.entry(mem::take(&mut media.url)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = *new.insert(distinct.len());
                distinct.push(media);
                place
            }
        });
    }
    for (url, place) in place_of {
        distinct[place].url = url;
    }
    (distinct, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_decoded_once() {
        let image = |at: usize, url: &str| WireMedia {
            param: format!("messages[0].content[{at}]"),
            url: url.to_owned(),
            num_images: 1,
        };
        let images = vec![image(0, "a"), image(1, "b"), image(2, "a"), image(3, "c")];
        let (distinct, places) = deduplicate(images);
        let distinct: Vec<_> = distinct
            .iter()
            .map(|image| (image.param.as_str(), image.url.as_str()))
            .collect();
        let at = |at: usize| format!("messages[0].content[{at}]");
        assert_eq!(
            distinct,
            [
                (at(0).as_str(), "a"),
                (at(1).as_str(), "b"),
                (at(3).as_str(), "c")
            ]
        );
        assert_eq!(places, [0, 1, 0, 2]);
    }
}
