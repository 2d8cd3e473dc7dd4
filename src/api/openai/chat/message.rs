//! The messages of a chat.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::tool_types::MessageToolCall;
use crate::api::generate::types::presence::Presence;
use crate::api::http::object::JsonObject;

/// One message. Only an assistant that calls tools may leave out `content`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct ChatMessage {
    /// Author of the message.
    pub(crate) role: String,
    /// Text and images. An assistant that calls tools may leave it out.
    pub(crate) content: Option<Content>,
    /// Name of the author. It is accepted and has no effect: Gemma's chat templates do not use it.
    #[expect(dead_code, reason = "no template uses it")]
    pub(crate) name: Option<String>,
    /// Calls that the assistant made.
    pub(crate) tool_calls: Option<Vec<JsonObject<MessageToolCall>>>,
    /// For a tool: id of the call to which the result belongs.
    pub(crate) tool_call_id: Option<String>,
    /// Known, not supported: the older form of `tool_calls`.
    #[serde(default)]
    pub(crate) function_call: Presence,
    /// Text of an assistant's refusal; it is the content where there is no other.
    pub(crate) refusal: Option<String>,
    /// Known, not supported: an audio answer.
    #[serde(default)]
    pub(crate) audio: Presence,
    /// An assistant's reasoning. It is dropped, because it is not part of a conversation.
    #[serde(default)]
    pub(crate) reasoning_content: Presence,
    /// Known, not supported: the reasoning under its newer name.
    #[serde(default)]
    pub(crate) reasoning: Presence,
    /// Known, not supported: Ollama's images beside the text.
    #[serde(default)]
    pub(crate) images: Presence,
    /// Citations in an assistant's answer. They are accepted and have no effect.
    #[expect(dead_code, reason = "citations are not part of a prompt")]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    pub(crate) annotations: Option<serde::de::IgnoredAny>,
}

/// The content of a message.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// `"content": "…"`.
    Text(String),
    /// `"content": [{"type": …}, …]`.
    Parts(Vec<Part>),
}

/// One part of a message: text, an image or a file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Part {
    /// `text`, `image_url`, `file`, or in an assistant's message `refusal`. The names that other APIs
    /// have for them are taken too: `input_text`, `output_text`, `input_image` and `image`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Text of a `text` part.
    pub(crate) text: Option<String>,
    /// Text of a `refusal` part, which only an assistant's message has.
    pub(crate) refusal: Option<String>,
    /// Image of an `image_url` or `input_image` part.
    pub(crate) image_url: Option<ImageUrl>,
    /// Image of an `image` part; `image_url` and `url` are taken there too.
    pub(crate) image: Option<ImageUrl>,
    /// Data URI of an `image` part.
    pub(crate) url: Option<String>,
    /// File of a `file` part: an image, whatever its media type says.
    pub(crate) file: Option<JsonObject<FilePart>>,
    /// Known, not supported: vLLM's id of an image that was sent before.
    #[serde(default)]
    pub(crate) uuid: Presence,
}

/// The file of a `file` part.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct FilePart {
    /// The file as a data URI, or its bytes in base64.
    pub(crate) file_data: Option<String>,
    /// Name of the file; without effect: its content says what it is.
    #[serde(rename = "filename")]
    _filename: Option<String>,
    /// Known, not supported: id of a file that was uploaded before.
    #[serde(default)]
    pub(crate) file_id: Presence,
}

impl FilePart {
    /// A file with these data.
    pub(crate) fn of_data(file_data: String) -> Self {
        Self {
            file_data: Some(file_data),
            ..Self::default()
        }
    }
}

/// The location of an image: `{"url": "data:…", "detail": …}`, or only the URL as a string.
#[derive(Clone, Debug)]
pub(crate) struct ImageUrl {
    /// A data URI.
    pub(crate) url: String,
}

#[derive(Deserialize, JsonSchema)]
struct ImageUrlFields {
    url: String,
    /// Checked, but without effect: Gemma 3 processes every image at one resolution.
    #[serde(rename = "detail")]
    _detail: Option<Detail>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Detail {
    Auto,
    Low,
    High,
    Original,
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of parts")
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut parts = Vec::new();
        while let Some(JsonObject(part)) = seq.next_element()? {
            parts.push(part);
        }
        Ok(Content::Parts(parts))
    }
}

impl JsonSchema for Content {
    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or parts in the order in which the model sees them.",
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": generator.subschema_for::<Part>(), "minItems": 1 },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ImageUrlVisitor;

impl<'de> Visitor<'de> for ImageUrlVisitor {
    type Value = ImageUrl;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a data URI or an object with a url")
    }

    fn visit_str<E>(self, value: &str) -> Result<ImageUrl, E> {
        Ok(ImageUrl {
            url: value.to_owned(),
        })
    }

    fn visit_string<E>(self, value: String) -> Result<ImageUrl, E> {
        Ok(ImageUrl { url: value })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ImageUrl, A::Error> {
        let map = MapAccessDeserializer::new(map);
        let fields = ImageUrlFields::deserialize(map)?;
        Ok(ImageUrl { url: fields.url })
    }
}

impl JsonSchema for ImageUrl {
    fn schema_name() -> Cow<'static, str> {
        "ImageUrl".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Where an image is: an object, or the data URI alone.",
            "anyOf": [generator.subschema_for::<ImageUrlFields>(), { "type": "string" }],
        })
    }
}

impl<'de> Deserialize<'de> for ImageUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImageUrlVisitor)
    }
}
