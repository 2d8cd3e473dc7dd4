//! Tests of the grammars for calls, with llguidance over single bytes.

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};

use serde_json::json;

use super::definitions::arguments_schema;
use super::*;
use crate::api::http::extract::parse;

fn plan(choice: Value, parallel: bool, strict: bool) -> ToolPlan {
    let body = json!({"tools": [
        {"type": "function", "function": {"name": "f", "strict": strict, "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer"}},
            "required": ["x"],
            "additionalProperties": false,
        }}},
        {"type": "function", "function": {"name": "get-g"}},
    ]});
    let request: crate::api::openai::chat::request::ChatRequest = {
        let mut body = body;
        body["messages"] = json!([]);
        body["tool_choice"] = choice;
        body["parallel_tool_calls"] = json!(parallel);
        parse(&body.to_string()).expect("valid")
    };
    let fields = ToolFields {
        tools: request.tools,
        tool_choice: request.tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
    };
    let plan = convert_tools(fields, ToolFormat::Pythonic).expect("valid");
    plan.expect("tools may be called")
}

fn schema(value: Value) -> AskedGrammar {
    AskedGrammar {
        param: "response_format".to_owned(),
        source: GrammarSource::JsonSchema(value.to_string()),
    }
}

/// Whether the grammar accepts `text` as a whole answer.
fn takes(grammar: &AskedGrammar, text: &str) -> bool {
    let GrammarSource::Calls(lark) = &grammar.source else {
        panic!("{grammar:?}");
    };
    let env = ApproximateTokEnv::single_byte_env();
    let factory = ParserFactory::new_simple(&env).expect("a factory");
    let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone()));
    let parser = parser.unwrap_or_else(|error| panic!("{error} in {lark}"));
    let mut matcher = Matcher::new(Ok(parser));
    let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
    let num_valid = matcher.validate_tokens(&bytes).expect("no fault");
    if num_valid < bytes.len() {
        return false;
    }
    matcher.consume_tokens(&bytes).expect("they are valid");
    matcher.is_accepting().expect("no fault")
}

const F: &str = "{\"name\": \"f\", \"parameters\": {\"x\": 1}}";
const G: &str = "{\"name\": \"get-g\", \"parameters\": {}}";

#[test]
fn demanded_calls_are_all_there_is() {
    let several = plan(json!("required"), true, false);
    let one = plan(json!("required"), false, false);
    let named = json!({"type": "function", "function": {"name": "f"}});
    let named = plan(named, true, false);
    let grammar = |plan: &ToolPlan| plan.grammar(None).expect("no contradiction").expect("one");
    let [several, one, named] = [&several, &one, &named].map(grammar);
    for (text, of_several, of_one, of_named) in [
        (F.to_owned(), true, true, true),
        (G.to_owned(), true, true, false),
        (format!("[{F}]"), true, false, false),
        (format!("[{F}, {G}]"), true, false, false),
        (format!("[{}]", vec![F; 16].join(", ")), true, false, false),
        (format!("[{}]", vec![F; 17].join(", ")), false, false, false),
        ("[]".to_owned(), false, false, false),
        (String::new(), false, false, false),
        ("Hello".to_owned(), false, false, false),
        (F.replace('1', "\"a\""), false, false, false),
        // White space is limited.
        (
            F.replace('1', &format!("{}1", " ".repeat(200))),
            false,
            false,
            false,
        ),
        (F.replace("\"x\"", "\"y\""), false, false, false),
        (G.replace("{}", "{\"x\": 1}"), false, false, false),
        (F.replace("\"f\"", "\"h\""), false, false, false),
    ] {
        assert_eq!(takes(&several, &text), of_several, "{text}");
        assert_eq!(takes(&one, &text), of_one, "{text}");
        assert_eq!(takes(&named, &text), of_named, "{text}");
    }
}

#[test]
fn where_the_model_decides_it_calls_or_says() {
    let auto = plan(json!("auto"), true, false);
    assert!(auto.grammar(None).expect("no contradiction").is_none());
    assert_eq!(auto.format(None), ToolFormat::Pythonic);

    let asked = || schema(json!({"type": "array", "items": {"type": "integer"}}));
    let either = auto.grammar(Some(asked())).expect("no contradiction");
    let either = either.expect("one");
    for (text, expected) in [(F, true), ("[1, 2]", true), ("Hello", false), ("", false)] {
        assert_eq!(takes(&either, text), expected, "{text}");
    }
    assert_eq!(auto.format(Some(&asked())), ToolFormat::Json);

    let strict = plan(json!("auto"), true, true);
    let grammar = strict
        .grammar(None)
        .expect("no contradiction")
        .expect("one");
    for (text, expected) in [
        (F, true),
        ("Hello,\n{\"name\": \"f\"}", true),
        ("", true),
        ("{\"name\": \"f\", \"parameters\": {\"x\": \"a\"}}", false),
        ("[f(x=1)]", false),
        ("```json\n{}", false),
    ] {
        assert_eq!(takes(&grammar, text), expected, "{text}");
    }
    assert_eq!(strict.syntax().place, CallPlace::Beginning);
    assert_eq!(strict.format(None), ToolFormat::Json);
}

#[test]
fn a_demanded_call_wins_over_another_grammar() {
    let required = plan(json!("required"), true, false);
    let grammar = |asked| required.grammar(asked).expect("a grammar of calls");
    assert_eq!(grammar(Some(schema(json!({})))), grammar(None));
    let auto = plan(json!("auto"), true, false);
    // Where the model decides, not every grammar can stand beside calls.
    let regex = AskedGrammar {
        param: "structured_outputs".to_owned(),
        source: GrammarSource::Regex("a*".to_owned()),
    };
    assert!(auto.grammar(Some(regex)).is_err());
}

#[test]
fn arguments_are_always_an_object() {
    for (parameters, expected) in [
        (json!({}), json!({"type": "object"})),
        (
            json!({"properties": {}}),
            json!({"properties": {}, "type": "object"}),
        ),
        (json!({"anyOf": []}), json!({"anyOf": []})),
    ] {
        let schema = arguments_schema(parameters.as_object());
        assert_eq!(schema, expected.to_string());
    }
    let none: Value = serde_json::from_str(&arguments_schema(None)).expect("JSON");
    assert_eq!(none["additionalProperties"], json!(false));
}
