//! Decodes and resizes a request's images off the async threads. Equal images are decoded once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::api::http::error::ApiError;
use crate::api::http::request_memory::{Charge, RequestMemory};
use crate::api::http::state::AppState;
use crate::core::PixelValues;
use crate::error::ImageError;
use crate::image::{ImageProcessor, Wanted, fetch};

/// An image as the client sent it.
#[derive(Debug)]
pub(crate) struct WireImage {
    /// Its path: `messages[i].content[j]`.
    pub(crate) param: String,
    /// A data URI, not yet checked.
    pub(crate) url: String,
}

/// Images that are ready for the engine.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// In order of the request's images.
    pub(crate) pixels: Vec<PixelValues>,
    /// The memory charged for them.
    pub(crate) held: Option<Charge>,
}

/// Returns the pixels of `images`, in order.
///
/// # Errors
/// 400 for the first invalid image; 503 or 413 if there is not enough memory.
pub(crate) async fn decode_all(
    images: Vec<WireImage>,
    processor: &ImageProcessor,
    app: &AppState,
) -> Result<Images, ApiError> {
    if images.is_empty() {
        return Ok(Images::default());
    }
    let (distinct, places) = deduplicate(images);
    let mut held = app.request_memory().charge();
    held.hold_more(distinct.len() as u64 * processor.prepared_bytes())?;
    let workers = app.workers();
    let pixels: Vec<PixelValues> = stream::iter(distinct)
        .map(|image| {
            let processor = *processor;
            async move {
                let WireImage { param, url } = image;
                let metrics = Arc::clone(app.metrics());
                let memory = app.request_memory().clone();
                let work = move |token: &CancellationToken| {
                    let decoded = decode(&url, &processor, &memory, token);
                    match &decoded {
                        Ok(_) => metrics.image_decoded(),
                        Err(ImageError::Abandoned) => metrics.image_abandoned(),
                        Err(_) => {}
                    }
                    decoded
                };
                let decoded = workers.run_while_wanted(work).await?;
                decoded.map_err(|error| ApiError::from(error).at(param))
            }
        })
        .buffered(workers.num_places())
        .try_collect()
        .await?;
    let pixels = places.into_iter().map(|place| pixels[place].clone());
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
) -> Result<PixelValues, ImageError> {
    let encoded = fetch::from_data_uri(url, &processor.limits)?;
    let needed = processor.decoding_bytes(&encoded)?;
    let _room = memory.wait_for_room(needed, token)?;
    let is_wanted = || !token.is_cancelled();
    processor.process(&encoded, Wanted::while_true(&is_wanted))
}

/// Returns the distinct images in order of appearance, and for each of `images` its index among
/// them.
fn deduplicate(images: Vec<WireImage>) -> (Vec<WireImage>, Vec<usize>) {
    let mut params = Vec::new();
    let mut places = Vec::with_capacity(images.len());
    let mut place_of: HashMap<String, usize> = HashMap::with_capacity(images.len());
    for image in images {
        let next = params.len();
        places.push(match place_of.entry(image.url) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                params.push(image.param);
                *new.insert(next)
            }
        });
    }
    let mut urls = vec![String::new(); params.len()];
    for (url, place) in place_of {
        urls[place] = url;
    }
    let distinct = params.into_iter().zip(urls);
    let distinct = distinct.map(|(param, url)| WireImage { param, url });
    (distinct.collect(), places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_decoded_once() {
        let image = |at: usize, url: &str| WireImage {
            param: format!("messages[0].content[{at}]"),
            url: url.to_owned(),
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
