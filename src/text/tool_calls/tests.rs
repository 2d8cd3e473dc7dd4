//! Tests of what is a call and what is text, independent of how the text is split.

use proptest::prelude::*;

use super::super::answer::AnswerPart;
use super::*;

fn syntax() -> CallSyntax {
    let tool = |name: &str, properties: &[&str]| Tool {
        name: name.to_owned(),
        properties: properties.iter().map(|name| (*name).to_owned()).collect(),
    };
    CallSyntax {
        tools: Arc::new([
            tool("get_weather", &["city", "days"]),
            tool("get_time", &[]),
            tool("f", &["x"]),
        ]),
        limit: CallLimit::Several,
        place: CallPlace::Anywhere,
    }
}

fn parse(syntax: CallSyntax, pieces: &[&str]) -> Vec<AnswerPart> {
    let mut parser = CallParser::new(syntax);
    let mut parts = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut parts);
    }
    parser.finish(&mut parts);
    parts
}

/// Shows calls as `name{…}`, and text unchanged.
fn show(parts: &[AnswerPart]) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for part in parts {
        match part {
            AnswerPart::Text(text) => shown.push(format!("'{text}'")),
            AnswerPart::CallBegins { name } => shown.push(name.clone()),
            AnswerPart::CallArguments(text) => {
                shown.last_mut().expect("a call began").push_str(text);
            }
            AnswerPart::Reasoning(_) => panic!("no thoughts here"),
        }
    }
    shown
}

fn read(text: &str) -> Vec<String> {
    show(&parse(syntax(), &[text]))
}

const OSLO: &str = "get_weather{\"city\":\"Oslo\"}";

#[test]
fn calls_are_found_in_every_form() {
    for text in [
        "[get_weather(city=\"Oslo\")]",
        "[get_weather(\"Oslo\")]",
        " [ get_weather ( city = 'Oslo' , ) , ] \n",
        "get_weather(city=\"Oslo\")",
        "```tool_code\n[get_weather(city=\"Oslo\")]\n```",
        "```tool_code\nget_weather(city=\"Oslo\")\n```\n",
        "```python\nget_weather(\n    city=\"Oslo\",\n)\n```",
        "```\n[get_weather(city=\"Oslo\")]```",
        "```[get_weather(city=\"Oslo\")]```",
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}",
        "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}",
        "{\"arguments\": {\"city\": \"Oslo\"}, \"name\": \"get_weather\"}",
        "[{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}]",
        "```json\n{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}\n```",
        "```json\n[{\"name\": \"get_weather\", \"parameters\": {'city': 'Oslo'}}]\n```",
        // The closing bracket or fence is missing.
        "[get_weather(city=\"Oslo\")",
        "```tool_code\n[get_weather(city=\"Oslo\")]\n`",
    ] {
        assert_eq!(read(text), [OSLO], "{text}");
    }
}

#[test]
fn several_calls_and_text_around_them() {
    let time = "get_time{}";
    for (text, expected) in [
        (
            "[get_weather(city=\"Oslo\"), get_time()]",
            &[OSLO, time][..],
        ),
        ("[get_weather(city=\"Oslo\")]\n[get_time()]", &[OSLO, time]),
        ("get_weather(city=\"Oslo\")\nget_time()", &[OSLO, time]),
        (
            "```tool_code\nget_weather(city=\"Oslo\")\nget_time()\n```",
            &[OSLO, time],
        ),
        (
            "```tool_code\n[get_weather('Oslo')]\n[get_time()]\n```",
            &[OSLO, time],
        ),
        (
            "[{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}, {\"name\": \"get_time\"}]",
            &[OSLO, time],
        ),
        (
            "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}\n{\"name\": \"get_time\", \"parameters\": {}}",
            &[OSLO, time],
        ),
        ("I look it up.\n\n[get_time()]", &["'I look it up.'", time]),
        (
            "Sure: ```tool_code\nget_time()\n``` Done.",
            &["'Sure:'", time, "' Done.'"],
        ),
        ("[get_time()]\n\nI asked.", &[time, "'I asked.'"]),
        ("[get_time(), oh]", &[time, "', oh]'"]),
        ("[[get_time()]]", &["'['", time, "']'"]),
        ("```json\nfirst [get_time()]", &["'```json\nfirst'", time]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn arguments_become_one_object() {
    for (text, expected) in [
        (
            "[get_weather('Oslo', 3)]",
            "get_weather{\"city\":\"Oslo\",\"days\":3}",
        ),
        (
            "[get_weather(\"Oslo\", days=3)]",
            "get_weather{\"city\":\"Oslo\",\"days\":3}",
        ),
        ("[f(True)]", "f{\"x\":true}"),
        ("[f( None )]", "f{\"x\":null}"),
        (
            "[f(x={'a': [1, 2.50, (3,)], \"b\": None}, y=-1e3)]",
            "f{\"x\":{\"a\":[1,2.50,[3]],\"b\":null},\"y\":-1e3}",
        ),
        (
            "[f(x=\"a)], b\", y='it\\'s')]",
            "f{\"x\":\"a)], b\",\"y\":\"it's\"}",
        ),
        (
            "{\"name\": \"f\", \"parameters\": {\"x\": {\"y\": [true, null, \"}\"]}}}",
            "f{\"x\":{\"y\":[true,null,\"}\"]}}",
        ),
    ] {
        assert_eq!(read(text), [expected], "{text}");
    }
}

#[test]
fn all_else_is_text() {
    for text in [
        "",
        "  \n ",
        "The heart is normal.",
        "[1, 2] and {\"a\": 1} and `code` and ```rust\nfn f() {}\n```",
        "[other(x=1)]",
        "[get_weather_now(city=\"Oslo\")]",
        "{\"name\": \"other\", \"parameters\": {}}",
        "{\"name\": \"f\", \"description\": \"a tool\"}",
        "{\"name\": \"f\", \"parameters\": \"x\"}",
        "{\"parameters\": {\"x\": 1}}",
        "[get_weather",
        "{\"name\": \"f\"",
        "```tool_code\n",
        // A formula, not a call.
        "Let [f(x)] be, and f(x) = 2, with [f(x, y)].",
        "[f(x==1)]",
        // There is no parameter left for the argument.
        "[get_time(5)]",
        "[f(oops=, 3)]",
        "I used get_time() before.",
        "[ ] [] [,] { }",
    ] {
        let expected = match text {
            "" => vec![],
            text => vec![format!("'{text}'")],
        };
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn what_breaks_off_or_proves_wrong_is_no_json() {
    for (text, expected) in [
        ("[f(x=\"ab", &["f{\"x\":\"ab"][..]),
        ("[f(x=12", &["f{\"x\":"]),
        (
            "{\"name\": \"f\", \"parameters\": {\"x\": [1,",
            &["f{\"x\":[1"],
        ),
        ("[f(x=1, x=2)]", &["f{\"x\":1", "'x=2)]'"]),
        ("[f(x=1, y=oops)] So.", &["f{\"x\":1", "'y=oops)] So.'"]),
        ("[f(x=1, 2)]", &["f{\"x\":1", "'2)]'"]),
        ("[f(x=1 2)]", &["f{\"x\":1", "'2)]'"]),
    ] {
        assert_eq!(read(text), expected, "{text}");
        let call = &expected[0][1..];
        assert!(serde_json::from_str::<serde_json::Value>(call).is_err());
    }
}

#[test]
fn an_answer_ends_with_its_only_call() {
    let one = CallSyntax {
        limit: CallLimit::One,
        ..syntax()
    };
    for text in [
        "[get_time(), f(x=1)] More.",
        "[get_time()] More.",
        "{\"name\": \"get_time\"}, {\"name\": \"f\"}",
        "```tool_code\nget_time()\nf(x=1)\n```",
    ] {
        let mut parser = CallParser::new(one.clone());
        let mut parts = Vec::new();
        parser.push(text, &mut parts);
        assert!(parser.has_ended(), "{text}");
        parser.finish(&mut parts);
        assert_eq!(show(&parts), ["get_time{}"], "{text}");
    }
    assert_eq!(show(&parse(one, &["No [f(x)] here"])), ["'No [f(x)] here'"]);
}

#[test]
fn calls_may_count_at_the_beginning_only() {
    let beginning = CallSyntax {
        place: CallPlace::Beginning,
        ..syntax()
    };
    for (text, expected) in [
        (
            " [get_time()]\n[get_time()]",
            &["get_time{}", "get_time{}"][..],
        ),
        ("Now [get_time()]", &["'Now [get_time()]'"]),
        (
            "[get_time()] and [get_time()]",
            &["get_time{}", "'and [get_time()]'"],
        ),
    ] {
        assert_eq!(show(&parse(beginning.clone(), &[text])), expected, "{text}");
    }
}

#[test]
fn text_is_held_back_only_while_it_may_be_a_call() {
    let mut parser = CallParser::new(syntax());
    let mut push = |text: &str| {
        let mut parts = Vec::new();
        parser.push(text, &mut parts);
        show_streamed(&parts)
    };
    assert_eq!(push("Well, "), "Well,");
    assert_eq!(push("[get_"), "");
    assert_eq!(push("ready"), " [get_ready");
    assert_eq!(push(" {"), "");
    assert_eq!(push("\"name\": \"f"), "");
    assert_eq!(push("\", \"parameters\": {\"x"), "<f>{\"x");
    assert_eq!(push("\": \"a b"), "\":\"a b");
    assert_eq!(push("\"}"), "\"}");
    assert_eq!(push("} ["), "");
    assert_eq!(push("f(x"), "");
    assert_eq!(push("="), "");
    assert_eq!(push("[1, "), "<f>{\"x\":[1");
    assert_eq!(push("23, 4"), ",23,");
    assert_eq!(push("])"), "4]}");
    assert_eq!(push("] "), "");
    assert_eq!(push("So"), " So");
}

fn show_streamed(parts: &[AnswerPart]) -> String {
    let shown = parts.iter().map(|part| match part {
        AnswerPart::CallBegins { name } => format!("<{name}>"),
        AnswerPart::Text(text) | AnswerPart::CallArguments(text) | AnswerPart::Reasoning(text) => {
            text.clone()
        }
    });
    shown.collect()
}

/// Fragments of calls, so that random texts are often almost calls.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("f(".to_owned()),
        Just("get_weather(".to_owned()),
        Just("x=".to_owned()),
        Just("city=".to_owned()),
        Just(")".to_owned()),
        Just(", ".to_owned()),
        Just("\"a\\n\\u00e9\"".to_owned()),
        Just("'é🫁'".to_owned()),
        Just("1.5".to_owned()),
        Just("None".to_owned()),
        Just("{\"name\": \"f\", \"parameters\": {".to_owned()),
        Just("{\"arguments\": {\"x\": [1]}, \"name\": \"f\"".to_owned()),
        Just("\"x\": ".to_owned()),
        Just("}".to_owned()),
        Just("{".to_owned()),
        Just("```".to_owned()),
        Just("tool_code\n".to_owned()),
        Just("json\n".to_owned()),
        Just("\n".to_owned()),
        "[a-z\\[\\]{}()\"'=,.:` \n0-9\\\\é]{0,4}",
    ];
    proptest::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn however_a_text_is_cut_its_parts_are_the_same(
        text in fragments(),
        cuts in proptest::collection::vec(0..200_usize, 0..12),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(chars.len())).collect();
        cuts.extend([0, chars.len()]);
        cuts.sort_unstable();
        let pieces: Vec<String> =
            cuts.windows(2).map(|cut| String::from_iter(&chars[cut[0]..cut[1]])).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        for limit in [CallLimit::Several, CallLimit::One] {
            let syntax = CallSyntax { limit, ..syntax() };
            let whole = parse(syntax.clone(), &[&text]);
            prop_assert_eq!(&parse(syntax, &pieces), &whole);
            // Arguments are JSON, unless the call was cut off or invalid.
            for part in &whole {
                if let AnswerPart::CallArguments(arguments) = part {
                    let value = serde_json::from_str::<serde_json::Value>(arguments);
                    let is_object = value.is_ok_and(|value| value.is_object());
                    prop_assert_eq!(is_object, arguments.ends_with('}') && is_object);
                }
            }
        }
    }

    #[test]
    fn text_without_tools_names_stays_as_it_is(text in "[\\[\\]{}()\"'=,.:` \n0-9a-z]{0,40}") {
        prop_assume!(!text.contains('f') && !text.contains("get_"));
        let expected = match text.as_str() {
            "" => vec![],
            text => vec![AnswerPart::Text(text.to_owned())],
        };
        prop_assert_eq!(parse(syntax(), &[&text]), expected);
    }
}
