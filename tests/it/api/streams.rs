//! Streams, byte by byte.

use serde_json::{Value, json};

use super::server::{END_OF_TURN, End, Plan, always, says, tokens};

/// The parts of a chunk that differ from run to run.
struct Marks {
    id: String,
    created: u64,
    fingerprint: String,
}

impl Marks {
    fn of(chunk: &Value) -> Self {
        let text = |field: &str| {
            chunk[field]
                .as_str()
                .expect("every chunk has it")
                .to_owned()
        };
        Self {
            id: text("id"),
            created: chunk["created"].as_u64().expect("every chunk has it"),
            fingerprint: text("system_fingerprint"),
        }
    }

    fn chat(&self, choices: &str, tail: &str) -> String {
        let Self {
            id,
            created,
            fingerprint,
        } = self;
        format!(
            "data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\
             \"model\":\"tiny\",\"system_fingerprint\":\"{fingerprint}\",\
             \"choices\":{choices}{tail}}}\n\n"
        )
    }

    fn completion(&self, choices: &str, tail: &str) -> String {
        let Self {
            id,
            created,
            fingerprint,
        } = self;
        format!(
            "data: {{\"id\":\"{id}\",\"object\":\"text_completion\",\"created\":{created},\
             \"model\":\"tiny\",\"choices\":{choices}{tail},\
             \"system_fingerprint\":\"{fingerprint}\"}}\n\n"
        )
    }
}

fn delta(index: usize, content: &str) -> String {
    format!(
        "[{{\"index\":{index},\"delta\":{{\"content\":\"{content}\"}},\"logprobs\":null,\
         \"finish_reason\":null}}]"
    )
}

const ROLE: &str = "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\
                    \"logprobs\":null,\"finish_reason\":null}]";
const STOP: &str = "[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]";

#[tokio::test]
async fn a_chat_is_role_text_finish_done() {
    let server = Plan::for_test().start();
    let reply = server.chat(json!({"stream": true})).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    assert_eq!(reply.headers["cache-control"], "no-store");
    let marks = Marks::of(&reply.chunks()[0]);
    assert!(marks.id.starts_with("chatcmpl-"), "{}", marks.id);

    let mut expected = marks.chat(ROLE, "");
    for content in ["The", " heart", " is", " normal", "."] {
        expected += &marks.chat(&delta(0, content), "");
    }
    expected += &marks.chat(STOP, "");
    expected += "data: [DONE]\n\n";
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn usage_comes_last_and_is_null_before() {
    let server = Plan::for_test().start();
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = server.chat(options).await;
    let marks = Marks::of(&reply.chunks()[0]);

    let null = ",\"usage\":null";
    let mut expected = marks.chat(ROLE, null);
    for content in ["The", " heart", " is", " normal", "."] {
        expected += &marks.chat(&delta(0, content), null);
    }
    expected += &marks.chat(STOP, null);
    // <bos>, <start_of_turn>, …: the template's tokens and the question's.
    let num_prompt = tokens(
        "<bos><start_of_turn>user\nIs the heart normal?<end_of_turn>\n<start_of_turn>model\n",
    )
    .len();
    let usage = format!(
        ",\"usage\":{{\"prompt_tokens\":{num_prompt},\"completion_tokens\":6,\
         \"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":0}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":0}}}}",
        num_prompt + 6
    );
    expected += &marks.chat("[]", &usage);
    expected += "data: [DONE]\n\n";
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn usage_so_far_is_in_every_chunk_if_asked_for() {
    let server = Plan::for_test().start();
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let options = json!({"stream": true, "stream_options": options});
    // The role and five words; then the end, and the usage by itself.
    let chat = server.chat(options.clone()).await.chunks();
    let completion = server.complete(options).await.chunks();
    for (chunks, expected) in [
        (chat, vec![0, 1, 2, 3, 4, 5, 6, 6]),
        (completion, vec![1, 2, 3, 4, 5, 6, 6]),
    ] {
        let usages = chunks.iter().map(|chunk| &chunk["usage"]);
        let so_far: Vec<_> = usages
            .clone()
            .map(|usage| usage["completion_tokens"].as_u64())
            .collect();
        let expected: Vec<Option<u64>> = expected.into_iter().map(Some).collect();
        assert_eq!(so_far, expected);
        let last = &chunks.last().expect("chunks")["usage"];
        for usage in usages {
            assert_eq!(usage["prompt_tokens"], last["prompt_tokens"]);
        }
    }
}

#[tokio::test]
async fn a_completion_is_text_finish_done() {
    let server = Plan::for_test().start();
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = server.complete(options).await;
    let marks = Marks::of(&reply.chunks()[0]);
    assert!(marks.id.starts_with("cmpl-"), "{}", marks.id);

    let choice = |text: &str, finish: &str| {
        format!(
            "[{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":{finish}}}]"
        )
    };
    let null = ",\"usage\":null";
    let mut expected = String::new();
    for text in ["The", " heart", " is", " normal", "."] {
        expected += &marks.completion(&choice(text, "null"), null);
    }
    expected += &marks.completion(&choice("", "\"stop\""), null);
    let usage = ",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":6,\"total_tokens\":9,\
                 \"prompt_tokens_details\":{\"cached_tokens\":0},\
                 \"completion_tokens_details\":{\"reasoning_tokens\":0}}";
    expected += &marks.completion("[]", usage);
    expected += "data: [DONE]\n\n";
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn an_error_after_the_start_is_an_event() {
    let plan = Plan {
        script: always(tokens("The heart"), End::Fail),
        ..Plan::for_test()
    };
    let reply = plan.start().chat(json!({"stream": true})).await;
    let events = reply.events();
    assert_eq!(events.len(), 5, "{events:?}");
    assert_eq!(
        events[3],
        "{\"error\":{\"message\":\"The model could not compute this request.\",\
         \"type\":\"server_error\",\"param\":null,\"code\":\"step_failed\"}}"
    );
    assert_eq!(events[4], "[DONE]");
}

#[tokio::test]
async fn an_engine_that_dies_ends_the_stream_with_an_error() {
    for (end, stream_options) in [
        (End::Vanish, Value::Null),
        (End::Vanish, json!({"include_usage": true})),
    ] {
        let plan = Plan {
            script: always(tokens("The heart"), end),
            ..Plan::for_test()
        };
        let body = json!({"stream": true, "n": 2, "stream_options": stream_options});
        let events = plan.start().chat(body).await.events();
        let [.., error, done] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert!(error.contains("\"code\":\"engine_dead\""), "{error}");
        assert_eq!(done, "[DONE]");
        let num_errors = events
            .iter()
            .filter(|event| event.contains("\"error\""))
            .count();
        assert_eq!(num_errors, 1, "{events:?}");
    }
}

#[tokio::test]
async fn characters_are_never_split() {
    // Not in the vocabulary: each comes as two to four byte tokens.
    let text = "ſ→ˢ€𝛼\u{1F9E0} end";
    let plan = Plan {
        script: says(text),
        ..Plan::for_test()
    };
    let chunks = plan
        .start()
        .chat(json!({"stream": true, "return_token_ids": true}))
        .await
        .chunks();
    let contents = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    let joined: String = contents
        .inspect(|content| assert!(!content.contains('\u{fffd}')))
        .collect();
    assert_eq!(joined, text);
    let mut expected = tokens(text);
    expected.push(END_OF_TURN);
    let ids: Vec<u64> = chunks
        .iter()
        .flat_map(|chunk| {
            chunk["choices"][0]["token_ids"]
                .as_array()
                .expect("asked for")
        })
        .map(|id| id.as_u64().expect("an id"))
        .collect();
    let expected: Vec<u64> = expected.iter().map(|id| u64::from(id.0)).collect();
    assert_eq!(ids, expected, "no token is lost or told twice");
}

#[tokio::test]
async fn several_answers_interleave_by_index() {
    let plan = Plan {
        script: says("no acute disease is seen"),
        ..Plan::for_test()
    };
    let chunks = plan
        .start()
        .chat(json!({"stream": true, "n": 3}))
        .await
        .chunks();
    let mut texts = vec![String::new(); 3];
    let mut roles = [0; 3];
    let mut finishes = [0; 3];
    for chunk in &chunks {
        let choices = chunk["choices"].as_array().expect("choices");
        assert_eq!(choices.len(), 1);
        let index = choices[0]["index"].as_u64().expect("an index") as usize;
        let delta = &choices[0]["delta"];
        if delta["role"] == "assistant" {
            assert_eq!(texts[index], "", "the role comes first");
            roles[index] += 1;
        }
        assert_eq!(finishes[index], 0, "nothing comes after the finish");
        texts[index] += delta["content"].as_str().unwrap_or_default();
        finishes[index] += usize::from(choices[0]["finish_reason"] == "stop");
    }
    assert_eq!(texts, ["no acute disease is seen"; 3]);
    assert_eq!(roles, [1; 3]);
    assert_eq!(finishes, [1; 3]);
}

#[tokio::test]
async fn ids_of_the_prompt_come_with_the_first_chunk_only() {
    let mut server = Plan::for_test().start();
    let chunks = server
        .chat(json!({"stream": true, "return_token_ids": true}))
        .await
        .chunks();
    let prompt = json!(server.request().await.prompt);
    assert_eq!(chunks[0]["prompt_token_ids"], prompt);
    assert!(
        chunks[1..]
            .iter()
            .all(|chunk| chunk.get("prompt_token_ids").is_none())
    );

    let chunks = server
        .complete(json!({"stream": true, "return_token_ids": true}))
        .await
        .chunks();
    let prompt = json!(server.request().await.prompt);
    assert_eq!(chunks[0]["prompt_token_ids"], prompt);
    assert_eq!(chunks[0]["choices"][0]["prompt_token_ids"], prompt);
    assert!(chunks[1]["choices"][0].get("prompt_token_ids").is_none());
    assert_eq!(
        chunks[1]["choices"][0]["token_ids"],
        json!(tokens(" heart"))
    );

    let chunks = server.chat(json!({"stream": true})).await.chunks();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("prompt_token_ids").is_none())
    );
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["choices"][0].get("token_ids").is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_slow_stream_alive() {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    let plan = Plan {
        script: always(Vec::new(), End::Hang),
        ..Plan::for_test()
    };
    let server = plan.start();
    let body = super::server::chat_body(json!({"stream": true})).to_string();
    let request = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .expect("a plain request");
    let response = server
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("an answer");
    let mut body = response.into_body();
    let before = tokio::time::Instant::now();
    let mut frames = Vec::new();
    for _ in 0..3 {
        let frame = body
            .frame()
            .await
            .expect("goes on")
            .expect("does not break");
        let data = frame.into_data().expect("data");
        frames.push(String::from_utf8(data.to_vec()).expect("UTF-8"));
    }
    assert!(frames[0].contains("\"role\":\"assistant\""), "{frames:?}");
    assert_eq!(frames[1..], [": keep-alive\n\n", ": keep-alive\n\n"]);
    assert_eq!(before.elapsed().as_secs(), 20);
}
