//! The command line as vLLM's users and scripts write it, put into the form that is read here.
//!
//! Knows forms, not meanings: a first flag means `serve`, `--max_model_len` is `--max-model-len`,
//! `-tp` is a long flag.

use std::ffi::{OsStr, OsString};

/// vLLM's short forms that are longer than a letter, and `-q`.
const SHORT: [(&str, &str); 4] = [
    ("-tp", "--tensor-parallel-size"),
    ("-pp", "--pipeline-parallel-size"),
    ("-dp", "--data-parallel-size"),
    ("-q", "--quantization"),
];

/// First arguments that are the program's own, not `serve`'s.
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
    line
}

/// Options in our form, up to a `--`: what follows it is somebody else's.
pub(super) fn with_dashes(
    options: impl IntoIterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    let mut is_ours = true;
    options.into_iter().map(move |option| {
        is_ours &= option != "--";
        match option.to_str() {
            Some(text) if is_ours => dashed(text).into(),
            _ => option,
        }
    })
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
    let short = SHORT.iter().find(|(short, _)| *short == name);
    let name = match short {
        Some((_, long)) => (*long).to_owned(),
        None if name.starts_with("--") => name.replace('_', "-"),
        None => return option.to_owned(),
    };
    match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    }
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
            (
                "m bench load -- --max_model_len",
                "m bench load -- --max_model_len",
            ),
        ] {
            assert_eq!(written(line), means);
        }
    }
}
