//! Converts a rendered chat to token ids and replaces each image placeholder by the tokens of the
//! image.
//!
//! Knows how many tokens an image takes, but nothing of pixels.

use crate::core::TokenId;
use crate::error::{Error, Result};

use super::prompt::RenderedPrompt;
use super::tokenizer::Tokenizer;

/// The tokens of an image in a prompt, as in transformers' `models/gemma3/processing_gemma3.py`:
/// `\n\n<start_of_image>`, `tokens_per_image` times `<image_soft_token>`, `<end_of_image>\n\n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTokens {
    /// The placeholder that the template writes for an image; the first token of the span.
    pub start_of_image: TokenId,
    /// One for each row of features, which replaces it.
    pub soft_token: TokenId,
    /// The last token of the span.
    pub end_of_image: TokenId,
    /// Number of feature rows per image.
    pub tokens_per_image: usize,
}

impl ImageTokens {
    /// Returns Gemma 3's image tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer lacks one of them.
    pub fn new(tokenizer: &Tokenizer, tokens_per_image: usize) -> Result<Self> {
        let control = tokenizer.control_tokens().tokens();
        let id = |content: &str| {
            let token = control.iter().find(|token| token.content == content);
            token.map(|token| token.id).ok_or_else(|| {
                Error::Tokenizer(format!(
                    "an image needs the special token {content}, which this tokenizer lacks"
                ))
            })
        };
        Ok(Self {
            start_of_image: id("<start_of_image>")?,
            soft_token: id("<image_soft_token>")?,
            end_of_image: id("<end_of_image>")?,
            tokens_per_image,
        })
    }
}

/// A tokenized prompt with the positions of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// All token ids.
    pub ids: Vec<TokenId>,
    /// For each image and each crop, the index of its first `<image_soft_token>`.
    pub image_starts: Vec<usize>,
}

/// Text before an image that crops stand beside, after it, and between two crops, as in
/// `replace_image_token` of transformers' `models/gemma3/processing_gemma3.py`.
const BEFORE_ORIGINAL: &str = "Here is the original image ";
const BEFORE_CROPS: &str = " and here are some crops to help you see better ";
const BETWEEN_CROPS: &str = " ";

/// Encodes a rendered chat, with each image placeholder expanded.
///
/// `images` is `None` for a text-only model.
///
/// # Errors
/// The errors of [`encode_prompt_with_crops`].
pub fn encode_prompt(
    tokenizer: &Tokenizer,
    prompt: &RenderedPrompt,
    images: Option<&ImageTokens>,
) -> Result<EncodedPrompt> {
    encode_prompt_with_crops(tokenizer, prompt, images, &[])
}

/// Encodes a rendered chat in which `num_crops[i]` crops stand beside image `i`, as transformers'
/// pan and scan writes them; where it is too short, none do. `image_starts` of the result has the
/// crops too.
///
/// # Errors
/// [`Error::Template`] if images and placeholders do not match one to one, or the model takes no
/// images; [`Error::Tokenizer`] if the tokenizer has no ids for the text.
pub fn encode_prompt_with_crops(
    tokenizer: &Tokenizer,
    prompt: &RenderedPrompt,
    images: Option<&ImageTokens>,
    num_crops: &[usize],
) -> Result<EncodedPrompt> {
    let Some(images) = images else {
        return match prompt.num_images {
            0 => Ok(EncodedPrompt {
                ids: tokenizer.encode_rendered(prompt)?,
                image_starts: Vec::new(),
            }),
            num_images => Err(Error::Template(format!(
                "This model takes text only, but the messages contain {num_images} image(s). \
                 Remove the images or use a model that takes them."
            ))),
        };
    };
    let placeholders = prompt.control.iter();
    let num_placeholders = placeholders
        .filter(|span| span.id == images.start_of_image)
        .count();
    if num_placeholders != prompt.num_images {
        return Err(Error::Template(format!(
            "The messages contain {} image(s), but the chat template made {num_placeholders} image \
             placeholder(s) of them. Put images into messages whose role the template shows images \
             of (usually user).",
            prompt.num_images
        )));
    }

    let num_images = num_placeholders + num_crops.iter().sum::<usize>();
    let mut ids =
        Vec::with_capacity(prompt.text.len() / 3 + num_images * (images.tokens_per_image + 4));
    let mut image_starts = Vec::with_capacity(num_images);
    let mut num_crops = num_crops.iter().copied();
    // Newlines around a placeholder merge with adjacent newlines of the text into one token, so
    // plain text is tokenized only when the next control token is reached.
    let mut plain = String::new();
    let mut done = 0;
    for span in &prompt.control {
        plain.push_str(&prompt.text[done..span.range.start]);
        done = span.range.end;
        if span.id != images.start_of_image {
            tokenizer.encode_plain(&plain, &mut ids)?;
            plain.clear();
            ids.push(span.id);
            continue;
        }
        let num_crops = num_crops.next().unwrap_or(0);
        for image_idx in 0..=num_crops {
            plain.push_str(match (num_crops, image_idx) {
                (0, _) => "",
                (_, 0) => BEFORE_ORIGINAL,
                (_, 1) => BEFORE_CROPS,
                _ => BETWEEN_CROPS,
            });
            plain.push_str("\n\n");
            tokenizer.encode_plain(&plain, &mut ids)?;
            plain.clear();
            ids.push(images.start_of_image);
            image_starts.push(ids.len());
            let soft = std::iter::repeat_n(images.soft_token, images.tokens_per_image);
            ids.extend(soft);
            ids.push(images.end_of_image);
            plain.push_str("\n\n");
        }
    }
    plain.push_str(&prompt.text[done..]);
    tokenizer.encode_plain(&plain, &mut ids)?;
    Ok(EncodedPrompt { ids, image_starts })
}

#[cfg(test)]
mod tests {
    use super::super::control::ControlSpan;
    use super::*;

    /// Returns a prompt in which every control token counts.
    fn prompt(tokenizer: &Tokenizer, text: &str, num_images: usize) -> RenderedPrompt {
        RenderedPrompt {
            text: text.to_owned(),
            control: tokenizer.control_tokens().find(text),
            num_images,
        }
    }

    #[test]
    fn newlines_around_an_image_merge_with_the_texts_own() {
        let tokenizer = Tokenizer::for_test();
        let images = ImageTokens::new(&tokenizer, 3).unwrap();
        let text = "<bos>a\n<start_of_image><start_of_image>\nb<end_of_turn>";
        let encoded = encode_prompt(&tokenizer, &prompt(&tokenizer, text, 2), Some(&images));
        let encoded = encoded.unwrap();
        let id = |content| tokenizer.token_id(content).unwrap();
        let (a, b) = (id("a"), id("b"));
        let (start, soft, end) = (
            id("<start_of_image>"),
            id("<image_soft_token>"),
            id("<end_of_image>"),
        );
        let (three, four) = (id("\n\n\n"), id("\n\n\n\n"));
        let expected = [
            id("<bos>"),
            a,
            three,
            start,
            soft,
            soft,
            soft,
            end,
            four,
            start,
            soft,
            soft,
            soft,
            end,
            three,
            b,
            id("<end_of_turn>"),
        ];
        assert_eq!(encoded.ids, expected);
        assert_eq!(encoded.image_starts, [4, 10]);
    }

    #[test]
    fn images_and_placeholders_match_one_to_one() {
        let tokenizer = Tokenizer::for_test();
        let images = ImageTokens::new(&tokenizer, 3).unwrap();
        for (text, num_images, images, expected) in [
            (
                "a",
                1,
                Some(&images),
                "contain 1 image(s), but the chat template made 0",
            ),
            (
                "<start_of_image>",
                0,
                Some(&images),
                "contain 0 image(s), but the chat template made 1",
            ),
            (
                "<start_of_image>",
                1,
                None,
                "takes text only, but the messages contain 1 image(s)",
            ),
        ] {
            let error = encode_prompt(&tokenizer, &prompt(&tokenizer, text, num_images), images);
            match error {
                Err(Error::Template(message)) => assert!(message.contains(expected), "{message}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_users_copy_of_a_placeholder_is_no_image() {
        let tokenizer = Tokenizer::for_test();
        let images = ImageTokens::new(&tokenizer, 3).unwrap();
        let mut prompt = prompt(&tokenizer, "<start_of_image><start_of_image>", 1);
        let second: ControlSpan = prompt.control.remove(1);
        let encoded = encode_prompt(&tokenizer, &prompt, Some(&images)).unwrap();
        // after "\n\n" and the first token of the span
        assert_eq!(encoded.image_starts, [2]);
        assert_eq!(encoded.ids.iter().filter(|id| **id == second.id).count(), 1);
    }

    #[test]
    fn a_tokenizer_without_image_tokens_is_told() {
        let file = include_str!("../../tests/golden/tokenizer/tokenizer.json");
        let file = file.replace("<image_soft_token>", "<image_hard_token>");
        let tokenizer = Tokenizer::from_bytes(file.as_bytes()).unwrap();
        let error = ImageTokens::new(&tokenizer, 3).unwrap_err().to_string();
        assert!(error.contains("<image_soft_token>"), "{error}");
    }
}
