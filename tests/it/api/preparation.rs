//! How a request's images are prepared, and what the answer says of it.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use medgemma::core::{GenerateRequest, ImageHash, TokenId};
use serde_json::{Value, json};

use super::images::{distinct_images, shown};
use super::server::{Plan, Reply, TestServer, golden};

const CHATS: &str = "/v1/chat/completions";

fn data_uri(file: &str) -> String {
    let bytes = fs::read(golden("images").join(file)).expect("the image is in the repository");
    format!(
        "data:application/octet-stream;base64,{}",
        BASE64_STANDARD.encode(bytes)
    )
}

fn server() -> TestServer {
    let plan = Plan {
        max_model_len: 4096,
        ..Plan::for_test()
    };
    plan.start()
}

/// The body of a question about one image, in the form of each API.
fn bodies(url: &str) -> [(&'static str, Value); 3] {
    let source = json!({"type": "url", "url": url});
    [
        (CHATS, shown(&[url])),
        (
            "/v1/responses",
            json!({"input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": url},
                {"type": "input_text", "text": "What is seen?"},
            ]}]}),
        ),
        (
            "/v1/messages",
            json!({"max_tokens": 20, "messages": [{"role": "user", "content": [
                {"type": "image", "source": source},
                {"type": "text", "text": "What is seen?"},
            ]}]}),
        ),
    ]
}

fn with(mut body: Value, fields: &Value) -> Value {
    let fields = fields.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

fn warning(reply: &Reply) -> Option<String> {
    let value = reply.headers.get("x-medgemma-warning")?;
    Some(value.to_str().expect("it is ASCII").to_owned())
}

fn hashes(request: &GenerateRequest) -> Vec<ImageHash> {
    let images = request.images.iter();
    images.map(|image| image.pixels.hash).collect()
}

#[tokio::test]
async fn a_request_chooses_the_fit_in_every_api() {
    let mut server = server();
    let url = data_uri("rgb_1792x896.png");
    for (path, body) in bodies(&url) {
        let mut found = Vec::new();
        for kwargs in [
            json!({}),
            json!(null),
            json!({"fit": "squash", "do_resize": true}),
            json!({"fit": "pad"}),
            json!({"size": {"height": 56, "width": 56}}),
        ] {
            let body = with(body.clone(), &json!({"mm_processor_kwargs": kwargs}));
            server.post(path, body.to_string()).await.ok();
            found.push(hashes(&server.request().await));
        }
        assert_eq!(found[0], found[1], "{path}");
        assert_eq!(found[0], found[2], "{path}");
        assert_ne!(found[0], found[3], "{path}");
        assert_eq!(found[0], found[4], "{path}");
    }
}

#[tokio::test]
async fn crops_stand_in_the_prompt_as_in_transformers() {
    let mut server = server();
    let url = data_uri("rgb_1792x896.png");
    let soft = "<image_soft_token>".repeat(4);
    let image = format!("\n\n<start_of_image>{soft}<end_of_image>\n\n");
    let expected = format!(
        "<bos><start_of_turn>user\nHere is the original image {image} and here are some crops to \
         help you see better {image} {image}What is seen?<end_of_turn>\n<start_of_turn>model\n"
    );
    for (path, body) in bodies(&url) {
        let kwargs = json!({"mm_processor_kwargs": {"do_pan_and_scan": true}});
        let body = with(body, &kwargs);
        server.post(path, body.to_string()).await.ok();
        let request = server.request().await;
        let reply = server
            .post("/detokenize", json!({"tokens": request.prompt}).to_string())
            .await
            .ok();
        assert_eq!(reply["prompt"], json!(expected), "{path}");
        assert_eq!(request.images.len(), 3, "{path}");
        let hashes = hashes(&request);
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[1], hashes[2]);
    }
    // Counting sees the same prompt.
    let kwargs = json!({"mm_processor_kwargs": {"do_pan_and_scan": true}});
    let chat = with(shown(&[&url]), &kwargs);
    let reply = server.post("/tokenize", chat.to_string()).await.ok();
    server.chat(chat).await.ok();
    let request = server.request().await;
    let prompt: Vec<TokenId> =
        serde_json::from_value(reply["tokens"].clone()).expect("a list of ids");
    assert_eq!(prompt, request.prompt);
    let [.., (_, message)] = bodies(&url);
    let reply = server
        .post(
            "/v1/messages/count_tokens",
            with(message, &kwargs).to_string(),
        )
        .await
        .ok();
    assert_eq!(reply["input_tokens"], json!(request.prompt.len()));
    // An image that is nearly square has none.
    let square = with(shown(&[&data_uri("rgb_897x895.png")]), &kwargs);
    server.chat(square).await.ok();
    assert_eq!(server.request().await.images.len(), 1);
}

#[tokio::test]
async fn an_unknown_or_wrong_setting_is_refused_with_its_path() {
    let server = server();
    let url = distinct_images(1).remove(0);
    for (path, body) in bodies(&url) {
        for (kwargs, name) in [
            (json!({"do_pan_and_scam": true}), "do_pan_and_scam"),
            (json!({"fit": "crop"}), "fit"),
            (json!({"window": "spleen"}), "window"),
            (json!({"frames": [0]}), "frames"),
            (json!({"size": {"height": 896, "width": 896}}), "size"),
            (json!({"do_resize": false}), "do_resize"),
        ] {
            let body = with(body.clone(), &json!({"mm_processor_kwargs": kwargs}));
            let reply = server.post(path, body.to_string()).await;
            assert_eq!(reply.status, 400, "{path}: {}", reply.body);
            let param = format!("mm_processor_kwargs.{name}");
            assert!(reply.body.contains(&param), "{path}: {}", reply.body);
        }
    }
    let wrong = json!({"mm_processor_kwargs": {"a": 1}});
    let reply = server.complete(wrong.clone()).await;
    let param = Some("mm_processor_kwargs.a".to_owned());
    assert_eq!(reply.error().2, param);
    let reply = server.chat(with(shown(&[&url]), &wrong)).await;
    assert_eq!(reply.error().2, param);
    let chat = with(shown(&[&url]), &wrong);
    let reply = server.post("/tokenize", chat.to_string()).await;
    assert_eq!(reply.error().2, param);
}

#[tokio::test]
async fn the_answer_says_what_was_seen() {
    let server = server();
    let long = data_uri("rgb_1792x896.png");
    let lossy = data_uri("jpeg_420.jpg");
    let input = |param: &str, kind: &str, images: usize, of: usize, warnings: Value| {
        json!({"param": param, "kind": kind, "modality": null, "images": images, "of": of,
               "window": null, "fit": "pad", "warnings": warnings})
    };
    let asked = json!({"return_inputs": true,
                       "mm_processor_kwargs": {"do_pan_and_scan": true, "fit": "pad"}});
    for (path, _) in bodies("") {
        let of = |url: &str| {
            let (_, body) = bodies(url)
                .into_iter()
                .find(|(known, _)| *known == path)
                .expect("each API is there");
            with(body, &asked)
        };
        let param = match path {
            "/v1/responses" => "input[0].content[0]",
            _ => "messages[0].content[0]",
        };
        let answer = server.post(path, of(&long).to_string()).await;
        assert_eq!(warning(&answer), None, "{path}");
        let answer = answer.ok();
        let expected = json!([input(param, "png", 3, 1, json!([]))]);
        assert_eq!(answer["inputs"], expected, "{path}");
        let details = match path {
            CHATS => &answer["usage"]["prompt_tokens_details"],
            _ => &answer["usage"]["input_tokens_details"],
        };
        assert_eq!(details["images"], json!(3), "{path}");

        let answer = server.post(path, of(&lossy).to_string()).await;
        let warned = warning(&answer);
        assert_eq!(warned.as_deref(), Some("lossy_source"), "{path}");
        // 70 × 52 pixels are too few for crops.
        let expected = json!([input(param, "jpeg", 1, 1, json!(["lossy_source"]))]);
        assert_eq!(answer.ok()["inputs"], expected, "{path}");
    }
    // Nobody asked.
    let answer = server.chat(shown(&[&long])).await.ok();
    assert_eq!(answer.get("inputs"), None);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["images"], json!(1));
    let answer = server.complete(json!({"return_inputs": true})).await.ok();
    assert_eq!(answer["inputs"], json!([]));
}

#[tokio::test]
async fn each_warning_has_its_cause() {
    let server = server();
    let images = distinct_images(2);
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let stretched = data_uri("grey16_dark.png");
    let moving = data_uri("gif_two_frames.gif");
    let last = json!([{"role": "user", "content": [
        {"type": "text", "text": "What is seen?"},
        {"type": "image_url", "image_url": {"url": images[0]}},
        {"type": "image_url", "image_url": {"url": images[1]}},
    ]}]);
    let black = {
        // 8 × 8 pixels of a bitmap, 24 bits each, all 0.
        let mut bytes = b"BM".to_vec();
        for word in [
            54 + 192,
            0,
            54,
            40,
            8,
            8,
            0x0018_0001,
            0,
            192,
            0,
            0,
            0,
            0_u32,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(bytes.len() + 192, 0);
        format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bytes))
    };
    for (body, codes) in [
        (shown(&images), None),
        (json!({"messages": last}), Some("no_text_after_images")),
        (shown(&[&stretched]), Some("stretched")),
        (shown(&[&black]), Some("nearly_black")),
        (shown(&[&moving]), Some("not_all_images")),
        (
            shown(&[&stretched, &data_uri("jpeg_grey.jpg")]),
            Some("lossy_source,stretched"),
        ),
    ] {
        let reply = server.chat(body).await;
        let header = warning(&reply);
        assert_eq!(header.as_deref(), codes, "{}", reply.body);
    }
    // The last of several images alone is said to be followed by nothing.
    let body = json!({"messages": last, "return_inputs": true});
    let answer = server.chat(body).await.ok();
    assert_eq!(answer["inputs"][0]["warnings"], json!([]));
    let expected = json!(["no_text_after_images"]);
    assert_eq!(answer["inputs"][1]["warnings"], expected);
}

#[tokio::test]
async fn a_stream_says_it_once_at_its_end() {
    let server = server();
    let url = data_uri("jpeg_420.jpg");
    let asked = json!({"return_inputs": true, "stream": true});
    for (path, body) in bodies(&url) {
        let reply = server.post(path, with(body, &asked).to_string()).await;
        let warned = warning(&reply);
        assert_eq!(warned.as_deref(), Some("lossy_source"), "{path}");
        let events: Vec<Value> = (reply.body.lines())
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect();
        let inputs = |event: &Value| {
            let inside = event
                .get("response")
                .and_then(|inside| inside.get("inputs"));
            inside.or_else(|| event.get("inputs")).cloned()
        };
        let at: Vec<usize> = (events.iter().enumerate())
            .filter(|(_, event)| inputs(event).is_some())
            .map(|(at, _)| at)
            .collect();
        let [at] = at[..] else {
            panic!("{path}: {}", reply.body);
        };
        let found = inputs(&events[at]).expect("it is there");
        assert_eq!(found[0]["kind"], json!("jpeg"), "{path}");
        match path {
            CHATS => assert!(events[at]["choices"][0]["finish_reason"].is_string()),
            "/v1/responses" => assert_eq!(events[at]["type"], json!("response.completed")),
            _ => assert_eq!(events[at]["type"], json!("message_delta")),
        }
    }
    let two = with(shown(&[&url]), &with(asked, &json!({"n": 2})));
    let reply = server.chat(two).await;
    assert_eq!(
        reply.body.matches("\"inputs\"").count(),
        1,
        "{}",
        reply.body
    );
}

/// The parts of each API that hold a file with these bytes, and the path of what is wrong with it.
fn file_parts(bytes: &[u8], media_type: &str) -> Vec<(&'static str, Value)> {
    let data = BASE64_STANDARD.encode(bytes);
    let url = format!("data:{media_type};base64,{data}");
    let source = json!({"type": "base64", "media_type": media_type, "data": data});
    let file = |file: Value| json!({"type": "file", "file": file});
    vec![
        (CHATS, file(json!({"file_data": url, "filename": "a.pdf"}))),
        (CHATS, file(json!({"file_data": data}))),
        (
            CHATS,
            json!({"type": "image_url", "image_url": {"url": url}}),
        ),
        (
            "/v1/responses",
            json!({"type": "input_file", "file_data": url, "filename": "a"}),
        ),
        (
            "/v1/responses",
            json!({"type": "input_file", "file_data": data}),
        ),
        (
            "/v1/responses",
            json!({"type": "input_image", "image_url": url}),
        ),
        (
            "/v1/messages",
            json!({"type": "document", "source": source, "title": "a"}),
        ),
        ("/v1/messages", json!({"type": "image", "source": source})),
    ]
}

fn message(path: &str, part: Value) -> Value {
    let text = match path {
        "/v1/responses" => "input_text",
        _ => "text",
    };
    let content = json!([part, {"type": text, "text": "What is seen?"}]);
    let messages = json!([{"role": "user", "content": content}]);
    match path {
        "/v1/responses" => json!({"input": messages}),
        "/v1/messages" => json!({"max_tokens": 20, "messages": messages}),
        _ => json!({"messages": messages}),
    }
}

#[tokio::test]
async fn a_file_is_what_its_content_says_in_every_part() {
    let mut server = server();
    let bytes = fs::read(golden("images").join("grey.png")).expect("it is in the repository");
    let mut found = Vec::new();
    for media_type in [
        "application/dicom",
        "application/octet-stream",
        "application/pdf",
    ] {
        for (path, part) in file_parts(&bytes, media_type) {
            let body = message(path, part);
            server.post(path, body.to_string()).await.ok();
            found.push(hashes(&server.request().await));
        }
    }
    found.dedup();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn a_document_is_refused_by_name_with_what_to_send() {
    let server = server();
    for (bytes, said) in [
        (&b"%PDF-1.7\n"[..], "each of its pages as an image"),
        (b"Findings: none.", "The file is text"),
    ] {
        for (path, part) in file_parts(bytes, "image/png") {
            let reply = server.post(path, message(path, part).to_string()).await;
            assert_eq!(reply.status, 400, "{path}: {}", reply.body);
            assert!(reply.body.contains(said), "{path}: {}", reply.body);
            assert!(!reply.body.contains("Findings"), "{path}: {}", reply.body);
            assert!(reply.body.contains("content[0]"), "{path}: {}", reply.body);
        }
    }
    let text = json!({"type": "text", "media_type": "text/plain", "data": "a"});
    let by_id = json!({"type": "file", "file_id": "a"});
    for (path, part, param, said) in [
        (
            CHATS,
            json!({"type": "file", "file": {"file_id": "a"}}),
            "messages[0].content[0].file.file_id",
            "file_data",
        ),
        (
            CHATS,
            json!({"type": "file", "file": {}}),
            "messages[0].content[0].file.file_data",
            "file_data",
        ),
        (
            "/v1/responses",
            json!({"type": "input_file", "file_id": "a"}),
            "input[0].content[0].file_id",
            "file_data",
        ),
        (
            "/v1/responses",
            json!({"type": "input_file", "file_url": "https://example.com/a"}),
            "input[0].content[0].file_url",
            "file_data",
        ),
        (
            "/v1/responses",
            json!({"type": "input_file"}),
            "input[0].content[0].file_data",
            "file_data",
        ),
        (
            "/v1/messages",
            json!({"type": "document", "source": text}),
            "messages[0].content[0].source.type",
            "as a text block",
        ),
        (
            "/v1/messages",
            json!({"type": "document", "source": by_id}),
            "messages[0].content[0].source.type",
            "as base64",
        ),
    ] {
        let reply = server.post(path, message(path, part).to_string()).await;
        assert_eq!(reply.status, 400, "{param}: {}", reply.body);
        assert!(reply.body.contains(param), "{param}: {}", reply.body);
        assert!(reply.body.contains(said), "{param}: {}", reply.body);
    }
}
