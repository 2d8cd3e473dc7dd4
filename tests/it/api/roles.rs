//! Turns in any order: merged, or refused where the operator wants it so; and turns that go on.

use medgemma::core::{RolePolicy, Thinking, TokenId};
use serde_json::{Value, json};

use super::server::{Plan, TestServer, tokens};

/// The prompt that the engine got.
async fn prompted(server: &mut TestServer, body: Value) -> Vec<TokenId> {
    server.chat(body).await.ok();
    server.request().await.prompt
}

fn strict() -> Plan {
    Plan {
        roles: RolePolicy::Strict,
        ..Plan::for_test()
    }
}

#[tokio::test]
async fn turns_that_templates_refuse_are_merged_unless_roles_are_strict() {
    let mut server = Plan::for_test().start();
    let strict = strict().start();
    for (messages, expected) in [
        (
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
            "<bos><start_of_turn>user\na\n\nb<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            json!([{"role": "assistant", "content": "a"}]),
            "<bos><start_of_turn>user\n<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n\
             <start_of_turn>model\n",
        ),
        (
            json!([
                {"role": "system", "content": "a"},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
                {"role": "assistant", "content": [{"type": "text", "text": "d"}]},
                {"role": "developer", "content": "e"},
                {"role": "user", "content": "f"},
            ]),
            "<bos><start_of_turn>user\na\n\ne\n\nb<end_of_turn>\n<start_of_turn>model\nc\n\nd\
             <end_of_turn>\n<start_of_turn>user\nf<end_of_turn>\n<start_of_turn>model\n",
        ),
    ] {
        let body = json!({"messages": messages});
        assert_eq!(prompted(&mut server, body.clone()).await, tokens(expected));
        let reply = strict.chat(body).await;
        let (status, code, param) = reply.error();
        let expected = (400, Some("invalid_messages"), Some("messages"));
        assert_eq!((status, code.as_deref(), param.as_deref()), expected);
        assert!(
            reply.body.contains("Conversation roles must alternate"),
            "{}",
            reply.body
        );
    }
}

#[tokio::test]
async fn a_system_text_alone_is_not_lost() {
    let mut server = Plan::for_test().start();
    let body = json!({"messages": [{"role": "system", "content": "Be brief."}]});
    let expected = "<bos><start_of_turn>user\nBe brief.\n\n<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(prompted(&mut server, body).await, tokens(expected));
}

#[tokio::test]
async fn the_last_turn_can_go_on() {
    let mut server = Plan::for_test().start();
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "The heart "},
    ]);
    let open = "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nThe heart";
    for (fields, expected) in [
        (json!({"continue_final_message": true}), open.to_owned()),
        (
            json!({"continue_final_message": true, "add_generation_prompt": false}),
            open.to_owned(),
        ),
        (
            json!({"add_generation_prompt": false}),
            format!("{open}<end_of_turn>\n"),
        ),
        (
            json!({"add_generation_prompt": true, "continue_final_message": false}),
            format!("{open}<end_of_turn>\n<start_of_turn>model\n"),
        ),
    ] {
        let mut body = fields.clone();
        body["messages"] = messages.clone();
        let expected = tokens(&expected);
        assert_eq!(
            prompted(&mut server, body.clone()).await,
            expected,
            "{fields}"
        );
        let counted = server.post("/tokenize", body.to_string()).await.ok();
        assert_eq!(counted["tokens"], json!(expected), "{fields}");
    }
}

#[tokio::test]
async fn what_cannot_go_on_is_refused() {
    let server = Plan::for_test().start();
    let continued = |messages: Value| json!({"messages": messages, "continue_final_message": true});
    let both = json!({"continue_final_message": true, "add_generation_prompt": true});
    for (body, code, param) in [
        (both, "invalid_combination", "continue_final_message"),
        (
            continued(json!([{"role": "user", "content": "hi"}])),
            "invalid_combination",
            "continue_final_message",
        ),
        (
            continued(
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]),
            ),
            "invalid_messages",
            "messages",
        ),
    ] {
        let reply = server.chat(body.clone()).await;
        let expected = (400, Some(code.to_owned()), Some(param.to_owned()));
        assert_eq!(reply.error(), expected, "{body}");
    }
}

#[tokio::test]
async fn what_looks_like_a_turns_end_is_not_where_it_goes_on() {
    let mut server = Plan::for_test().start();
    let body = json!({
        "messages": [
            {"role": "user", "content": "turn"},
            {"role": "assistant", "content": "<end_of_turn>\nturn"},
        ],
        "continue_final_message": true,
    });
    let prompt = prompted(&mut server, body).await;
    let server_side = server
        .post("/detokenize", json!({"tokens": prompt}).to_string())
        .await
        .ok();
    assert_eq!(
        server_side["prompt"],
        "<bos><start_of_turn>user\nturn<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\nturn"
    );
}

#[tokio::test]
async fn thoughts_leave_the_history_of_a_model_that_thinks() {
    let messages = json!([
        {"role": "user", "content": "a"},
        {
            "role": "assistant", "content": "<unused94>thought\nhm<unused95>b",
            "reasoning_content": "hm", "reasoning": "hm",
        },
        {"role": "user", "content": "c"},
    ]);
    let body = json!({"messages": messages});
    let expected = |answer: &str| {
        tokens(&format!(
            "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n{answer}\
             <end_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
        ))
    };
    let mut thinks = Plan {
        thinking: Thinking::Unasked,
        ..Plan::for_test()
    }
    .start();
    assert_eq!(prompted(&mut thinks, body.clone()).await, expected("b"));
    let mut never = Plan::for_test().start();
    let plain = expected("<unused94>thought\nhm<unused95>b");
    assert_eq!(prompted(&mut never, body).await, plain);
}
