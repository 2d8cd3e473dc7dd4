//! Pictures in messages.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use medgemma::core::TokenId;
use serde_json::{Value, json};

use super::server::{Plan, golden};

const SOFT_TOKEN: TokenId = TokenId(768);

fn data_uri(file: &str, kind: &str) -> String {
    let bytes = fs::read(golden("images").join(file)).expect("the picture is in the repository");
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

/// Data URIs of `number` small pictures, each of another size.
pub(super) fn distinct_pictures(number: usize) -> Vec<String> {
    let picture = |at: usize| {
        // A bitmap without compression is made by hand: one row of grey pixels.
        let width = at + 1;
        let row = (3 * width).next_multiple_of(4);
        let mut bytes = b"BM".to_vec();
        let (row_u32, width) = (row as u32, width as u32);
        let file = [54 + row_u32, 0, 54];
        let info = [40, width, 1, 0x0018_0001, 0, row_u32, 0, 0, 0, 0];
        let words = file.iter().chain(&info);
        bytes.extend(words.flat_map(|word| word.to_le_bytes()));
        bytes.resize(bytes.len() + row, 0x80);
        format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(bytes))
    };
    (0..number).map(picture).collect()
}

#[tokio::test]
async fn pictures_stand_where_the_template_puts_them() {
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
        panic!("three pictures");
    };
    assert!(first.start < second.start && second.start < third.start);
    assert_eq!(first.pixels.hash, third.pixels.hash);
    assert_ne!(first.pixels.hash, second.pixels.hash);
    // The same picture is decoded once and shared.
    assert_eq!(first.pixels.rgb.as_ptr(), third.pixels.rgb.as_ptr());
    assert_eq!(answer["usage"]["prompt_tokens"], request.prompt.len());
}

#[tokio::test]
async fn all_ways_to_write_a_picture_are_one() {
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
async fn the_first_broken_picture_is_named() {
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
            "a picture is not quoted"
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
async fn a_prompt_holds_as_many_pictures_as_the_operator_allows() {
    let plan = Plan {
        max_images: Some(2),
        ..Plan::for_test()
    };
    let server = plan.start();
    let urls = distinct_pictures(3);
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
