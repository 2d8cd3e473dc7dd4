//! Answers in which calls of tools are looked for.

use std::sync::Arc;

use medgemma::text::{
    AnswerPart, CallForm, CallKind, CallLimit, CallParser, CallPlace, CallSyntax, Tool,
};

fn syntax(limit: CallLimit, place: CallPlace) -> CallSyntax {
    let tool = |name: &str, properties: &[&str]| Tool {
        name: name.to_owned(),
        kind: CallKind::Function,
        properties: properties.iter().map(|name| (*name).to_owned()).collect(),
    };
    CallSyntax {
        tools: Arc::new([tool("f", &["x", "y"]), tool("get_time", &[])]),
        limit,
        place,
        form: CallForm::Free,
    }
}

fn parts(syntax: CallSyntax, pieces: &[&str]) -> Vec<AnswerPart> {
    let mut parser = CallParser::new(syntax);
    let mut parts = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut parts);
    }
    parser.finish(&mut parts);
    parts
}

pub(super) fn tool_calls(answer: &[u8]) {
    let Some((choice, answer)) = answer.split_first() else {
        return;
    };
    let Ok(answer) = std::str::from_utf8(answer) else {
        return;
    };
    let limit = [CallLimit::Several, CallLimit::One][usize::from(choice & 1)];
    let place = [CallPlace::Anywhere, CallPlace::Beginning][usize::from(choice >> 1 & 1)];
    let whole = parts(syntax(limit, place), &[answer]);
    // However it arrives.
    let singly: Vec<_> = answer.split("").collect();
    assert_eq!(whole, parts(syntax(limit, place), &singly));
    for part in whole {
        if let AnswerPart::CallArguments(arguments) = part {
            let value = serde_json::from_str::<serde_json::Value>(&arguments);
            assert!(value.is_ok_and(|value| value.is_object()), "{arguments}");
        }
    }
}
