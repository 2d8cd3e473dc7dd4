//! Tests that the table handles every flag of vLLM, in each syntax.

use std::collections::BTreeSet;

use super::*;

/// A line of vLLM's list: its form, its name and its other names.
type Listed<'a> = (&'a str, &'a str, Vec<&'a str>);

fn listed() -> Vec<Listed<'static>> {
    let lines = include_str!("vllm-0.33.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let form = words.next().expect("a form");
            let name = words.next().expect("a name");
            (form, name, words.collect())
        })
        .collect()
}

fn command() -> Command {
    known_to(Command::new("serve").arg(Arg::new("model"))).args_override_self(true)
}

fn read_line(line: &[&str]) -> Result<Vec<String>, String> {
    let line = [&["serve"], line].concat();
    let matches = command().try_get_matches_from(line);
    read(&matches.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

/// The flag with this value, in each way that it can be written.
fn ways_to_write(flag: &VllmFlag, value: &str) -> Vec<Vec<String>> {
    let name = flag.name;
    let joined = vec![format!("--{name}={value}")];
    match (flag.form, value) {
        (Form::Switch, "true") => vec![joined, vec![format!("--{name}")]],
        (Form::Switch, "false") => {
            let opposite = flag.opposite().map(|name| vec![format!("--{name}")]);
            let off = vec![format!("--no-{name}")];
            [joined, off].into_iter().chain(opposite).collect()
        }
        _ => vec![joined, vec![format!("--{name}"), value.to_owned()]],
    }
}

#[test]
fn every_flag_does_what_its_row_says() {
    for flag in FLAGS {
        // Either of a switch's names may be told.
        let enable = flag.name.strip_prefix("enable-");
        let name = enable.or_else(|| flag.name.strip_prefix("disable-"));
        let name = name.unwrap_or(flag.name);
        let values: &[&str] = match flag.form {
            Form::Switch => &["true", "false"],
            Form::Value | Form::Values => &["other"],
        };
        let fine = match flag.rule {
            Rule::Needless(_) => &[],
            Rule::Only(fine, _) => fine,
            Rule::Object(..) => &["{}"],
        };
        for value in values.iter().chain(fine) {
            for line in ways_to_write(flag, value) {
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                let read = read_line(&line);
                match flag.rule {
                    Rule::Needless(why) => {
                        let notes = read.expect("it is understood");
                        assert_eq!(notes.len(), 1, "{line:?}");
                        assert!(notes[0].contains(name) && notes[0].ends_with(why));
                    }
                    _ if fine.contains(value) => assert_eq!(read, Ok(Vec::new()), "{line:?}"),
                    Rule::Only(_, instead) | Rule::Object(_, instead) => {
                        let error = read.expect_err("it is refused");
                        assert!(error.contains(name) && error.contains(instead), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn none_is_listed_twice_and_each_says_something() {
    fn says(name: &str, rule: Rule) {
        let (Rule::Needless(said) | Rule::Only(_, said) | Rule::Object(_, said)) = rule;
        assert!(said.len() > 10 && !said.ends_with('.'), "--{name}: {said}");
        if let Rule::Object(keys, _) = rule {
            for (key, rule) in keys {
                says(key, *rule);
            }
        }
    }
    let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), FLAGS.len());
    for flag in FLAGS {
        says(flag.name, flag.rule);
    }
}

#[test]
fn the_table_is_vllms_list_without_what_is_an_option_here() {
    let listed: BTreeSet<&str> = listed().iter().map(|(_, name, _)| &name[2..]).collect();
    assert!(listed.len() > 300, "{}", listed.len());
    let (current, past) = FLAGS.split_at(FLAGS.len() - table::NUM_PAST);
    for flag in current {
        assert!(listed.contains(flag.name), "--{} is not vLLM's", flag.name);
    }
    for flag in past {
        assert!(!listed.contains(flag.name), "--{} is vLLM's", flag.name);
    }
}

/// Whether the program knows what a line of `serve` asks for, if not with these values.
fn is_known(line: &[&str]) -> bool {
    let line = [&["medgemma", "serve", "demo"], line].concat();
    let read = crate::config::parse(line.into_iter().map(Into::into));
    let unknown = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
    read.err()
        .is_none_or(|error| !unknown.contains(&error.kind()))
}

#[test]
fn none_of_vllms_flags_is_an_unexpected_argument() {
    assert!(!is_known(&["--no-such-flag"]), "the check sees nothing");
    for (form, name, others) in listed() {
        for name in [vec![name], others].concat() {
            let value = format!("{name}=1");
            match form {
                "value" => assert!(is_known(&[name, "1"]) && is_known(&[&value]), "{name}"),
                "values" => assert!(is_known(&[name, "a", "b"]), "{name}"),
                "optional" => assert!(is_known(&[name]) && is_known(&[name, "a"]), "{name}"),
                "flag" | "switch" => assert!(is_known(&[name]), "{name}"),
                _ => panic!("{form} is no form"),
            }
            let Some(bare) = name.strip_prefix("--").filter(|_| form == "switch") else {
                continue;
            };
            assert!(is_known(&[&format!("--no-{bare}")]), "--no-{bare}");
            let opposite = match (bare.strip_prefix("enable-"), bare.strip_prefix("disable-")) {
                (Some(rest), _) => format!("--disable-{rest}"),
                (_, Some(rest)) => format!("--enable-{rest}"),
                _ => continue,
            };
            assert!(is_known(&[&opposite]), "{opposite}");
        }
    }
}

#[test]
fn of_several_values_the_last_counts() {
    let read = read_line(&["--kv-cache-dtype", "fp8", "--kv-cache-dtype", "auto"]);
    assert_eq!(read, Ok(Vec::new()));
    let error = read_line(&["--kv-cache-dtype", "auto", "--kv-cache-dtype", "fp8"]);
    assert!(error.unwrap_err().contains("--kv-cache-dtype fp8"));
    let read = read_line(&["--enable-lora", "--no-enable-lora"]);
    assert_eq!(read, Ok(Vec::new()));
    let error = read_line(&["--disable-lora", "--enable-lora"]);
    assert!(error.unwrap_err().contains("--enable-lora"));
    let error = read_line(&["--lora-modules", "a=/a", "b=/b"]);
    assert!(error.unwrap_err().contains("--lora-modules a=/a"));
}

#[test]
fn a_switch_is_told_by_the_name_that_says_it() {
    let notes = read_line(&["--disable-log-requests"]).unwrap();
    assert!(notes[0].starts_with("--disable-log-requests is not needed"));
    let notes = read_line(&["--no-trust-remote-code"]).unwrap();
    assert!(notes[0].starts_with("--no-trust-remote-code is not needed"));
}

#[test]
fn a_switch_takes_nothing_of_what_follows_it() {
    let notes = read_line(&["--trust-remote-code", "demo"]).unwrap();
    assert_eq!(notes.len(), 1);
}

#[test]
fn the_keys_of_an_object_are_judged_one_by_one() {
    let read = |value: &str| read_line(&["--structured-outputs-config", value]);
    let notes = read(r#"{"backend": "xgrammar", "enable_in_reasoning": false}"#).unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("--structured-outputs-config.backend xgrammar is not needed"));
    for (value, says) in [
        (
            r#"{"disable_any_whitespace": true}"#,
            "any_whitespace true is",
        ),
        (r#"{"other": 1}"#, "--structured-outputs-config.other is"),
        ("xgrammar", "no JSON object"),
        ("[]", "no JSON object"),
    ] {
        let error = read(value).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(read("None"), Ok(Vec::new()));
}
