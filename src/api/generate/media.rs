//! Opens the files of a request off the async threads, before its prompt is rendered: then it is
//! known how many images each becomes. Equal files are opened once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::api::http::error::ApiError;
use crate::api::http::request_memory::Charge;
use crate::api::http::state::AppState;
use crate::core::Preparation;
use crate::error::ImageError;
use crate::image::{Cancellation, Frame, ImageProcessor, Source, data_uri};
use crate::text::{Content, Message, Part};

/// A file as the client sent it.
#[derive(Debug)]
pub(crate) struct WireMedia {
    /// Its path: `messages[i].content[j]`.
    pub(crate) param: String,
    /// A data URI, not yet checked.
    pub(crate) url: String,
}

/// The opened files of a prompt.
#[derive(Debug, Default)]
pub(crate) struct OpenedMedia {
    /// The distinct files, in order of appearance.
    pub(super) files: Vec<OpenedFile>,
    /// The places of files in the prompt, in order.
    pub(super) places: Vec<MediaPlace>,
    /// The memory charged for what the files hold besides their bytes, which the body's charge
    /// covers.
    pub(super) held: Option<Charge>,
}

/// A place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaPlace {
    /// The file's path.
    pub(super) param: String,
    /// Its index among the distinct ones.
    pub(super) file_idx: usize,
}

/// A file of a prompt.
#[derive(Clone, Debug)]
pub(super) enum OpenedFile {
    Read(Arc<Source>),
    /// It cannot be read. Until its images are needed it is counted as the one image that most files
    /// are, so that what is wrong with the text is said first.
    Unread {
        frame: Frame,
        error: ImageError,
    },
}

impl OpenedFile {
    fn frames(&self) -> &[Frame] {
        match self {
            Self::Read(source) => source.frames(),
            Self::Unread { frame, .. } => std::slice::from_ref(frame),
        }
    }
}

impl OpenedMedia {
    /// Opens all files. What is wrong with one that is surely one image is said when its pixels are
    /// needed.
    ///
    /// # Errors
    /// 400 for a file of which the number of images is not known; 503 or 413 if there is not enough
    /// memory.
    pub(crate) async fn open(
        media: Vec<WireMedia>,
        processor: ImageProcessor,
        preparation: &Preparation,
        app: &AppState,
    ) -> Result<Self, ApiError> {
        let (distinct, places) = deduplicate(media);
        let pool = app.blocking_pool();
        let files: Vec<OpenedFile> = stream::iter(distinct)
            .map(|WireMedia { param, url }| {
                let preparation = preparation.clone();
                let work = move |token: &CancellationToken| {
                    let is_cancelled = || token.is_cancelled();
                    let encoded = data_uri::from_data_uri(&url, &processor.limits)?;
                    drop(url);
                    let cancellation = Cancellation::when(&is_cancelled);
                    Source::open(encoded, &processor, preparation, cancellation)
                };
                async move {
                    match pool.run_cancellable(work).await? {
                        Ok(source) => Ok(OpenedFile::Read(Arc::new(source))),
                        // It may have been any number of images.
                        Err(error @ ImageError::Dicom(_)) => Err(ApiError::from(error).at(param)),
                        Err(error) => Ok(OpenedFile::Unread {
                            frame: Frame::default(),
                            error,
                        }),
                    }
                }
            })
            .buffered(pool.num_places())
            .try_collect()
            .await?;
        let unpacked: u64 = files
            .iter()
            .map(|file| match file {
                OpenedFile::Read(source) => source.unpacked_bytes(),
                OpenedFile::Unread { .. } => 0,
            })
            .sum();
        let mut held = app.request_memory().charge();
        if unpacked > 0 {
            held.hold_more(unpacked)?;
        }
        Ok(Self {
            files,
            places,
            held: Some(held),
        })
    }

    /// Checks the number of images, crops not counted, as vLLM does not count them either.
    ///
    /// # Errors
    /// 400 with the path of the first file that is too many.
    pub(crate) fn check_number(&self, max_images: usize) -> Result<(), ApiError> {
        let mut num_images = 0;
        for place in &self.places {
            num_images += self.frames_at(place).len();
            if num_images > max_images {
                let total = self.num_frames();
                return Err(ApiError::too_many_images(&place.param, total, max_images));
            }
        }
        Ok(())
    }

    /// Returns the number of images without their crops.
    pub(crate) fn num_frames(&self) -> usize {
        self.frames().count()
    }

    /// Returns the number of images that the model sees, crops included.
    pub(crate) fn num_images(&self) -> usize {
        self.frames().map(|frame| 1 + frame.num_crops).sum()
    }

    /// Returns the number of crops beside each image, in the order of the prompt.
    pub(crate) fn num_crops(&self) -> Vec<usize> {
        self.frames().map(|frame| frame.num_crops).collect()
    }

    /// Puts the frames of each file in its place: an image and its label for each.
    pub(crate) fn expand(&self, messages: &mut [Message]) {
        let is_one_image = |file: &OpenedFile| match file.frames() {
            [frame] => frame.label.is_none(),
            _ => false,
        };
        if self.files.iter().all(is_one_image) {
            return;
        }
        let mut places = self.places.iter();
        for message in messages {
            let Content::Parts(parts) = &mut message.content else {
                continue;
            };
            let expanded = mem::take(parts).into_iter().flat_map(|part| match part {
                Part::Text(_) => vec![part],
                Part::Image => {
                    let place = places.next().expect("each image has its file");
                    parts_of(self.frames_at(place))
                }
            });
            *parts = expanded.collect();
        }
    }

    fn frames_at(&self, place: &MediaPlace) -> &[Frame] {
        self.files[place.file_idx].frames()
    }

    fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.places.iter().flat_map(|place| self.frames_at(place))
    }
}

/// Returns the parts of a prompt for the frames of a file.
fn parts_of(frames: &[Frame]) -> Vec<Part> {
    let parts = frames.iter().flat_map(|frame| {
        let label = frame.label.clone().map(Part::Text);
        [Part::Image].into_iter().chain(label)
    });
    parts.collect()
}

/// Whether images come after all texts of the client, which models then tend to ignore.
pub(crate) fn ends_with_images(messages: &[Message]) -> bool {
    let mut parts = messages.iter().rev().flat_map(|message| {
        let (text, parts) = match &message.content {
            Content::Text(text) => (Some(text.as_str()), &[][..]),
            Content::Parts(parts) => (None, parts.as_slice()),
        };
        let parts = parts.iter().rev().map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image => None,
        });
        text.map(Some).into_iter().chain(parts)
    });
    let is_blank = |part: &Option<&str>| part.is_some_and(|text| text.trim().is_empty());
    parts.find(|part| !is_blank(part)) == Some(None)
}

/// Returns the distinct files in order of appearance, and the place of each of `media`.
fn deduplicate(media: Vec<WireMedia>) -> (Vec<WireMedia>, Vec<MediaPlace>) {
    let mut distinct: Vec<WireMedia> = Vec::new();
    let mut places = Vec::with_capacity(media.len());
    let mut idx_of: HashMap<String, usize> = HashMap::with_capacity(media.len());
    for mut media in media {
        let param = media.param.clone();
        let file_idx = match idx_of.entry(mem::take(&mut media.url)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let idx = *new.insert(distinct.len());
                distinct.push(media);
                idx
            }
        };
        places.push(MediaPlace { param, file_idx });
    }
    for (url, idx) in idx_of {
        distinct[idx].url = url;
    }
    (distinct, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Role;

    #[test]
    fn equal_files_are_opened_once() {
        let file = |at: usize, url: &str| WireMedia {
            param: format!("messages[0].content[{at}]"),
            url: url.to_owned(),
        };
        let files = vec![file(0, "a"), file(1, "b"), file(2, "a"), file(3, "c")];
        let (distinct, places) = deduplicate(files);
        let distinct: Vec<_> = distinct.iter().map(|file| file.url.as_str()).collect();
        assert_eq!(distinct, ["a", "b", "c"]);
        let places: Vec<_> = places
            .iter()
            .map(|place| (place.param.as_str(), place.file_idx))
            .collect();
        let at = |at: usize| format!("messages[0].content[{at}]");
        let expected = [at(0), at(1), at(2), at(3)];
        let expected: Vec<_> = expected
            .iter()
            .map(String::as_str)
            .zip([0, 1, 0, 2])
            .collect();
        assert_eq!(places, expected);
    }

    fn says(parts: &[Option<&str>]) -> Message {
        let parts = parts.iter().map(|text| match text {
            Some(text) => Part::Text((*text).to_owned()),
            None => Part::Image,
        });
        Message {
            role: Role::User,
            content: Content::Parts(parts.collect()),
        }
    }

    #[test]
    fn a_file_has_a_place_for_each_of_its_frames() {
        let frame = |label: Option<&str>| Frame {
            label: label.map(str::to_owned),
            num_crops: 0,
        };
        let parts = parts_of(&[frame(Some("SLICE 1")), frame(None), frame(Some("SLICE 3"))]);
        let expected = says(&[None, Some("SLICE 1"), None, None, Some("SLICE 3")]);
        assert_eq!(Content::Parts(parts), expected.content);
    }

    #[test]
    fn images_at_the_end_are_noticed() {
        let text = |text: &str| Message {
            role: Role::User,
            content: Content::Text(text.to_owned()),
        };
        for (messages, expected) in [
            (vec![says(&[Some("a"), None])], true),
            (vec![says(&[None, Some("a")])], false),
            (vec![says(&[Some("a"), None, Some(" \n")])], true),
            (vec![says(&[None]), text("a")], false),
            (vec![says(&[None]), text("")], true),
            (vec![text("a")], false),
            (vec![], false),
        ] {
            assert_eq!(ends_with_images(&messages), expected, "{messages:?}");
        }
    }
}
