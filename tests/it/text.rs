//! Prompts and tokens against transformers': `tests/golden/templates`.
//!
//! The real tokenizer is too large for the repository: tests of it run when the variable
//! MEDGEMMA_TOKENIZER_DIR names a folder that holds it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use medgemma::core::{ImageFit, PanAndScan, Preparation, TokenId};
use medgemma::error::Error;
use medgemma::image::{Cancellation, ImageLimits, ImageProcessor, Source};
use medgemma::text::{
    AddSpecialTokens, ChatTemplate, Content, EncodedPrompt, ImageTokens, Message, NamedTokens,
    Part, PromptEnd, RenderedPrompt, Role, Tokenizer, encode_prompt, encode_prompt_with_crops,
};
use serde::Deserialize;
use serde_json::Value;

use crate::golden;

#[derive(Deserialize)]
struct Cases {
    num_image_tokens: usize,
    conversations: BTreeMap<String, Conversation>,
    pan_and_scan: BTreeMap<String, Scanned>,
    continued: BTreeMap<String, Conversation>,
    refused: BTreeMap<String, Refusal>,
    texts: Vec<RawText>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Value>,
    rendered: String,
    ids: Vec<Run>,
}

/// One of the conversations with pan and scan, and images of these widths and heights.
#[derive(Deserialize)]
struct Scanned {
    conversation: String,
    sizes: Vec<[u32; 2]>,
    ids: Vec<Run>,
}

#[derive(Deserialize)]
struct Refusal {
    messages: Vec<Value>,
    error: String,
}

#[derive(Deserialize)]
struct RawText {
    text: String,
    ids: Vec<Run>,
}

/// What the real tokenizer makes of the same conversations and texts.
#[derive(Deserialize)]
struct RealIds {
    conversations: BTreeMap<String, Vec<Run>>,
    texts: Vec<Vec<Run>>,
}

/// One id, or one many times.
#[derive(Deserialize)]
#[serde(untagged)]
enum Run {
    One(TokenId),
    Many(TokenId, usize),
}

fn ids(runs: &[Run]) -> Vec<TokenId> {
    let run = |run: &Run| match run {
        Run::One(id) => vec![*id],
        Run::Many(id, count) => vec![*id; *count],
    };
    runs.iter().flat_map(run).collect()
}

fn load<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let json = fs::read(golden::path("templates").join(name)).expect("goldens are there");
    serde_json::from_slice(&json).expect("goldens are JSON")
}

/// A message as the goldens hold it; `None` for content that no request can hold.
fn message(value: &Value) -> Option<Message> {
    let part = |part: &Value| match part["type"].as_str() {
        Some("image") => Part::Image,
        _ => Part::Text(part["text"].as_str().expect("a text part").to_owned()),
    };
    let content = match &value["content"] {
        Value::String(text) => Content::Text(text.clone()),
        Value::Array(parts) => Content::Parts(parts.iter().map(part).collect()),
        _ => return None,
    };
    let role = match value["role"].as_str().expect("a role") {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => Role::Other(other.to_owned()),
    };
    Some(Message { role, content })
}

fn messages(values: &[Value]) -> Option<Vec<Message>> {
    values.iter().map(message).collect()
}

/// A checkpoint's side of a prompt.
struct TextSide {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    images: ImageTokens,
}

impl TextSide {
    fn open(dir: &Path) -> Self {
        let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json")).expect("a tokenizer");
        let program = Path::new(env!("CARGO_BIN_EXE_medgemma"));
        let template = ChatTemplate::from_dir(dir, &tokenizer, program);
        let template = template.expect("its files are whole");
        let num_image_tokens = load::<Cases>("cases.json").num_image_tokens;
        Self {
            template: template.expect("a template"),
            images: ImageTokens::new(&tokenizer, num_image_tokens).expect("image tokens"),
            tokenizer,
        }
    }

    /// With the same template in other letters, which the program does not know.
    fn with_an_unknown_template() -> Self {
        let tiny = Self::tiny();
        let source = format!("{{# It is mine. #}}{}", tiny.template.source());
        let dir = golden::path("tokenizer");
        let tokens = NamedTokens::from_dir(&dir, &tiny.tokenizer).expect("its files are whole");
        let program = Path::new(env!("CARGO_BIN_EXE_medgemma"));
        let template = ChatTemplate::new(&source, &tokens, &tiny.tokenizer, program);
        let template = template.expect("the template is sound");
        assert!(template.waits() && !tiny.template.waits());
        Self { template, ..tiny }
    }

    fn tiny() -> Self {
        Self::open(&golden::path("tokenizer"))
    }

    /// `None`, said aloud, where the real tokenizer is not at hand.
    fn real() -> Option<Self> {
        let dir = env::var_os("MEDGEMMA_TOKENIZER_DIR").map(PathBuf::from);
        if dir.is_none() {
            println!("skipped: MEDGEMMA_TOKENIZER_DIR does not name the real tokenizer");
        }
        dir.map(|dir| Self::open(&dir))
    }

    fn render(&self, conversation: &Conversation) -> RenderedPrompt {
        let messages = messages(&conversation.messages).expect("content of the usual kinds");
        self.template
            .render(&messages)
            .expect("a conversation that the template takes")
    }

    fn encode(&self, prompt: &RenderedPrompt) -> EncodedPrompt {
        encode_prompt(&self.tokenizer, prompt, Some(&self.images)).expect("a prompt")
    }

    fn check(&self, name: &str, conversation: &Conversation, expected: &[TokenId]) {
        let prompt = self.render(conversation);
        assert_eq!(prompt.text, conversation.rendered, "{name}");
        let encoded = self.encode(&prompt);
        assert_eq!(encoded.ids, expected, "{name}");
        let soft = |id: &TokenId| *id == self.images.soft_token;
        let is_start = |at: &usize| soft(&expected[*at]) && !soft(&expected[*at - 1]);
        let starts: Vec<_> = (1..expected.len()).filter(is_start).collect();
        assert_eq!(encoded.image_starts, starts, "{name}");
        if prompt.num_images == 0 {
            let text_only = encode_prompt(&self.tokenizer, &prompt, None).expect("no images");
            assert_eq!(text_only.ids, expected, "{name}");
        }
    }
}

#[test]
fn chats_render_and_encode_as_transformers_does_it() {
    check_chats(&TextSide::tiny());
    check_chats(&TextSide::with_an_unknown_template());
}

fn check_chats(tiny: &TextSide) {
    let cases: Cases = load("cases.json");
    assert!(cases.conversations.len() > 30);
    for (name, conversation) in &cases.conversations {
        tiny.check(name, conversation, &ids(&conversation.ids));
    }
}

/// Number of crops of an image of this size. A PNG's header is enough for it.
fn num_crops([width, height]: [u32; 2]) -> usize {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &sides].concat();
    let processor = ImageProcessor {
        size: 32,
        resize: ImageFit::Squash,
        limits: ImageLimits::default(),
    };
    let preparation = Preparation {
        pan_and_scan: Some(PanAndScan::default()),
        ..Preparation::default()
    };
    let source = Source::open(header, &processor, preparation, Cancellation::NEVER);
    source.expect("its header is sound").frames()[0].num_crops
}

#[test]
fn crops_are_written_as_transformers_writes_them() {
    let tiny = TextSide::tiny();
    let cases: Cases = load("cases.json");
    assert!(cases.pan_and_scan.len() > 2);
    for (name, scanned) in &cases.pan_and_scan {
        let prompt = tiny.render(&cases.conversations[&scanned.conversation]);
        let num_crops: Vec<usize> = scanned.sizes.iter().copied().map(num_crops).collect();
        let encoded =
            encode_prompt_with_crops(&tiny.tokenizer, &prompt, Some(&tiny.images), &num_crops);
        let encoded = encoded.expect("a prompt");
        assert_eq!(encoded.ids, ids(&scanned.ids), "{name}");
        let num_images = num_crops.len() + num_crops.iter().sum::<usize>();
        assert_eq!(encoded.image_starts.len(), num_images, "{name}");
    }
}

#[test]
fn a_turn_goes_on_where_transformers_lets_it() {
    check_continued(&TextSide::tiny());
    check_continued(&TextSide::with_an_unknown_template());
}

fn check_continued(tiny: &TextSide) {
    let cases: Cases = load("cases.json");
    assert!(cases.continued.len() > 4);
    for (name, conversation) in &cases.continued {
        let messages = messages(&conversation.messages).expect("content of the usual kinds");
        let prompt = tiny.template.render_to(messages, PromptEnd::Continue);
        let prompt = prompt.expect("a conversation that the template takes");
        assert_eq!(prompt.text, conversation.rendered, "{name}");
        assert_eq!(tiny.encode(&prompt).ids, ids(&conversation.ids), "{name}");
    }
}

#[test]
fn chats_encode_as_transformers_does_it_with_the_real_tokenizer() {
    let Some(real) = TextSide::real() else { return };
    let cases: Cases = load("cases.json");
    let real_ids: RealIds = load("real_tokenizer.json");
    assert_eq!(real_ids.conversations.len(), cases.conversations.len());
    for (name, conversation) in &cases.conversations {
        real.check(name, conversation, &ids(&real_ids.conversations[name]));
    }
}

#[test]
fn refused_chats_are_refused_in_the_same_words() {
    check_refused(&TextSide::tiny());
    check_refused(&TextSide::with_an_unknown_template());
}

fn check_refused(tiny: &TextSide) {
    let cases: Cases = load("cases.json");
    let mut checked = 0;
    for (name, refusal) in &cases.refused {
        let Some(messages) = messages(&refusal.messages) else {
            assert_eq!(name, "content_number");
            continue;
        };
        match tiny.template.render(&messages) {
            Err(Error::Template(message)) => assert_eq!(message, refusal.error, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        checked += 1;
    }
    assert!(checked >= 3);
}

#[test]
fn raw_texts_encode_as_transformers_does_it() {
    let tiny = TextSide::tiny();
    let cases: Cases = load("cases.json");
    let raw = |side: &TextSide, text| side.tokenizer.encode_raw(text, AddSpecialTokens::No);
    assert!(cases.texts.len() > 20);
    for RawText { text, ids: runs } in &cases.texts {
        assert_eq!(raw(&tiny, text).expect("ids"), ids(runs), "{text:?}");
    }

    let Some(real) = TextSide::real() else { return };
    let real_ids: RealIds = load("real_tokenizer.json");
    assert_eq!(real_ids.texts.len(), cases.texts.len());
    for (RawText { text, .. }, runs) in cases.texts.iter().zip(&real_ids.texts) {
        assert_eq!(raw(&real, text).expect("ids"), ids(runs), "{text:?}");
    }
}
