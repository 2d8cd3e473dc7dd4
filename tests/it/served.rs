//! A model of noise behind the real router and the real engine: what a field asks for comes out
//! of the model.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::BodyExt;
use medgemma::api::{ApiKeys, AppState, router};
use medgemma::config::{self, Command};
use medgemma::core::TokenId;
use medgemma::registry;
use medgemma::text::{AddSpecialTokens, Tokenizer};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::grammar::{judge, schemas};

/// A model and what is needed to talk about its tokens. Its weights are the same everywhere.
pub(crate) struct Served {
    router: Router,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// One for all tests: they ask at the same time, as clients do.
static PLAIN: LazyLock<Served> = LazyLock::new(|| serve(NOISE, &[]));
static THINKING: LazyLock<Served> = LazyLock::new(|| serve(NOISE, &["--thinking", "unasked"]));

const NOISE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models/noise");

pub(crate) fn serve(model: &str, flags: &[&str]) -> Served {
    let all = ["medgemma", "serve", model, "--kv-cache-memory", "64MB"];
    let all = all.iter().chain(flags).map(OsString::from);
    let Ok(Command::Serve(mut settings)) = config::parse(all) else {
        panic!("these are settings of a server");
    };
    settings.program = env!("CARGO_BIN_EXE_medgemma").into();
    let loaded = registry::load(&settings).expect("the model is whole");
    let app = AppState::new(ApiKeys::new(&[] as &[&str]), None);
    let tokenizer = Arc::clone(&loaded.model.tokenizer);
    app.set_model(loaded.model);
    Served {
        router: router(app),
        tokenizer,
    }
}

impl Served {
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.answer(path, body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("answers are JSON")
    }

    /// The status and the text of an answer.
    async fn answer(&self, path: &str, body: Value) -> (u16, String) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a plain request");
        let response = self.router.clone().oneshot(request).await;
        let response = response.expect("the router answers everything");
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.expect("bodies do not break").to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        (status.as_u16(), text)
    }

    pub(crate) async fn chat(&self, fields: Value) -> Value {
        let mut body = json!({"messages": [{"role": "user", "content": "Is the heart normal?"}]});
        let all = body.as_object_mut().expect("an object");
        all.extend(fields.as_object().expect("an object").clone());
        self.post("/v1/chat/completions", body).await
    }

    /// The ids that a chat's only answer has.
    async fn ids(&self, mut fields: Value) -> Vec<u64> {
        fields["return_token_ids"] = json!(true);
        let answer = self.chat(fields).await;
        let ids = answer["choices"][0]["token_ids"].as_array().expect("ids");
        ids.iter().map(|id| id.as_u64().expect("an id")).collect()
    }

    /// The id of a text that is one token.
    fn id(&self, text: &str) -> TokenId {
        if let Some(id) = self.tokenizer.token_id(text) {
            return id;
        }
        let ids = self.tokenizer.encode_raw(text, AddSpecialTokens::No);
        match ids.expect("any text has tokens").as_slice() {
            [id] => *id,
            ids => panic!("{text:?} is {} tokens", ids.len()),
        }
    }
}

fn content(choice: &Value) -> &str {
    choice["message"]["content"].as_str().expect("content")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_documents_of_a_hot_model_are_valid() {
    let mut num_valid = 0;
    for (name, schema) in schemas() {
        let named = json!({"name": "answer", "strict": true, "schema": schema});
        let fields = json!({
            "response_format": {"type": "json_schema", "json_schema": named},
            "temperature": 2,
            "top_k": -1,
            "top_p": 1,
            "seed": 20,
            "n": 25,
        });
        let answer = PLAIN.chat(fields).await;
        for choice in answer["choices"].as_array().expect("choices") {
            assert_eq!(
                choice["finish_reason"],
                "stop",
                "{name}: {}",
                content(choice)
            );
            judge(name, &schema, content(choice));
            num_valid += 1;
        }
    }
    assert_eq!(num_valid, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_answer_changes_nobody_elses() {
    let plain = json!({"temperature": 0, "max_tokens": 40, "ignore_eos": true});
    let alone = PLAIN.ids(plain.clone()).await;
    let bound = json!({
        "response_format": {"type": "json_object"},
        "temperature": 2,
        "n": 4,
        "max_tokens": 60,
    });
    let penalised = json!({"frequency_penalty": 0.5, "max_tokens": 60, "n": 4});
    let (first, _, second, _) = tokio::join!(
        PLAIN.ids(plain.clone()),
        PLAIN.chat(bound),
        PLAIN.ids(plain),
        PLAIN.chat(penalised),
    );
    assert_eq!(first, alone);
    assert_eq!(second, alone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn biases_and_penalties_change_what_is_sampled() {
    let [a, b] = ["a", "b"].map(|text| PLAIN.id(text).0);
    let with = |fields: Value| {
        let mut all = json!({"temperature": 0, "max_tokens": 40, "ignore_eos": true});
        let fields = fields.as_object().expect("an object").clone();
        all.as_object_mut().expect("an object").extend(fields);
        PLAIN.ids(all)
    };
    // Greedy, such a model soon says the same again and again.
    let num_words = |ids: &[u64]| ids.iter().collect::<HashSet<_>>().len();
    let free = num_words(&with(json!({})).await);
    for field in ["frequency_penalty", "presence_penalty"] {
        assert!(num_words(&with(json!({field: 2})).await) > free, "{field}");
        assert!(
            num_words(&with(json!({field: -2})).await) <= free,
            "{field}"
        );
    }
    let ids = with(json!({"repetition_penalty": 4})).await;
    assert!(num_words(&ids) > free, "repetition_penalty");
    let only_a = vec![u64::from(a); 40];
    let forced = json!({"logit_bias": {a.to_string(): 100}});
    assert_eq!(with(forced).await, only_a);
    let banned = json!({"logit_bias": {a.to_string(): -100, b.to_string(): 100}});
    assert_eq!(with(banned).await, vec![u64::from(b); 40]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_every_range_still_sample() {
    let a = PLAIN.id("a").0.to_string();
    for temperature in [0.0, 1e-5, 2.0] {
        for repetition in [1e-300, 10.0] {
            for sign in [-1, 1] {
                let fields = json!({
                    "temperature": temperature,
                    "top_p": 1e-300,
                    "min_p": 1,
                    "repetition_penalty": repetition,
                    "presence_penalty": 2 * sign,
                    "frequency_penalty": 2 * sign,
                    "logit_bias": {a.as_str(): 100 * sign},
                    "max_tokens": 20,
                    "ignore_eos": true,
                });
                assert_eq!(PLAIN.ids(fields.clone()).await.len(), 20, "{fields}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thought_has_its_budget_and_the_document_comes_behind_it() {
    let served = &*THINKING;
    let open = served.id("<unused94>").0;
    // Forces a thought, and would go on opening thoughts for ever.
    let bias = json!({open.to_string(): 100});
    let named = json!({"name": "a", "schema": {"enum": ["yes", "no"]}});
    let format = json!({"type": "json_schema", "json_schema": named});
    let fields = json!({
        "logit_bias": bias,
        "thinking_token_budget": 7,
        "response_format": format,
        "return_token_ids": true,
    });
    let answer = served.chat(fields).await;
    let choice = &answer["choices"][0];
    assert!(["\"yes\"", "\"no\""].contains(&content(choice)), "{choice}");
    assert_eq!(choice["finish_reason"], "stop");
    let ids = choice["token_ids"].as_array().expect("ids");
    let close = served.id("<unused95>").0;
    let at = ids.iter().position(|id| *id == json!(close));
    assert_eq!(at, Some(8), "one to open, seven of thought: {ids:?}");
    let details = &answer["usage"]["completion_tokens_details"];
    assert_eq!(details["reasoning_tokens"], 9);

    // Without a thought nothing opens one, however much it would like to.
    let fields = json!({
        "logit_bias": {open.to_string(): 100},
        "reasoning_effort": "none",
        "max_tokens": 20,
    });
    let ids = served.ids(fields).await;
    assert!(!ids.contains(&u64::from(open)), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demanded_calls_come_with_arguments_that_fit() {
    let parameters = json!({
        "type": "object",
        "properties": {
            "side": {"enum": ["left", "right"]},
            "zone": {"type": "integer", "minimum": 1, "maximum": 3},
        },
        "required": ["side", "zone"],
        "additionalProperties": false,
    });
    let tools = json!([
        {"type": "function", "function": {"name": "look", "parameters": parameters}},
        {"type": "function", "function": {"name": "ask"}},
    ]);
    for choice in [
        json!("required"),
        json!({"type": "function", "function": {"name": "look"}}),
    ] {
        let fields = json!({"tools": tools, "tool_choice": choice, "temperature": 2, "n": 8});
        let answer = PLAIN.chat(fields).await;
        for answered in answer["choices"].as_array().expect("choices") {
            assert_eq!(answered["finish_reason"], "tool_calls", "{answered}");
            let calls = answered["message"]["tool_calls"].as_array().expect("calls");
            assert!(!calls.is_empty());
            for call in calls {
                let arguments = call["function"]["arguments"].as_str().expect("arguments");
                match call["function"]["name"].as_str() {
                    Some("look") => judge("look", &parameters, arguments),
                    Some("ask") if choice == "required" => assert_eq!(arguments, "{}"),
                    other => panic!("{other:?} was not asked for"),
                }
            }
        }
    }
}

/// An image without compression; `level` says how bright the pixel at (x, y) is.
fn bitmap(width: u32, height: u32, level: impl Fn(u32, u32) -> u8) -> String {
    let image = ::image::GrayImage::from_fn(width, height, |x, y| ::image::Luma([level(x, y)]));
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ::image::ImageFormat::Bmp)
        .expect("memory takes all that is written");
    format!(
        "data:image/bmp;base64,{}",
        BASE64_STANDARD.encode(bytes.into_inner())
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_as_large_as_the_operator_allows() {
    // 20 × 20 pixels with their palette: 1078 and 400 bytes.
    let image = bitmap(20, 20, |x, y| (x * 11 + y) as u8);
    let body = json!({"max_tokens": 1, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": image}},
    ]}]});
    let path = "/v1/chat/completions";
    for (flags, said) in [
        (
            ["--max-file-bytes", "1477"],
            Some("at most 1477 are accepted (--max-file-bytes)"),
        ),
        (["--max-file-bytes", "1478"], None),
        (
            ["--max-image-pixels", "399"],
            Some("at most 399 pixels are accepted (--max-image-pixels)"),
        ),
        (["--max-image-pixels", "400"], None),
        (["--image-memory", "1KiB"], None),
    ] {
        let (status, text) = serve(NOISE, &flags).answer(path, body.clone()).await;
        match said {
            None => assert_eq!(status, 200, "{flags:?}: {text}"),
            Some(said) => {
                assert_eq!(status, 400, "{flags:?}: {text}");
                assert!(text.contains(said), "{flags:?}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_squashed_unless_it_is_to_be_padded() {
    // Alike in no direction.
    let level = |x: u32, y: u32| (x * 37 + y * 101 + x * y * 13) as u8;
    let wide = bitmap(40, 20, level);
    let within_black = bitmap(40, 40, |x, y| match y {
        10..30 => level(x, y - 10),
        _ => 0,
    });
    let scores = async |served: &Served, url: &str| {
        let content = json!([
            {"type": "text", "text": "What is seen?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]);
        let fields = json!({
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 4,
            "ignore_eos": true,
            "logprobs": true,
            "top_logprobs": 5,
        });
        served.chat(fields).await["choices"][0]["logprobs"].clone()
    };
    let squashed = scores(&PLAIN, &wide).await;
    let padded = scores(&serve(NOISE, &["--image-fit", "pad"]), &wide).await;
    let kwargs = ["--mm-processor-kwargs", "{\"fit\": \"pad\"}"];
    assert_eq!(padded, scores(&serve(NOISE, &kwargs), &wide).await);
    assert_ne!(padded, squashed);
    assert_eq!(padded, scores(&PLAIN, &within_black).await);
    assert_eq!(
        squashed,
        scores(&serve(NOISE, &["--image-fit=squash"]), &wide).await
    );
}
