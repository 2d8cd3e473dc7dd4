//! Finds a checkpoint's chat template and the names of its tokens.
//!
//! Knows the file layout of the Hugging Face hub; nothing of Jinja.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::files::{self, MAX_TEMPLATE_BYTES, MAX_TOKENIZER_CONFIG_BYTES, damaged, shown};

/// Tokens that templates use by name: `bos_token` is `<bos>`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedTokens(pub BTreeMap<String, String>);

/// Tokens of the family, which transformers' tokenizer class names where no file does.
const USUAL: [(&str, &str); 4] = [
    ("bos_token", "<bos>"),
    ("eos_token", "<eos>"),
    ("pad_token", "<pad>"),
    ("unk_token", "<unk>"),
];

impl NamedTokens {
    /// Reads every `…_token` of tokenizer_config.json, and those of special_tokens_map.json that
    /// the first file does not define. Both files are optional. What neither mentions is called as
    /// the family calls it, if the tokenizer has such a control token; a field that is null names
    /// none.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if one of them is invalid.
    pub fn from_dir(dir: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        let mut mentioned = BTreeSet::new();
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = dir.join(file);
            let config = read_json(&path)?.unwrap_or_default();
            let extra = &config["extra_special_tokens"];
            let fields = [extra, &config].into_iter().filter_map(Value::as_object);
            for (name, value) in fields
                .flatten()
                .filter(|(name, _)| name.ends_with("_token"))
            {
                mentioned.insert(name.clone());
                // A string, or an object with the token's flags. Booleans are other settings, such
                // as `add_bos_token`.
                let content = match value {
                    Value::Null | Value::Bool(_) => continue,
                    Value::Object(flags) => flags.get("content").and_then(Value::as_str),
                    other => other.as_str(),
                };
                let Some(content) = content else {
                    return Err(damaged(
                        &path,
                        format_args!("{} must be a token's text", shown(name)),
                    ));
                };
                tokens
                    .entry(name.clone())
                    .or_insert_with(|| content.to_owned());
            }
        }
        let control = tokenizer.control_tokens().tokens();
        for (name, content) in USUAL {
            if !mentioned.contains(name) && control.iter().any(|token| token.content == content) {
                tokens.insert(name.to_owned(), content.to_owned());
            }
        }
        Ok(Self(tokens))
    }
}

/// A chat template's source and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateSource {
    pub(super) source: String,
    pub(super) file: PathBuf,
}

/// Returns the checkpoint's chat template, if it has one: chat_template.jinja, else the
/// "chat_template" of chat_template.json, processor_config.json or tokenizer_config.json, in the
/// order in which transformers' processors look for it.
pub(super) fn find_template(dir: &Path) -> Result<Option<TemplateSource>> {
    let file = dir.join("chat_template.jinja");
    if let Some(source) = files::read_text(&file, MAX_TEMPLATE_BYTES)? {
        return Ok(Some(TemplateSource { source, file }));
    }
    for name in [
        "chat_template.json",
        "processor_config.json",
        "tokenizer_config.json",
    ] {
        let file = dir.join(name);
        let config = read_json(&file)?.unwrap_or_default();
        let template = &config["chat_template"];
        if !template.is_null() {
            let source = default_template(template);
            let source = source.map_err(|message| damaged(&file, message))?;
            if source.len() as u64 > MAX_TEMPLATE_BYTES {
                let message = format!(
                    "\"chat_template\" has {} bytes; at most {MAX_TEMPLATE_BYTES} are expected",
                    source.len()
                );
                return Err(damaged(&file, message));
            }
            return Ok(Some(TemplateSource { source, file }));
        }
    }
    Ok(None)
}

/// Reads a template that the operator configured: a file, or the source itself.
pub(super) fn given_template(file_or_source: &str) -> Result<String> {
    if file_or_source.contains("{{") || file_or_source.contains("{%") {
        return Ok(file_or_source.to_owned());
    }
    fs::read_to_string(file_or_source).map_err(|error| {
        Error::Config(format!(
            "the chat template {file_or_source} cannot be read: {error}. Name a file that holds a \
             Jinja template, or give the template itself."
        ))
    })
}

/// Returns the default template. The field is a string, or a list of named templates.
fn default_template(template: &Value) -> std::result::Result<String, String> {
    if let Some(source) = template.as_str() {
        return Ok(source.to_owned());
    }
    let Some(templates) = template.as_array() else {
        return Err("\"chat_template\" is neither a string nor a list of templates".to_owned());
    };
    let mut names = templates.iter().map(|template| &template["name"]);
    let default = names.position(|name| name == "default");
    let source = default.and_then(|at| templates[at]["template"].as_str());
    source.map(str::to_owned).ok_or_else(|| {
        let names: Vec<_> = templates.iter().map(|t| t["name"].to_string()).collect();
        format!(
            "\"chat_template\" has no template named \"default\", only: {}",
            names.join(", ")
        )
    })
}

fn read_json(file: &Path) -> Result<Option<Value>> {
    let Some(text) = files::read(file, MAX_TOKENIZER_CONFIG_BYTES)? else {
        return Ok(None);
    };
    let value = files::json(file, &text)?;
    if !value.is_object() {
        return Err(damaged(file, "expected a JSON object"));
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn found(files: &[(&str, &str)]) -> Option<String> {
        let found = find_template(dir(files).path()).unwrap();
        found.map(|found| found.source)
    }

    fn named(files: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        let named = NamedTokens::from_dir(dir(files).path(), &Tokenizer::for_test())?;
        Ok(named.0.into_iter().collect())
    }

    #[test]
    fn the_template_is_found_wherever_it_lies() {
        let jinja = ("chat_template.jinja", "one");
        let json = ("chat_template.json", r#"{"chat_template": "two"}"#);
        let config = ("tokenizer_config.json", r#"{"chat_template": "three"}"#);
        let processor = (
            "processor_config.json",
            r#"{"processor_class": "Gemma3Processor", "chat_template": "five"}"#,
        );
        let list = (
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": "four"}]}"#,
        );
        let no_template = ("tokenizer_config.json", "{}");
        assert_eq!(found(&[config, json, jinja]).as_deref(), Some("one"));
        assert_eq!(found(&[config, processor, json]).as_deref(), Some("two"));
        assert_eq!(found(&[config, processor]).as_deref(), Some("five"));
        assert_eq!(found(&[processor]).as_deref(), Some("five"));
        assert_eq!(found(&[config]).as_deref(), Some("three"));
        assert_eq!(found(&[list]).as_deref(), Some("four"));
        assert_eq!(found(&[no_template]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn damage_names_the_file() {
        for (file, text, expected) in [
            ("tokenizer_config.json", "{", "EOF"),
            (
                "tokenizer_config.json",
                r#"{"chat_template": "a", "chat_template": "b"}"#,
                "\"chat_template\" is there twice",
            ),
            (
                "chat_template.json",
                r#"{"chat_template": 3}"#,
                "neither a string nor a list",
            ),
            (
                "chat_template.json",
                r#"{"chat_template": [{"name": "rag", "template": "x"}]}"#,
                "no template named \"default\", only: \"rag\"",
            ),
        ] {
            let error = find_template(dir(&[(file, text)]).path())
                .unwrap_err()
                .to_string();
            assert!(error.contains(file) && error.contains(expected), "{error}");
        }
        for (text, expected) in [
            (r#"{"bos_token": 3}"#, "bos_token must be a token's text"),
            (r#"{"bos_token": {"lstrip": true}}"#, "bos_token must be"),
            ("[]", "expected a JSON object"),
        ] {
            for file in ["tokenizer_config.json", "special_tokens_map.json"] {
                let error = named(&[(file, text)]).unwrap_err();
                let error = error.to_string();
                assert!(error.contains(file) && error.contains(expected), "{error}");
            }
        }
        let long = "x".repeat(MAX_TEMPLATE_BYTES as usize + 1);
        let config = json!({"chat_template": long}).to_string();
        for (file, text) in [
            ("chat_template.jinja", &long),
            ("tokenizer_config.json", &config),
        ] {
            let error = find_template(dir(&[(file, text)]).path())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(file) && error.contains("has 262145 bytes"),
                "{error}"
            );
        }
        let not_utf8 = dir(&[]);
        fs::write(not_utf8.path().join("chat_template.jinja"), [0xFF]).unwrap();
        let error = find_template(not_utf8.path()).unwrap_err().to_string();
        assert!(error.contains("chat_template.jinja"), "{error}");
    }

    #[test]
    fn tokens_are_named_by_strings_or_objects() {
        let config = r#"{
            "bos_token": "<b>", "eos_token": {"content": "<end_of_turn>", "lstrip": false},
            "add_bos_token": true, "pad_token": null,
            "extra_special_tokens": {"boi_token": "<image>"}
        }"#;
        let map = r#"{"bos_token": "other", "pad_token": {"content": "<eos>"}}"#;
        let files = [
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
        ];
        assert_eq!(
            named(&files).unwrap(),
            [
                ("boi_token", "<image>"),
                ("bos_token", "<b>"),
                ("eos_token", "<end_of_turn>"),
                ("pad_token", "<eos>"),
                ("unk_token", "<unk>"),
            ]
            .map(|(name, content)| (name.to_owned(), content.to_owned()))
        );
    }

    /// As transformers 5.24 has it for a GemmaTokenizer.
    #[test]
    fn tokens_that_no_file_mentions_have_the_familys_names() {
        let usual = USUAL.map(|(name, content)| (name.to_owned(), content.to_owned()));
        assert_eq!(named(&[]).unwrap(), usual);
        let config = ("tokenizer_config.json", r#"{"add_bos_token": true}"#);
        assert_eq!(named(&[config]).unwrap(), usual);
        let none = ("tokenizer_config.json", r#"{"bos_token": null}"#);
        assert_eq!(named(&[none]).unwrap(), usual[1..]);
    }

    #[test]
    fn a_person_names_a_file_or_gives_the_template() {
        assert_eq!(
            given_template("{{ bos_token }}").unwrap(),
            "{{ bos_token }}"
        );
        let dir = dir(&[("my.jinja", "text")]);
        let path = dir.path().join("my.jinja");
        assert_eq!(given_template(path.to_str().unwrap()).unwrap(), "text");
        let error = given_template("no/such/file").unwrap_err();
        assert!(
            matches!(&error, Error::Config(text) if text.contains("no/such/file")),
            "{error}"
        );
    }
}
