//! Images in messages.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use medgemma::core::{GenerateRequest, TokenId};
use serde_json::{Value, json};

use super::server::{Plan, golden};

const SOFT_TOKEN: TokenId = TokenId(768);

fn data_uri(file: &str, kind: &str) -> String {
    let bytes = fs::read(golden("images").join(file)).expect("the image is in the repository");
    format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

pub(super) fn shown(urls: &[&str]) -> Value {
    let images = urls
        .iter()
        .map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
    let question = json!({"type": "text", "text": "What is seen?"});
    let parts: Vec<_> = images.chain([question]).collect();
    json!({"messages": [{"role": "user", "content": parts}]})
}

fn bitmap_header(width: u32, height: u32, len: u32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    let file = [54 + len, 0, 54];
    let info = [40, width, height, 0x0018_0001, 0, len, 0, 0, 0, 0];
    let words = file.iter().chain(&info);
    bytes.extend(words.flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Headers of each format that say this size; of the pixels there is nothing.
fn headers(width: u16, height: u16) -> [(&'static str, Vec<u8>); 6] {
    let wide = [u32::from(width), u32::from(height)];
    let [w, h] = [width.to_be_bytes(), height.to_be_bytes()];
    let [w_le, h_le] = [width.to_le_bytes(), height.to_le_bytes()];
    let png = [
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
        &wide.map(u32::to_be_bytes).concat()[..],
        &[8, 0, 0, 0, 0],
    ];
    let jpeg = [
        &[0xff, 0xd8, 0xff, 0xc0, 0, 11, 8][..],
        &h,
        &w,
        &[1, 1, 0x11, 0],
    ];
    let sides = (wide[0] - 1) & 0x3fff | ((wide[1] - 1) & 0x3fff) << 14;
    let webp = [
        &b"RIFF\x12\0\0\0WEBPVP8L\x05\0\0\0\x2f"[..],
        &sides.to_le_bytes(),
        &[0],
    ];
    let gif = [
        &b"GIF89a"[..],
        &w_le,
        &h_le,
        &[0, 0, 0, 0x2c, 0, 0, 0, 0],
        &w_le,
        &h_le,
        &[0],
    ];
    let entry = |tag: u16, value: u32| {
        let head = [tag, 4, 1, 0].map(u16::to_le_bytes).concat();
        [head, value.to_le_bytes().to_vec()].concat()
    };
    let tiff = [
        &b"II*\0\x08\0\0\0\x02\0"[..],
        &entry(256, wide[0]),
        &entry(257, wide[1]),
        &[0; 4],
    ];
    [
        ("png", png.concat()),
        ("jpeg", jpeg.concat()),
        ("webp", webp.concat()),
        ("gif", gif.concat()),
        ("bmp", bitmap_header(wide[0], wide[1], 0)),
        ("tiff", tiff.concat()),
    ]
}

#[tokio::test]
async fn thin_images_are_refused_by_their_headers() {
    let server = Plan::for_test().start();
    let said = async |(kind, file): &(&str, Vec<u8>)| {
        let url = format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(file));
        let reply = server.chat(shown(&[&url])).await;
        let place = Some("messages[0].content[0]".to_owned());
        assert_eq!(
            reply.error(),
            (400, Some("invalid_image".to_owned()), place)
        );
        reply.body
    };
    for (width, height) in [(1, 16_000), (16_000, 1), (79, 16_000), (3, 601)] {
        for file in headers(width, height) {
            let body = said(&file).await;
            let found = format!("{width}×{height} pixels; one side may be at most 200 times");
            assert!(body.contains(&found), "{}: {body}", file.0);
        }
    }
    for (width, height) in [(1_000, 32_769), (65_535, 400)] {
        for file in headers(width, height) {
            // Sides of a WebP have 14 bits.
            if file.0 != "webp" {
                let body = said(&file).await;
                let found = format!("{width}×{height} pixels; a side of at most 32768 pixels");
                assert!(body.contains(&found), "{}: {body}", file.0);
            }
        }
    }
    // At the bounds it is the missing pixels that are wrong.
    for (width, height) in [(80, 16_000), (3, 600), (600, 3), (200, 32_768)] {
        for file in headers(width, height) {
            if file.0 != "webp" || height <= 16_000 {
                let body = said(&file).await;
                assert!(body.contains("could not be decoded"), "{}: {body}", file.0);
            }
        }
    }
}

/// Data URIs of `number` small images, each of another size.
pub(super) fn distinct_images(number: usize) -> Vec<String> {
    let image = |at: usize| {
        // A bitmap without compression is made by hand: a few rows of grey pixels.
        const ROWS: usize = 4;
        let width = at + 1;
        let len = ROWS * (3 * width).next_multiple_of(4);
        let mut bytes = bitmap_header(width as u32, ROWS as u32, len as u32);
        bytes.resize(bytes.len() + len, 0x80);
        format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bytes))
    };
    (0..number).map(image).collect()
}

#[tokio::test]
async fn images_stand_where_the_template_puts_them() {
    let mut server = Plan::for_test().start();
    let (one, other) = (
        data_uri("grey.png", "png"),
        data_uri("grey_alpha.png", "png"),
    );
    let answer = server.chat(shown(&[&one, &other, &one])).await.ok();
    let request = server.request().await;
    assert_eq!(request.images.len(), 3);
    for image in &request.images {
        assert_eq!(image.len, 4);
        assert_eq!(image.pixels.size, 56);
        assert_eq!(image.pixels.rgb.len(), 56 * 56 * 3);
        let span = &request.prompt[image.start - 1..image.start + 5];
        assert_eq!(span[0], TokenId(766));
        assert_eq!(span[1..5], [SOFT_TOKEN; 4]);
        assert_eq!(span[5], TokenId(767));
    }
    let num_soft = request
        .prompt
        .iter()
        .filter(|id| **id == SOFT_TOKEN)
        .count();
    assert_eq!(num_soft, 12);
    let [first, second, third] = &request.images[..] else {
        panic!("three images");
    };
    assert!(first.start < second.start && second.start < third.start);
    assert_eq!(first.pixels.hash, third.pixels.hash);
    assert_ne!(first.pixels.hash, second.pixels.hash);
    // The same image is decoded once and shared.
    assert_eq!(first.pixels.rgb.as_ptr(), third.pixels.rgb.as_ptr());
    assert_eq!(answer["usage"]["prompt_tokens"], request.prompt.len());
}

#[tokio::test]
async fn all_ways_to_write_an_image_are_one() {
    let mut server = Plan::for_test().start();
    let url = data_uri("grey.png", "png");
    let mut prompts = Vec::new();
    for image_url in [
        json!(url),
        json!({"url": url}),
        json!({"url": url, "detail": "high"}),
        json!({"url": url, "detail": null}),
    ] {
        let content = json!([{"type": "image_url", "image_url": image_url}]);
        server
            .chat(json!({"messages": [{"role": "user", "content": content}]}))
            .await
            .ok();
        let request = server.request().await;
        prompts.push((request.prompt, request.images[0].pixels.hash));
    }
    prompts.dedup();
    assert_eq!(prompts.len(), 1);
}

#[tokio::test]
async fn the_first_broken_image_is_named() {
    let server = Plan::for_test().start();
    let good = data_uri("grey.png", "png");
    let cut = &good[..good.len() / 2 / 4 * 4];
    for (urls, param) in [
        (vec![&*good, cut], "messages[0].content[1]"),
        (vec![cut, &*good], "messages[0].content[0]"),
        (
            vec![&*good, "data:image/png;base64,AAAA", cut],
            "messages[0].content[1]",
        ),
    ] {
        let reply = server.chat(shown(&urls)).await;
        let expected = (
            400,
            Some("invalid_image".to_owned()),
            Some(param.to_owned()),
        );
        assert_eq!(reply.error(), expected, "{}", reply.body);
        assert!(
            !reply.body.contains("base64,AAAA"),
            "an image is not quoted"
        );
    }
    server.chat(shown(&[&good])).await.ok();
}

#[tokio::test]
async fn a_text_only_model_says_what_to_do() {
    let plan = Plan {
        takes_images: false,
        ..Plan::for_test()
    };
    let server = plan.start();
    let url = data_uri("grey.png", "png");
    let reply = server.chat(shown(&[&url])).await;
    let (status, _, param) = reply.error();
    assert_eq!(
        (status, param.as_deref()),
        (400, Some("messages[0].content[0]"))
    );
    assert!(reply.body.contains("takes text only"), "{}", reply.body);
    server.chat(json!({})).await.ok();
    // The tokenizer knows it, the model has no row for it.
    let reply = server
        .complete(json!({"prompt": "<image_soft_token>"}))
        .await;
    assert_eq!(reply.error().0, 400, "{}", reply.body);
    assert_eq!(
        server.complete(json!({"prompt": [768]})).await.error().0,
        400
    );
}

#[tokio::test]
async fn a_model_without_a_template_says_what_to_do() {
    let plan = Plan {
        has_template: false,
        ..Plan::for_test()
    };
    let server = plan.start();
    let reply = server.chat(json!({})).await;
    assert_eq!(reply.error().0, 400);
    assert!(reply.body.contains("/v1/completions"), "{}", reply.body);
    server.complete(json!({})).await.ok();
}

#[tokio::test]
async fn a_prompt_holds_as_many_images_as_the_operator_allows() {
    let plan = Plan {
        max_images: Some(2),
        ..Plan::for_test()
    };
    let server = plan.start();
    let urls = distinct_images(3);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    server.chat(shown(&urls[..2])).await.ok();
    let reply = server.chat(shown(&urls)).await;
    let expected = (
        400,
        Some("too_many_images".to_owned()),
        Some("messages[0].content[2]".to_owned()),
    );
    assert_eq!(reply.error(), expected);
    assert!(reply.body.contains("at most 2"), "{}", reply.body);
}

#[tokio::test]
async fn a_tools_images_are_seen_in_the_turn_of_its_result() {
    let mut server = Plan {
        max_model_len: 4096,
        ..Plan::for_test()
    }
    .start();
    let url = data_uri("grey.png", "png");
    let data = url.split_once(',').expect("a data URI").1;
    let image = json!({"type": "image_url", "image_url": {"url": url}});
    let chat_call = json!({"id": "c", "type": "function",
                           "function": {"name": "film", "arguments": "{}"}});
    let ask = json!({"role": "user", "content": "Fetch it."});
    let call = json!({"role": "assistant", "tool_calls": [chat_call]});
    // What the same looks like without a tool: the fence, then the image.
    let expected = json!({"messages": [
        ask,
        {"role": "assistant", "content": "[film()]"},
        {"role": "user", "content": [
            {"type": "text", "text": "```tool_output\nthe film:\n```"},
            image,
        ]},
    ]});
    server.chat(expected).await.ok();
    let expected = server.request().await;
    assert_eq!(expected.images.len(), 1);
    let text = "the film:";
    let chat_parts = json!([{"type": "text", "text": text}, image]);
    let input_parts = json!([{"type": "input_text", "text": text},
                             {"type": "input_image", "image_url": url}]);
    let blocks = json!([
        {"type": "text", "text": text},
        {"type": "image",
         "source": {"type": "base64", "media_type": "image/png", "data": data}},
    ]);
    for (path, body) in [
        (
            "/v1/chat/completions",
            json!({"messages": [ask, call, {"role": "tool", "tool_call_id": "c", "content": chat_parts}]}),
        ),
        (
            "/v1/responses",
            json!({"input": [
                ask,
                {"type": "function_call", "call_id": "c", "name": "film", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": input_parts},
            ]}),
        ),
        (
            "/v1/messages",
            json!({"max_tokens": 20, "messages": [
                ask,
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "c", "name": "film", "input": {}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": blocks}]},
            ]}),
        ),
    ] {
        server.post(path, body.to_string()).await.ok();
        let asked = server.request().await;
        assert_eq!(asked.prompt, expected.prompt, "{path}");
        let pixels = |request: &GenerateRequest| request.images[0].pixels.hash;
        assert_eq!(pixels(&asked), pixels(&expected), "{path}");
    }
}

#[tokio::test]
async fn an_image_part_has_the_names_of_other_apis_too() {
    let mut server = Plan::for_test().start();
    let url = data_uri("grey.png", "png");
    for part in [
        json!({"type": "image_url", "image_url": {"url": url}}),
        json!({"type": "image_url", "image_url": url}),
        json!({"type": "input_image", "image_url": url}),
        json!({"type": "image", "image": url}),
        json!({"type": "image", "image": {"url": url}}),
        json!({"type": "image", "url": url}),
        json!({"type": "image", "image_url": {"url": url}}),
    ] {
        let content = json!([part, {"type": "input_text", "text": "Seen?"}]);
        let body = json!({"messages": [{"role": "user", "content": content}]});
        server.chat(body).await.ok();
        assert_eq!(server.request().await.images.len(), 1, "{part}");
    }
}
