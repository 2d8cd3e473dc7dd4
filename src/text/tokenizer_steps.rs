//! Checks the steps of a tokenizer.json before and after its model, and decides which are
//! supported.
//!
//! The `tokenizers` crate runs the steps; this module checks what the crate assumes. Regular
//! expressions are rejected: Gemma's tokenizers have none, and one that backtracks could block a
//! request for hours. Rejected too are steps that let a text grow without bound, and inputs on
//! which the crate panics.

use serde_json::Value;
use tokenizers::{NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// Maximum number of steps of one kind. Gemma's tokenizers have one to three.
const MAX_STEPS: usize = 16;
/// Maximum size in bytes of a pattern and of its replacement. Gemma's are a space and `▁`.
const MAX_REPLACED_BYTES: usize = 64;
/// Maximum factor by which all steps together may lengthen a text. Gemma's factor is three.
const MAX_GROWTH: usize = 16;
/// Maximum number of tokens that the post-processor may add around a text. Gemma's adds one.
const MAX_SURROUNDING: usize = 16;

/// A replacement of one text by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    pub(super) pattern: String,
    pub(super) content: String,
}

impl Replacement {
    /// Parses a step of the type "Replace".
    pub(super) fn from_json(step: &Value) -> Result<Self, String> {
        let pattern = step["pattern"]["String"].as_str();
        let pattern = pattern.filter(|pattern| !pattern.is_empty());
        let (Some(pattern), Some(content)) = (pattern, step["content"].as_str()) else {
            return Err(format!(
                "the replacement {step} is not supported: its pattern must be a String"
            ));
        };
        for text in [pattern, content] {
            if text.len() > MAX_REPLACED_BYTES {
                return Err(format!(
                    "a replacement has {} bytes; at most {MAX_REPLACED_BYTES} are taken",
                    text.len()
                ));
            }
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            content: content.to_owned(),
        })
    }
}

/// Rejects replacements that, applied in sequence, could make a text too long.
pub(super) fn check_growth<'a>(
    replacements: impl IntoIterator<Item = &'a Replacement>,
) -> Result<(), String> {
    let mut growth = 1;
    for Replacement { pattern, content } in replacements {
        growth *= content.len().div_ceil(pattern.len()).max(1);
        if growth > MAX_GROWTH {
            return Err(format!(
                "its replacements make a text {growth} times longer; at most {MAX_GROWTH} times \
                 are taken"
            ));
        }
    }
    Ok(())
}

/// Returns the steps of `part`: those in the list of this name if it is a Sequence, else the part
/// itself; none for null.
pub(super) fn steps<'a>(part: &'a Value, list: &str) -> Result<Vec<&'a Value>, String> {
    let mut steps = Vec::new();
    collect_steps(part, list, &mut steps)?;
    Ok(steps)
}

fn collect_steps<'a>(
    part: &'a Value,
    list: &str,
    steps: &mut Vec<&'a Value>,
) -> Result<(), String> {
    match &part[list] {
        _ if part.is_null() => {}
        Value::Array(inner) if part["type"] == "Sequence" => {
            for step in inner {
                collect_steps(step, list, steps)?;
            }
        }
        _ => steps.push(part),
    }
    if steps.len() > MAX_STEPS {
        return Err(format!("it has more than {MAX_STEPS} steps"));
    }
    Ok(())
}

/// Checks and builds the "normalizer".
pub(super) fn normalizer(part: Value) -> Result<Option<NormalizerWrapper>, String> {
    let mut replacements = Vec::new();
    for step in steps(&part, "normalizers")? {
        match step["type"].as_str() {
            Some("Replace") => replacements.push(Replacement::from_json(step)?),
            Some("Prepend") if is_short(&step["prepend"]) => {}
            Some("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase") => {}
            _ => {
                return Err(format!(
                    "the step {step} is not supported: Gemma's is Replace, with a String"
                ));
            }
        }
    }
    check_growth(&replacements)?;
    as_crate_reads(part)
}

/// Checks and builds the "pre_tokenizer".
pub(super) fn pre_tokenizer(part: Value) -> Result<Option<PreTokenizerWrapper>, String> {
    for step in steps(&part, "pretokenizers")? {
        let is_plain = step["type"] == "Split" && is_short(&step["pattern"]["String"]);
        if !is_plain {
            return Err(format!(
                "the step {step} is not supported: Gemma's is Split, at a String"
            ));
        }
    }
    as_crate_reads(part)
}

/// Checks and builds the "post_processor".
pub(super) fn post_processor(part: Value) -> Result<Option<PostProcessorWrapper>, String> {
    if part.is_null() {
        return Ok(None);
    }
    if part["type"] != "TemplateProcessing" {
        return Err(format!(
            "{part} is not supported: Gemma's is a TemplateProcessing"
        ));
    }
    // The crate looks up the tokens that the pieces name without checking that they exist.
    let mut num_added = 0;
    for (template, sequences) in [("single", &["A"][..]), ("pair", &["A", "B"])] {
        let Some(pieces) = part[template].as_array() else {
            return Err(format!("\"{template}\" must be a list of pieces"));
        };
        let mut found: Vec<&str> = Vec::new();
        for piece in pieces {
            if let Some(sequence) = piece["Sequence"]["id"].as_str() {
                found.push(sequence);
                continue;
            }
            let token = piece["SpecialToken"]["id"].as_str();
            let ids = token.and_then(|token| part["special_tokens"][token]["ids"].as_array());
            let (Some(token), Some(ids)) = (token, ids) else {
                return Err(format!(
                    "\"{template}\" has the piece {piece}, which is not known"
                ));
            };
            // The crate looks it up by name.
            if part["special_tokens"][token]["tokens"]
                .as_array()
                .map(Vec::len)
                != Some(ids.len())
            {
                return Err(format!(
                    "special token {token:?} has not one id for each token"
                ));
            }
            num_added += ids.len();
        }
        if template == "single" && found != sequences {
            return Err(format!(
                "\"{template}\" must have the text, A, once: {found:?}"
            ));
        }
        if found.iter().any(|sequence| !sequences.contains(sequence)) {
            return Err(format!(
                "\"{template}\" names {found:?}; only {sequences:?} are there"
            ));
        }
        if num_added > MAX_SURROUNDING {
            return Err(format!(
                "it adds more than {MAX_SURROUNDING} tokens to a text"
            ));
        }
    }
    as_crate_reads(part)
}

fn is_short(text: &Value) -> bool {
    text.as_str()
        .is_some_and(|text| (1..=MAX_REPLACED_BYTES).contains(&text.len()))
}

fn as_crate_reads<T: serde::de::DeserializeOwned>(part: Value) -> Result<Option<T>, String> {
    serde_json::from_value(part).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    fn split(pattern: Value) -> Value {
        json!({"type": "Split", "pattern": pattern, "behavior": "MergedWithPrevious", "invert": false})
    }

    #[test]
    fn gemmas_steps_are_taken() {
        assert!(normalizer(Value::Null).unwrap().is_none());
        assert!(normalizer(replace(" ", "▁")).unwrap().is_some());
        let both = json!([replace(" ", "▁"), {"type": "NFC"}]);
        let sequence = json!({"type": "Sequence", "normalizers": both});
        assert!(normalizer(sequence).unwrap().is_some());
        assert!(
            pre_tokenizer(split(json!({"String": " "})))
                .unwrap()
                .is_some()
        );
        assert!(pre_tokenizer(Value::Null).unwrap().is_none());
        assert!(post_processor(Value::Null).unwrap().is_none());
    }

    #[test]
    fn regular_expressions_are_refused() {
        let regex = json!({"Regex": "(a+)+$"});
        let error = pre_tokenizer(split(regex.clone())).unwrap_err();
        assert!(
            error.contains("(a+)+$") && error.contains("is not supported"),
            "{error}"
        );
        let step = json!({"type": "Replace", "pattern": regex, "content": ""});
        let step = json!({"type": "Sequence", "normalizers": [step]});
        let error = normalizer(step).unwrap_err();
        assert!(error.contains("its pattern must be a String"), "{error}");
    }

    #[test]
    fn text_cannot_grow_without_bound() {
        for steps in [
            vec![replace("a", &"a".repeat(60))],
            vec![replace("a", "aaa"); 3],
            vec![replace("a", &"a".repeat(5000))],
            vec![replace("a", "b"); 17],
            vec![replace("", "a")],
            vec![json!({"type": "Prepend", "prepend": "a".repeat(65)})],
            vec![json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})],
        ] {
            normalizer(json!({"type": "Sequence", "normalizers": steps})).unwrap_err();
        }
        for step in [
            split(json!({"String": ""})),
            split(json!({"String": "a".repeat(65)})),
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            json!(3),
        ] {
            pre_tokenizer(step).unwrap_err();
        }
    }

    fn template(single: Value) -> Value {
        json!({
            "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {
                "<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]},
                "odd": {"id": "odd", "ids": [1, 2], "tokens": ["a"]},
            },
        })
    }

    #[test]
    fn what_the_crate_would_panic_on_is_refused() {
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
        assert!(post_processor(template(json!([token("<bos>"), text("A")]))).is_ok());
        for (single, expected) in [
            (json!([text("B")]), "once: [\"B\"]"),
            (json!([text("A"), text("B")]), "once: [\"A\", \"B\"]"),
            (json!([text("A"), text("A")]), "once"),
            (json!([]), "once: []"),
            (json!([token("<what>"), text("A")]), "<what>"),
            (json!([token("odd"), text("A")]), "odd"),
            (json!("$A"), "a list of pieces"),
            (json!([3]), "not known"),
            (json!(vec![token("<bos>"); 17]), "once"),
        ] {
            let error = post_processor(template(single)).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let many = [vec![token("<bos>"); 17], vec![text("A")]].concat();
        let error = post_processor(template(json!(many))).unwrap_err();
        assert!(error.contains("more than 16 tokens"), "{error}");
        let error = post_processor(json!({"type": "BertProcessing"})).unwrap_err();
        assert!(error.contains("is not supported"), "{error}");
    }
}
