//! `response_format` and `structured_outputs`: which constraint the engine gets, and what is
//! refused.

use std::sync::Arc;

use futures_util::FutureExt;
use medgemma::core::{Constraint, TokenId, Urgency};
use serde_json::{Value, json};

use super::server::{END_OF_TURN, Plan, TestServer, tokens};

/// What the engine is given to keep to.
async fn constraint(server: &mut TestServer, extra: Value) -> Option<Arc<dyn Constraint>> {
    server.chat(extra).await.ok();
    server.request().await.constraint
}

/// Whether `text` and then the end of the turn keep to it.
fn takes(constraint: &dyn Constraint, text: &str) -> bool {
    let mut state = constraint.start().expect("it begins");
    let mut all = tokens(text);
    all.push(END_OF_TURN);
    let is_allowed = |at: usize| {
        let before = &all[at.saturating_sub(1)..at];
        let mask = state
            .next_mask(before, usize::MAX, Urgency::Now)
            .now_or_never();
        let mask = mask.expect("it computes here").expect("it goes on");
        mask.expect("not all may come").contains(all[at])
    };
    (0..all.len()).all(is_allowed)
}

fn schema(schema: Value) -> Value {
    let named = json!({"name": "answer", "strict": true, "schema": schema});
    json!({"response_format": {"type": "json_schema", "json_schema": named}})
}

#[tokio::test]
async fn each_format_is_kept_to() {
    let mut server = Plan::for_test().start();
    let flag = json!({
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": false,
    });
    let structured = |name: &str, value: Value| json!({"structured_outputs": {name: value}});
    for (fields, good, bad) in [
        (
            json!({"response_format": {"type": "json_object"}}),
            vec![r#"{"a": [1, "x"]}"#, "{}"],
            vec!["[]", "1", "{", "The heart"],
        ),
        (
            json!({"response_format": {"type": "json_object", "schema": flag}}),
            vec![r#"{"ok": true}"#, r#"{"ok":false}"#],
            vec![r#"{"ok": 1}"#, "{}", r#"{"a": [1, "x"]}"#],
        ),
        (
            schema(flag.clone()),
            vec![r#"{"ok": true}"#, r#"{"ok":false}"#],
            vec![r#"{"ok": 1}"#, "{}", r#"{"ok": true, "b": 1}"#],
        ),
        (
            structured("json", flag.clone()),
            vec![r#"{"ok": true}"#],
            vec!["{}"],
        ),
        (
            structured("json", json!(flag.to_string())),
            vec![r#"{"ok": true}"#],
            vec!["{}"],
        ),
        (
            structured("regex", json!("[0-9]{2}%?")),
            vec!["12", "99%"],
            vec!["1", "123", "a 12"],
        ),
        (
            structured("choice", json!(["yes", "no \"way\"\n"])),
            vec!["yes", "no \"way\"\n"],
            vec!["y", "yes!", "no", ""],
        ),
        (
            structured("grammar", json!("start: \"a\" start | \"b\"")),
            vec!["aab", "b"],
            vec!["a", "abb"],
        ),
        (
            json!({"guided_json": flag}),
            vec![r#"{"ok": true}"#],
            vec!["{}"],
        ),
        (
            json!({"guided_regex": "[0-9]{2}", "guided_decoding_backend": "xgrammar"}),
            vec!["12"],
            vec!["1"],
        ),
        (
            json!({"guided_choice": ["yes", "no"]}),
            vec!["yes"],
            vec!["maybe"],
        ),
        (
            json!({"guided_grammar": "root ::= \"a\" root | \"b\""}),
            vec!["aab"],
            vec!["abb"],
        ),
        (
            structured("json_object", json!(true)),
            vec!["{}"],
            vec!["[]"],
        ),
    ] {
        let kept = constraint(&mut server, fields.clone()).await;
        let kept = kept.unwrap_or_else(|| panic!("{fields} is ignored"));
        for text in good {
            assert!(takes(&*kept, text), "{fields}: {text}");
        }
        for text in bad {
            assert!(!takes(&*kept, text), "{fields}: {text}");
        }
    }
    for free in [
        json!({}),
        json!({"response_format": {"type": "text"}}),
        json!({"response_format": null, "structured_outputs": null}),
        json!({"structured_outputs": {}}),
        json!({"structured_outputs": {"json_object": false}}),
    ] {
        assert!(
            constraint(&mut server, free.clone()).await.is_none(),
            "{free}"
        );
    }
}

#[tokio::test]
async fn a_grammar_is_gbnf_or_lark() {
    let mut server = Plan::for_test().start();
    let vllms = "root ::= select_statement

        select_statement ::= \"SELECT \" column \" from \" table

        column ::= \"a\" | \"b\" # two

        table ::= [a-z]{1,3}
    ";
    let recursive = "root ::= value\n\
                     value ::= \"[\" (value (\",\" value)*)? \"]\" | [0-9]+ | \"\\\"\" [^\"]* \"\\\"\"";
    for (grammar, good, bad) in [
        (
            "root ::= \"left\" | \"right\"",
            vec!["left", "right"],
            vec!["up", "", "lefty"],
        ),
        (
            "start: \"left\" | \"right\"",
            vec!["left", "right"],
            vec!["up", "", "lefty"],
        ),
        (
            vllms,
            vec!["SELECT a from xyz", "SELECT b from t"],
            vec!["SELECT c from t", "SELECT a from", "SELECT a from wxyz"],
        ),
        (
            "root ::= [a-z0-9]+ \"@\" [a-z]+ \".\" (\"com\" | \"org\")",
            vec!["ann7@mail.org"],
            vec!["@mail.org", "ann@mail.net"],
        ),
        (
            recursive,
            vec!["[1,[\"a\",22],[]]", "7", "\"\""],
            vec!["[1", "[1,]", "x"],
        ),
    ] {
        let fields = json!({"structured_outputs": {"grammar": grammar}});
        let constraint = constraint(&mut server, fields).await;
        let constraint = constraint.expect("a grammar was asked for");
        for text in good {
            assert!(takes(&*constraint, text), "{text} in {grammar}");
        }
        for text in bad {
            assert!(!takes(&*constraint, text), "{text} in {grammar}");
        }
    }
    for (grammar, expected) in [
        (
            "root ::= \"a\"\nb ::= [z-a]",
            "line 2: the range 'z-a' is in the wrong order",
        ),
        ("root ::= city", "line 1: the rule 'city' is not defined"),
        ("a ::= \"a\"", "the grammar has no rule 'root'"),
        (
            "start = \"a\"",
            "it was read as Lark, since no rule has '::='",
        ),
    ] {
        let reply = server
            .chat(json!({"structured_outputs": {"grammar": grammar}}))
            .await;
        let (status, _, param) = reply.error();
        assert_eq!(
            (status, param.as_deref()),
            (400, Some("structured_outputs.grammar")),
            "{grammar}"
        );
        assert!(reply.body.contains(expected), "{grammar}: {}", reply.body);
    }
}

#[tokio::test]
async fn completions_keep_to_formats_too_and_all_answers_do() {
    let mut server = Plan::for_test().start();
    let body = json!({"structured_outputs": {"choice": ["yes"]}, "n": 2});
    server.complete(body).await.ok();
    for _ in 0..2 {
        let kept = server.request().await.constraint.expect("a constraint");
        assert!(takes(&*kept, "yes") && !takes(&*kept, "no"));
    }
    server
        .complete(json!({"response_format": {"type": "json_object"}}))
        .await
        .ok();
    assert!(server.request().await.constraint.is_some());
}

#[tokio::test]
async fn an_answer_ends_with_any_of_the_models_stop_tokens() {
    let mut server = Plan::for_test().start();
    let fields = json!({"structured_outputs": {"choice": ["yes"]}});
    let kept = constraint(&mut server, fields).await.expect("a constraint");
    let mut state = kept.start().expect("it begins");
    let mut mask_behind = |sampled: &[TokenId]| {
        let mask = state
            .next_mask(sampled, usize::MAX, Urgency::Now)
            .now_or_never();
        let mask = mask.expect("it computes here").expect("it goes on");
        mask.expect("not all may come")
    };
    let mask = mask_behind(&[]);
    assert!(!mask.contains(TokenId(1)) && !mask.contains(END_OF_TURN));
    let mask = mask_behind(&tokens("yes"));
    let allowed: Vec<u32> = (0..768).filter(|id| mask.contains(TokenId(*id))).collect();
    assert_eq!(allowed, [1, END_OF_TURN.0]);
}

#[tokio::test]
async fn what_cannot_be_kept_to_is_named() {
    let server = Plan::for_test().start();
    let structured = |name: &str, value: Value| json!({"structured_outputs": {name: value}});
    let format = |kind: &str| json!({"response_format": {"type": kind}});
    let place = "response_format.json_schema.schema";
    for (fields, code, param, words) in [
        (
            format("xml"),
            "invalid_value",
            "response_format.type",
            "xml",
        ),
        (
            format("json_schema"),
            "missing_required_parameter",
            "response_format.json_schema",
            "json_schema",
        ),
        (
            json!({"response_format": {"type": "text", "json_schema": {"name": "a"}}}),
            "invalid_combination",
            "response_format.json_schema",
            "json_schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}),
            "invalid_value",
            "response_format.json_schema.name",
            "64",
        ),
        (
            schema(json!({"properties": {"a": {"not": {}}}})),
            "invalid_value",
            &format!("{place}.properties.a"),
            "'not'",
        ),
        (
            schema(json!({"type": "strin"})),
            "invalid_value",
            place,
            "strin",
        ),
        (
            schema(json!({"$ref": "#/$defs/a"})),
            "invalid_value",
            place,
            "$defs/a",
        ),
        (
            schema(json!({"type": "string", "pattern": "("})),
            "invalid_value",
            place,
            "'pattern'",
        ),
        (
            structured("regex", json!("(")),
            "invalid_value",
            "structured_outputs.regex",
            "regex",
        ),
        (
            structured("choice", json!([])),
            "invalid_value",
            "structured_outputs.choice",
            "choice",
        ),
        (
            structured("grammar", json!("start: nobody")),
            "invalid_value",
            "structured_outputs.grammar",
            "nobody",
        ),
        (
            structured("json", json!("{")),
            "invalid_value",
            "structured_outputs.json",
            "JSON",
        ),
        (
            structured("structural_tag", json!({"a": 1})),
            "unsupported_parameter",
            "structured_outputs.structural_tag",
            "structural_tag",
        ),
        (
            json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
            "invalid_combination",
            "structured_outputs.choice",
            "regex",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}),
            "invalid_combination",
            "structured_outputs.regex",
            "response_format",
        ),
        (
            json!({"response_format": {"type": "text", "schema": {}}}),
            "invalid_combination",
            "response_format.schema",
            "json_object",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "min_tokens": 2}),
            "invalid_combination",
            "min_tokens",
            "min_tokens",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "ignore_eos": true}),
            "invalid_combination",
            "ignore_eos",
            "ignore_eos",
        ),
    ] {
        let reply = server.chat(fields.clone()).await;
        let expected = (400, Some(code.to_owned()), Some(param.to_owned()));
        assert_eq!(reply.error(), expected, "{fields}: {}", reply.body);
        let message = reply.json()["error"]["message"].to_string();
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[tokio::test]
async fn tokens_are_limited_with_and_without_a_grammar() {
    let mut server = Plan::for_test().start();
    let digits: Vec<u32> = tokens("0123456789").iter().map(|id| id.0).collect();
    let mut allowed = digits.clone();
    allowed.extend([1, END_OF_TURN.0]);
    let kept = constraint(&mut server, json!({"allowed_token_ids": allowed})).await;
    let kept = kept.expect("a constraint");
    assert!(takes(&*kept, "2030") && !takes(&*kept, "2o3o"));
    let both = json!({"allowed_token_ids": allowed, "guided_regex": "[0-9a-f]{2}"});
    let kept = constraint(&mut server, both).await.expect("a constraint");
    assert!(takes(&*kept, "20") && !takes(&*kept, "2f") && !takes(&*kept, "203"));
    let kept = constraint(&mut server, json!({"bad_words": ["heart"]})).await;
    let kept = kept.expect("a constraint");
    assert!(takes(&*kept, "The lung") && !takes(&*kept, "heart"));
    for (fields, param) in [
        (json!({"allowed_token_ids": []}), "allowed_token_ids"),
        (
            json!({"allowed_token_ids": [5, 99_999]}),
            "allowed_token_ids[1]",
        ),
        (json!({"bad_words": ["a", " "]}), "bad_words[1]"),
        (json!({"bad_words": vec!["a"; 1025]}), "bad_words"),
        (
            json!({"guided_choice": ["a"], "response_format": {"type": "json_object"}}),
            "guided_choice",
        ),
    ] {
        let reply = server.chat(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}");
        assert_eq!(reply.json()["error"]["param"], param, "{fields}");
    }
}
