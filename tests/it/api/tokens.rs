//! `/tokenize` and `/detokenize`.

use serde_json::json;

use super::server::{Plan, tokens};

#[tokio::test]
async fn texts_get_bos_unless_told_otherwise() {
    let server = Plan::for_test().start();
    let answer = server
        .post("/tokenize", json!({"prompt": "The heart"}).to_string())
        .await
        .ok();
    assert_eq!(
        answer,
        json!({"count": 3, "max_model_len": 256, "tokens": [2, 716, 641], "token_strs": null})
    );
    let body =
        json!({"prompt": "The heart", "add_special_tokens": false, "return_token_strs": true});
    let answer = server.post("/tokenize", body.to_string()).await.ok();
    assert_eq!(
        answer,
        json!({"count": 2, "max_model_len": 256, "tokens": [716, 641], "token_strs": ["The", "▁heart"]})
    );
    // Longer than the model takes: counting is what this is for.
    let body = json!({"prompt": "! ".repeat(5000)});
    let answer = server.post("/tokenize", body.to_string()).await.ok();
    assert!(answer["count"].as_u64().is_some_and(|count| count > 5000));
}

#[tokio::test]
async fn chats_are_counted_as_they_would_be_served() {
    let mut server = Plan::for_test().start();
    let url = "data:image/png;base64,never decoded";
    let messages = json!([{"role": "user", "content": [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": url}},
    ]}]);
    let body = json!({"messages": messages, "add_generation_prompt": true, "model": "tiny"});
    let answer = server.post("/tokenize", body.to_string()).await.ok();
    let soft = "<image_soft_token>".repeat(4);
    let expected = tokens(&format!(
        "<bos><start_of_turn>user\nhi\n\n<start_of_image>{soft}<end_of_image>\n\n<end_of_turn>\n\
         <start_of_turn>model\n"
    ));
    assert_eq!(answer["tokens"], json!(expected));

    let messages = json!([{"role": "user", "content": "Is the heart normal?"}]);
    let body = json!({"messages": messages}).to_string();
    let answer = server.post("/tokenize", body).await.ok();
    server.chat(json!({"messages": messages})).await.ok();
    assert_eq!(answer["tokens"], json!(server.request().await.prompt));
}

#[tokio::test]
async fn tokens_become_their_text_again() {
    let server = Plan::for_test().start();
    for text in [
        "The heart",
        "<bos><start_of_turn>user\nhi ſ<end_of_turn>",
        "",
    ] {
        let body = json!({"prompt": text, "add_special_tokens": false});
        let answer = server.post("/tokenize", body.to_string()).await.ok();
        let body = json!({"tokens": answer["tokens"]});
        let answer = server.post("/detokenize", body.to_string()).await.ok();
        assert_eq!(answer, json!({"prompt": text}));
    }
}
