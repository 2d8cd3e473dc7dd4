//! Rewrites vLLM-style arguments to this program's form before parsing.
//!
//! Knows forms, not meanings: a first flag means `serve`, `--max_model_len` is `--max-model-len`,
//! `-tp` is a long flag, `--flag.key value` is `--flag {"key": value}`.

use std::ffi::{OsStr, OsString};

use serde_json::{Map, Value};

use super::counts::number;

/// vLLM's short forms.
const SHORT: [(&str, &str); 24] = [
    ("-q", "--quantization"),
    ("-n", "--nnodes"),
    ("-r", "--node-rank"),
    ("-O", "--optimization-level"),
    ("-tp", "--tensor-parallel-size"),
    ("-pp", "--pipeline-parallel-size"),
    ("-dcp", "--decode-context-parallel-size"),
    ("-pcp", "--prefill-context-parallel-size"),
    ("-dp", "--data-parallel-size"),
    ("-dpn", "--data-parallel-rank"),
    ("-dpr", "--data-parallel-start-rank"),
    ("-dpl", "--data-parallel-size-local"),
    ("-dpa", "--data-parallel-address"),
    ("-dpp", "--data-parallel-rpc-port"),
    ("-dpb", "--data-parallel-backend"),
    ("-dph", "--data-parallel-hybrid-lb"),
    ("-dpe", "--data-parallel-external-lb"),
    ("-dpm", "--data-parallel-multi-port-external-lb"),
    ("-ep", "--enable-expert-parallel"),
    ("-asc", "--api-server-count"),
    ("-sc", "--speculative-config"),
    ("-dc", "--diffusion-config"),
    ("-cc", "--compilation-config"),
    ("-ac", "--attention-config"),
];

/// Alternative spellings of vLLM.
const WORDS: [(&str, &str); 5] = [
    ("--disable-prefix-caching", "--no-enable-prefix-caching"),
    ("--no-allow-credentials", "--allow-credentials=false"),
    (
        "--no-enable-tokenizer-info-endpoint",
        "--enable-tokenizer-info-endpoint=false",
    ),
    (
        "--disable-tokenizer-info-endpoint",
        "--enable-tokenizer-info-endpoint=false",
    ),
    ("--no-strict-roles", "--strict-roles=false"),
];

/// Flags of vLLM's that are options here and take several words each.
const LISTS: [&str; 2] = ["--served-model-name", "--api-key"];

/// First arguments that belong to the program, not to `serve`.
const OWN: [&str; 4] = ["-h", "--help", "-V", "--version"];

/// The whole command line, the program's name first.
pub(super) fn written_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut line: Vec<OsString> = arguments.next().into_iter().collect();
    let mut arguments = arguments.peekable();
    if arguments.peek().is_some_and(|first| means_serve(first)) {
        line.push("serve".into());
    }
    line.extend(with_dashes(arguments));
    with_lists_apart(line)
}

/// Options in our form, up to a `--`; arguments after it are not changed.
pub(super) fn with_dashes(options: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut options = options.into_iter();
    let ours: Vec<OsString> = options
        .by_ref()
        .take_while(|option| option != "--")
        .map(|option| match option.to_str() {
            Some(text) => dashed(text).into(),
            None => option,
        })
        .collect();
    let mut line = with_objects(ours);
    let rest: Vec<OsString> = options.collect();
    if !rest.is_empty() {
        line.push("--".into());
        line.extend(rest);
    }
    line
}

/// Flags without a command are `serve`'s, and so is the id of a model or a path.
fn means_serve(first: &OsStr) -> bool {
    let Some(first) = first.to_str() else {
        return false;
    };
    (first.starts_with('-') && !OWN.contains(&first)) || first.contains('/')
}

fn dashed(option: &str) -> String {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let known = SHORT.iter().chain(&WORDS).find(|(known, _)| *known == name);
    let name = match known {
        Some((_, long)) => (*long).to_owned(),
        // vLLM's help for a word.
        None if name == "--help" => return name.to_owned(),
        // Keys after the first dot are as their object has them.
        None if name.starts_with("--") => match name.split_once('.') {
            Some((name, keys)) => format!("{}.{keys}", name.replace('_', "-")),
            None => name.replace('_', "-"),
        },
        None => return joined_short(option).unwrap_or_else(|| option.to_owned()),
    };
    match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    }
}

/// A short form of one letter with its value in the same word, as in `-O3`.
fn joined_short(option: &str) -> Option<String> {
    let joined = |(short, long): &(&str, &str)| {
        let value = option.strip_prefix(short).filter(|_| short.len() == 2)?;
        (!value.is_empty()).then(|| format!("{long}={value}"))
    };
    SHORT.iter().find_map(joined)
}

/// The options with those of `--flag.key value` collected into one `--flag={"key": value}` each, at
/// the end. A `+` after the key adds to a list.
fn with_objects(options: Vec<OsString>) -> Vec<OsString> {
    let mut line = Vec::new();
    let mut objects: Vec<(String, Value)> = Vec::new();
    let mut options = options.into_iter().peekable();
    while let Some(option) = options.next() {
        let dotted = option.to_str().and_then(dotted).map(|(flag, keys, value)| {
            let (flag, keys) = (flag.to_owned(), keys.to_owned());
            (flag, keys, value.map(str::to_owned))
        });
        let Some((flag, keys, joined)) = dotted else {
            line.push(option);
            continue;
        };
        let next = || {
            options
                .next_if(|next| next.to_str().is_some())?
                .into_string()
                .ok()
        };
        let Some(text) = joined.or_else(next) else {
            line.push(option);
            continue;
        };
        let (keys, value) = match keys.strip_suffix('+') {
            Some(keys) => (keys, text.split(',').map(Value::from).collect()),
            None => (keys.as_str(), read_value(&text)),
        };
        let nested = keys.rsplit('.').fold(value, |value, key| {
            Value::Object(Map::from_iter([(key.to_owned(), value)]))
        });
        match objects.iter_mut().find(|(known, _)| *known == flag) {
            Some((_, object)) => merge(object, nested),
            None => objects.push((flag, nested)),
        }
    }
    let objects = objects.into_iter();
    line.extend(objects.map(|(flag, object)| format!("{flag}={object}").into()));
    line
}

/// Flag, keys and value of `--flag.keys` or `--flag.keys=value`.
fn dotted(option: &str) -> Option<(&str, &str, Option<&str>)> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let (flag, keys) = name.split_once('.').filter(|_| name.starts_with("--"))?;
    Some((flag, keys, value))
}

/// A value as JSON, as a number such as 8k, or as the text that it is.
fn read_value(text: &str) -> Value {
    serde_json::from_str(text)
        .ok()
        .or_else(|| number(text).map(Value::from))
        .unwrap_or_else(|| Value::from(text))
}

/// Puts a value into another: objects key by key, lists one after the other, else the later counts.
fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (key, value) in value {
                match into.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(value)) => into.extend(value),
        (into, value) => *into = value,
    }
}

/// A line of `serve` in which a flag is repeated for each of its words, as in
/// `serve MODEL --served-model-name a b`. Where no model was named before it, the second word is
/// the model.
fn with_lists_apart(line: Vec<OsString>) -> Vec<OsString> {
    if line.get(1).is_none_or(|command| command != "serve") {
        return line;
    }
    let mut apart: Vec<OsString> = Vec::new();
    // The flag whose words these are, and how many there were.
    let mut list: Option<(&str, usize)> = None;
    let mut has_model = false;
    for (at, word) in line.into_iter().enumerate() {
        let text = word.to_str().unwrap_or_default();
        if text.starts_with('-') {
            has_model |= text == "--model" || text.starts_with("--model=");
            list = LISTS
                .into_iter()
                .find(|list| *list == text)
                .map(|flag| (flag, 0));
        } else {
            has_model |= at == 2;
            if let Some((flag, num_words)) = &mut list {
                if *num_words > 0 && has_model {
                    apart.push((*flag).into());
                }
                *num_words += 1;
            }
        }
        apart.push(word);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        let out = written_out(words);
        out.iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn flags_alone_mean_serve() {
        for (line, means) in [
            ("m", "m"),
            ("m --model a", "m serve --model a"),
            ("m --port=1", "m serve --port=1"),
            ("m -tp 1", "m serve --tensor-parallel-size 1"),
            (
                "m google/medgemma-4b-it --port 1",
                "m serve google/medgemma-4b-it --port 1",
            ),
            ("m /models/x", "m serve /models/x"),
            ("m --help", "m --help"),
            ("m -h", "m -h"),
            ("m --version", "m --version"),
            ("m -V", "m -V"),
            ("m serve demo", "m serve demo"),
            ("m srve", "m srve"),
        ] {
            assert_eq!(written(line), means);
        }
    }

    #[test]
    fn names_are_written_with_dashes_and_values_are_left_alone() {
        for (line, means) in [
            ("m serve --max_model_len 5", "m serve --max-model-len 5"),
            ("m serve --api_key=a_b=c_d", "m serve --api-key=a_b=c_d"),
            ("m serve --chat-template a_b", "m serve --chat-template a_b"),
            ("m serve my_model", "m serve my_model"),
            ("m serve -q=awq_x", "m serve --quantization=awq_x"),
            ("m serve -O3", "m serve --optimization-level=3"),
            (
                "m serve -O=3 -n2",
                "m serve --optimization-level=3 --nnodes=2",
            ),
            ("m serve -dpl 2", "m serve --data-parallel-size-local 2"),
            ("m serve --help=model", "m serve --help"),
            (
                "m bench load -- --max_model_len",
                "m bench load -- --max_model_len",
            ),
            ("m bench load -- --a.b 1", "m bench load -- --a.b 1"),
        ] {
            assert_eq!(written(line), means);
        }
    }

    #[test]
    fn dotted_flags_are_the_keys_of_an_object() {
        for (line, means) in [
            (
                "m serve --limit_mm_per_prompt.image 4 demo",
                "m serve demo --limit-mm-per-prompt={\"image\":4}",
            ),
            (
                "m serve --a.b_c.d=1k --x.y z --a.b_c.e True --a.b_c.d true",
                "m serve --a={\"b_c\":{\"d\":true,\"e\":\"True\"}} --x={\"y\":\"z\"}",
            ),
            (
                "m serve --a.l+ x,y --a.l+=z",
                "m serve --a={\"l\":[\"x\",\"y\",\"z\"]}",
            ),
            // A dot in a value is none in a name, and a key without a value is left alone.
            ("m serve --port=1.5", "m serve --port=1.5"),
            ("m serve ./a.b", "m serve ./a.b"),
            ("m serve --a.b", "m serve --a.b"),
        ] {
            assert_eq!(written(line), means);
        }
    }

    #[test]
    fn a_list_is_taken_apart_where_the_model_is_known() {
        for (line, means) in [
            (
                "m serve demo --served-model-name a b --port 1",
                "m serve demo --served-model-name a --served-model-name b --port 1",
            ),
            (
                "m serve --model demo --api-key a b c",
                "m serve --model demo --api-key a --api-key b --api-key c",
            ),
            (
                "m serve --served-model-name a demo",
                "m serve --served-model-name a demo",
            ),
            ("m pull demo --api-key a b", "m pull demo --api-key a b"),
        ] {
            assert_eq!(written(line), means);
        }
    }
}
