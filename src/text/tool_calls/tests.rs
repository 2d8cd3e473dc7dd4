//! Tests of what is a call and what is text, independent of how the text is split.

use proptest::prelude::*;

use super::super::answer::AnswerPart;
use super::*;

fn syntax() -> CallSyntax {
    let tool = |name: &str, properties: &[&str]| Tool {
        name: name.to_owned(),
        kind: CallKind::Function,
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
        form: CallForm::Free,
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
            AnswerPart::CallBegins { name, .. } => shown.push(name.clone()),
            AnswerPart::CallArguments(text) => {
                shown.last_mut().expect("a call began").push_str(text);
            }
            AnswerPart::Reasoning(_) => panic!("no reasoning here"),
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

/// Returns the parts of a text that arrives in one piece, and checks that they are the same however
/// it is cut in two, and for single characters.
fn read_however_cut(text: &str) -> Vec<String> {
    let whole = read(text);
    let singly: Vec<&str> = text.split("").collect();
    assert_eq!(show(&parse(syntax(), &singly)), whole, "{text}");
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        let (before, after) = text.split_at(at);
        assert_eq!(show(&parse(syntax(), &[before, after])), whole, "{text}");
    }
    whole
}

#[test]
fn wrappers_and_other_objects_leave_nothing_behind() {
    for text in [
        // Arguments that are a string.
        r#"{"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}"#,
        r#"{"name": "get_weather", "arguments": "{'city': 'Oslo'}"}"#,
        r#"{"arguments": "{\"city\": \"Oslo\"}", "name": "get_weather"}"#,
        // Python dicts.
        "{'name': 'get_weather', 'arguments': {'city': 'Oslo'}}",
        "[{'name': 'get_weather', 'parameters': {'city': 'Oslo',},},]",
        // Other names of the same.
        r#"{"name": "get_weather", "args": {"city": "Oslo"}}"#,
        r#"{"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Oslo"}}"#,
        r#"{"tool": "get_weather", "args": {"city": "Oslo"}}"#,
        r#"{"tool_name": "get_weather", "tool_input": {"city": "Oslo"}}"#,
        r#"{"function": "get_weather", "parameters": {"city": "Oslo"}}"#,
        r#"{"action": "get_weather", "action_input": {"city": "Oslo"}}"#,
        r#"{"name": "default_api.get_weather", "arguments": {"city": "Oslo"}}"#,
        // As OpenAI's API has them.
        r#"{"type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}}"#,
        r#"{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]}"#,
        r#"{"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}}]}"#,
        r#"{"role": "assistant", "content": null, "tool_calls": [{"name": "get_weather", "arguments": {"city": "Oslo"}}]}"#,
        r#"{"tool_call": {"name": "get_weather", "arguments": {"city": "Oslo"}}}"#,
        r#"{"function_call": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}}"#,
        "```json\n{\"tool_calls\": [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}]}\n```",
        // Tags.
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
        "<tool_call>[get_weather(city='Oslo')]</tool_call>\n",
        "<tool_call>get_weather(city='Oslo')</tool_call>",
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}",
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}</tool_c",
        "<tool_code>\nprint(get_weather(city='Oslo'))\n</tool_code>",
        "<function_calls><tool_call>get_weather('Oslo')</tool_call></function_calls>",
        "```xml\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n```",
        // Code.
        "```tool_code\nprint(get_weather(city='Oslo'))\n```",
        "```tool_code\nprint(default_api.get_weather(city='Oslo'))\n```",
        "```tool_code\ndefault_api.get_weather(city = 'Oslo')\n```",
        "```python\nprint([get_weather('Oslo')])\n```",
        "```tool_code\n# Ask.\nprint(get_weather('Oslo'))  # So.\n```",
        "```tool_code\nweather = get_weather(city='Oslo')\nprint(weather)\n```",
        "tool_code\nprint(get_weather(city='Oslo'))",
        "print(get_weather(city='Oslo'))",
        "[default_api.get_weather(city='Oslo')]",
        "functions.get_weather(city='Oslo');",
        // Strings.
        "[get_weather(city=\"\"\"Oslo\"\"\")]",
        "[get_weather(city='Os' 'lo')]",
        "[get_weather(city=(\"Os\"\n\"lo\"))]",
        "[get_weather(city='Os' + \"lo\")]",
        "[get_weather(r'Oslo')]",
        "[get_weather(city=f\"Oslo\")]",
        // Something is missing.
        "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}",
        "{\"tool_calls\": [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}]",
    ] {
        assert_eq!(read_however_cut(text), [OSLO], "{text}");
    }
}

#[test]
fn values_are_what_python_makes_of_them() {
    for (text, expected) in [
        ("[f(x=\"\"\"New\nYork\"\"\")]", "{\"x\":\"New\\nYork\"}"),
        ("[f(x='''it's''')]", "{\"x\":\"it's\"}"),
        (
            "[f(x=0x1F, y=TRUE, z=NULL)]",
            "{\"x\":31,\"y\":true,\"z\":null}",
        ),
        ("[f(\"\")]", "{\"x\":\"\"}"),
        (
            "[f(x=(1), max-n=2, größe=3)]",
            "{\"x\":1,\"max-n\":2,\"größe\":3}",
        ),
        (
            "{\"name\": \"f\", \"parameters\": {\"x\": True, \"y\": None, 1: 0xA}}",
            "{\"x\":true,\"y\":null,\"1\":10}",
        ),
        ("{\"name\": \"f\", \"arguments\": \"\"}", "{}"),
        ("{\"name\": \"f\", \"arguments\": null}", "{}"),
    ] {
        assert_eq!(read_however_cut(text), [format!("f{expected}")], "{text}");
    }
}

#[test]
fn a_custom_tools_call_carries_text() {
    let custom = CallSyntax {
        tools: Arc::new([Tool {
            name: "patch".to_owned(),
            kind: CallKind::Custom,
            properties: vec!["input".to_owned()],
        }]),
        ..syntax()
    };
    for text in [
        "[patch(input=\"a \\\"b\\\"\\nc\")]",
        "[patch(\"\"\"a \"b\"\nc\"\"\")]",
        "{\"name\": \"patch\", \"parameters\": {\"input\": \"a \\\"b\\\"\\nc\"}}",
        "{\"name\": \"patch\", \"arguments\": \"a \\\"b\\\"\\nc\"}",
        "{'name': 'patch', 'input': 'a \"b\"\\nc'}",
    ] {
        let parts = parse(custom.clone(), &[text]);
        let call = AnswerPart::CallBegins {
            name: "patch".to_owned(),
            kind: CallKind::Custom,
        };
        let arguments = AnswerPart::CallArguments("a \"b\"\nc".to_owned());
        assert_eq!(parts, [call, arguments], "{text}");
    }
    for text in [
        "[patch()]",
        "[patch(input=1)]",
        "[patch(input='a', more='b')]",
        "{\"name\": \"patch\"}",
    ] {
        let parts = parse(custom.clone(), &[text]);
        assert_eq!(parts, [AnswerPart::Text(text.to_owned())]);
    }
}

#[test]
fn names_may_have_dots() {
    let dotted = CallSyntax {
        tools: Arc::new([Tool {
            name: "default_api.v1.find".to_owned(),
            kind: CallKind::Function,
            properties: vec!["x".to_owned()],
        }]),
        ..syntax()
    };
    for text in [
        "[default_api.v1.find(x=1)]",
        "default_api.v1.find(1)",
        "{\"name\": \"default_api.v1.find\", \"arguments\": {\"x\": 1}}",
    ] {
        let found = show(&parse(dotted.clone(), &[text]));
        assert_eq!(found, ["default_api.v1.find{\"x\":1}"], "{text}");
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
        (
            "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}, {\"name\": \"get_time\"};",
            &[OSLO, time],
        ),
        (
            "{\"tool_calls\": [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}, {\"name\": \"get_time\"}]}",
            &[OSLO, time],
        ),
        (
            "<tool_call>\nget_weather('Oslo')\n</tool_call>\n<tool_call>\nget_time()\n</tool_call>",
            &[OSLO, time],
        ),
        (
            "<tool_calls><tool_call>get_weather('Oslo')</tool_call><tool_call>get_time()</tool_call></tool_calls>",
            &[OSLO, time],
        ),
        (
            "```tool_code\nprint(get_weather('Oslo'), get_time())\n```",
            &[OSLO, time],
        ),
        (
            "```tool_code\nprint(get_weather('Oslo'))\nx = get_time()\nprint(x)\n```\nThen.",
            &[OSLO, time, "'Then.'"],
        ),
        (
            "I see. <tool_call>get_time()</tool_call> So.",
            &["'I see.'", time, "' So.'"],
        ),
        ("get_time(); get_time()", &[time, time]),
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
        "<tool_call></tool_call>",
        "a < b and <b>get_time()</b> and `get_time()`",
        "print(1) and print and tool_code",
        "tool_code\nprint(1)",
        "default_api is a module, default_api.other(x=1)",
        "{\"tool\": \"f\"}",
        "{\"type\": \"object\", \"function\": 5}",
    ] {
        let expected = match text {
            "" => vec![],
            text => vec![format!("'{text}'")],
        };
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn a_call_that_breaks_off_or_proves_wrong_stays_text() {
    for text in [
        "[f(x=\"ab",
        "[f(x=12",
        "f(x=\"ab\"",
        "{\"name\": \"f\", \"parameters\": {\"x\": [1,",
        "{\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1\"}",
        "{\"name\": \"f\", \"arguments\": \"x\"}",
        "{\"name\": \"f\", \"arguments\": [1]}",
        "{\"name\": \"f\", \"arguments\": {\"x\": 1}, \"more\": 2}",
        "{\"name\": \"f\", \"name\": \"f\", \"arguments\": {}}",
        "{\"tool_calls\": []}",
        "{\"type\": \"object\", \"name\": \"f\"}",
        "[f(x=1, x=2)]",
        "[f(x=1, y=oops)] So.",
        "[f(x=1, 2)]",
        "[f(x=1 2)]",
        "[f(x=\"\"\"a\"\")]",
        "[f(x=\"a\" + y)]",
        "[f(x=1e999)]",
        "[f(x={1, 2})]",
        "print(f(x=y))",
        "default_api.f(x=y)",
        "<tool_call>f(x=y)</tool_call>",
        "<tool_call>\n{\"name\": \"other\"}\n</tool_call>",
        "```tool_code\nx = 1\nprint(x)\n```",
        "```tool_code\nprint(f(x=y))\n```",
    ] {
        assert_eq!(read(text), [format!("'{text}'")], "{text}");
    }
    for (text, expected) in [
        ("[get_time(), f(x=\"ab", ["get_time{}", "', f(x=\"ab'"]),
        (
            "[get_time(), f(x=oops)] So.",
            ["get_time{}", "', f(x=oops)] So.'"],
        ),
        // A call in what proved to be none.
        ("[f(x=1 [get_time()]", ["'[f(x=1'", "get_time{}"]),
    ] {
        assert_eq!(read(text), expected, "{text}");
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
    assert_eq!(push("\", \"parameters\": {\"x"), "");
    assert_eq!(push("\": \"a b\"}"), "");
    assert_eq!(push("}"), "<f>{\"x\":\"a b\"}");
    assert_eq!(push(" ["), "");
    assert_eq!(push("f(x=[1, 2])"), "<f>{\"x\":[1,2]}");
    assert_eq!(push("] "), "");
    assert_eq!(push("So"), " So");
    // An answer in JSON, as soon as it is seen to be something else.
    assert_eq!(push(" {\"name"), "");
    assert_eq!(push("\": \"fo"), " {\"name\": \"fo");
    assert_eq!(push("\"} {\"type\": \"o"), "\"} {\"type\": \"o");
    assert_eq!(push("\"} {\"id\": 1, \"age\":"), "\"} {\"id\": 1, \"age\":");
}

fn show_streamed(parts: &[AnswerPart]) -> String {
    let shown = parts.iter().map(|part| match part {
        AnswerPart::CallBegins { name, .. } => format!("<{name}>"),
        AnswerPart::Text(text) | AnswerPart::CallArguments(text) | AnswerPart::Reasoning(text) => {
            text.clone()
        }
    });
    shown.collect()
}

/// Fragments of calls, so that random texts are often almost calls.
fn fragments() -> impl Strategy<Value = String> {
    const FIXED: [&str; 43] = [
        "[",
        "]",
        "f(",
        "print(",
        "default_api.",
        "get_weather(",
        "f(x=1)",
        "f(x=",
        "x=",
        "y = ",
        "city=",
        ")",
        ", ",
        "\"a\\n\\u00e9\"",
        "'é🫁'",
        "\"\"\"",
        "'''",
        " + ",
        "r'",
        "1.5",
        "0x1F",
        "1e999",
        "None",
        "TRUE",
        "{\"name\": \"f\", \"parameters\": {",
        "{'name': 'f', 'arguments': ",
        "{\"arguments\": {\"x\": [1]}, \"name\": \"f\"",
        "\"{\\\"x\\\": 1}\"",
        "{\"tool_calls\": [",
        "{\"type\": \"function\", \"function\": ",
        "\"x\": ",
        "}",
        "{",
        "```",
        "tool_code\n",
        "json\n",
        "# ",
        "\n",
        "<tool_call>",
        "</tool_call>",
        " 9zz ",
        " \"9zz\" ",
        "9zz",
    ];
    let fragment = prop_oneof![
        8 => proptest::sample::select(&FIXED[..]).prop_map(str::to_owned),
        1 => "[a-z\\[\\]{}()\"'=,.:` \n0-9\\\\é<>+#]{0,4}",
    ];
    proptest::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

/// The texts of an answer, without white space, and the arguments of its calls.
fn texts_and_arguments(parts: &[AnswerPart]) -> (String, Vec<String>) {
    let mut texts = String::new();
    let mut arguments: Vec<String> = Vec::new();
    for part in parts {
        match part {
            AnswerPart::Text(text) => texts.push_str(text),
            AnswerPart::CallBegins { .. } => arguments.push(String::new()),
            AnswerPart::CallArguments(text) => {
                arguments.last_mut().expect("a call began").push_str(text);
            }
            AnswerPart::Reasoning(_) => panic!("no reasoning here"),
        }
    }
    texts.retain(|c| !c.is_whitespace());
    (texts, arguments)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

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
        }
    }

    #[test]
    fn every_call_has_an_object_and_nothing_else_is_lost(text in fragments()) {
        let parts = parse(syntax(), &[&text]);
        let (texts, arguments) = texts_and_arguments(&parts);
        for arguments in &arguments {
            let value = serde_json::from_str::<serde_json::Value>(arguments);
            prop_assert!(value.is_ok_and(|value| value.is_object()), "{}", arguments);
        }
        if arguments.is_empty() && !text.is_empty() {
            prop_assert_eq!(&parts, &[AnswerPart::Text(text.clone())]);
        }
        // Text is what was written, in order.
        let mut written = text.chars();
        for c in texts.chars() {
            prop_assert!(written.any(|next| next == c), "{} was not written", texts);
        }
        // Words are in the text or in arguments, but for comments of code.
        let count = |text: &str| text.matches("zz").count();
        let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        // Without its white space, another text may have more of them.
        if !text.contains('#') && count(&joined) == count(&text) {
            let found: usize = arguments.iter().map(|json| count(json)).sum();
            prop_assert_eq!(count(&texts) + found, count(&text));
        }
    }

    #[test]
    fn text_without_tools_names_stays_as_it_is(text in "[\\[\\]{}()\"'=,.:` \n0-9a-z<>#+_]{0,40}") {
        prop_assume!(!text.contains('f') && !text.contains("get_"));
        let expected = match text.as_str() {
            "" => vec![],
            text => vec![AnswerPart::Text(text.to_owned())],
        };
        prop_assert_eq!(parse(syntax(), &[&text]), expected);
    }
}

#[test]
fn an_answer_of_beginnings_takes_no_time_to_speak_of() {
    let text = "[f(x='' ".to_owned() + &"'[f(x=' ".repeat(100_000);
    let begun = std::time::Instant::now();
    let parts = parse(syntax(), &[&text]);
    assert_eq!(parts, [AnswerPart::Text(text)]);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn under_a_grammar_arguments_are_returned_as_they_come() {
    let bound = || CallSyntax {
        form: CallForm::Grammar,
        ..syntax()
    };
    for text in [
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\", \"days\": 2}}",
        "[{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Os}\\\"lo\"}}, {\"name\": \
         \"get_time\", \"parameters\": {}}]",
    ] {
        let pieces: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let mut parser = CallParser::new(bound());
        let mut returned = Vec::new();
        for piece in &pieces {
            let mut parts = Vec::new();
            parser.push(piece, &mut parts);
            returned.push(parts);
        }
        let mut last = Vec::new();
        parser.finish(&mut last);
        returned.push(last);
        let num_returned = returned.iter().filter(|parts| !parts.is_empty()).count();
        assert!(num_returned > 10, "{num_returned} times");
        let mut whole = Vec::new();
        for parts in returned {
            join(parts, &mut whole);
        }
        assert_eq!(show(&whole), read(text), "{text}");
        // Cut off anywhere, it is a call as soon as it has arguments, and text before that.
        for end in 1..text.len() {
            let cut = &text[..end];
            let shown = show(&parse(bound(), &[cut]));
            let first = text.find("{\"city\"").expect("it has arguments");
            match end > first {
                true => assert!(shown[0].starts_with("get_weather{"), "{cut}: {shown:?}"),
                false => assert_eq!(shown, [format!("'{cut}'")], "{cut}"),
            }
        }
    }
}
