//! vLLM's flags that are not options here: each is understood or refused by name, none is ignored
//! in silence.
//!
//! A flag either asks for what is so anyway, or nothing is needed for it and a line of the log says
//! why, or the start is refused with what to use in its place.

mod table;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use table::FLAGS;

/// A flag of vLLM's.
#[derive(Debug)]
struct VllmFlag {
    /// Without the dashes.
    name: &'static str,
    form: Form,
    rule: Rule,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `--flag value`
    Value,
    /// `--flag value value`
    Values,
    /// `--flag` is true, `--no-flag` false.
    Switch,
}

/// What is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Nothing is needed for it, and the log says why.
    Needless(&'static str),
    /// These values ask for what is so anyway; with any other the start is refused, saying this.
    Only(&'static [&'static str], &'static str),
}

/// Adds the flags to a command, whose help does not show them.
pub(super) fn known_to(command: Command) -> Command {
    FLAGS.iter().fold(command, |command, flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .env(flag.variable())
            .action(ArgAction::Append)
            .allow_hyphen_values(flag.form == Form::Value)
            .hide(true);
        match flag.form {
            Form::Value => command.arg(arg.num_args(1)),
            Form::Values => command.arg(arg.num_args(1..)),
            Form::Switch => {
                let arg = arg.num_args(0..=1).require_equals(true);
                let off = Arg::new(flag.off())
                    .long(flag.off())
                    .action(ArgAction::SetTrue)
                    .hide(true);
                command.arg(arg.default_missing_value("true")).arg(off)
            }
        }
    })
}

/// What the log says of the flags that were given.
///
/// # Errors
/// A flag that cannot be served, by name, with what to use in its place.
pub(super) fn read(matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
    let mut notes = Vec::new();
    for flag in FLAGS {
        for value in flag.given(matches) {
            notes.extend(flag.judge(&value).map_err(refused)?);
        }
    }
    Ok(notes)
}

fn refused(message: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, message + "\n")
}

impl VllmFlag {
    /// As all options have one.
    fn variable(&self) -> String {
        let name = self.name.to_uppercase().replace(['-', '.'], "_");
        format!("MEDGEMMA_{name}")
    }

    /// The name that says no.
    fn off(&self) -> String {
        format!("no-{}", self.name)
    }

    /// The values that it was given, one by one.
    fn given(&self, matches: &ArgMatches) -> Vec<String> {
        let values = matches.get_many::<String>(self.name);
        let values = values.into_iter().flatten().map(|value| {
            let value = value.trim();
            match (self.form, value.to_lowercase().as_str()) {
                (Form::Switch, "1" | "yes" | "on") => "true".to_owned(),
                (Form::Switch, "0" | "no" | "off") => "false".to_owned(),
                (Form::Switch, lower) => lower.to_owned(),
                _ => value.to_owned(),
            }
        });
        let off = self.form == Form::Switch && matches.get_flag(&self.off());
        values.chain(off.then(|| "false".to_owned())).collect()
    }

    /// What the log says; `None` for what is so anyway.
    ///
    /// # Errors
    /// What to use in place of the flag.
    fn judge(&self, value: &str) -> Result<Option<String>, String> {
        let shown = match (self.form, value) {
            (Form::Switch, "true") => format!("--{}", self.name),
            (Form::Switch, "false") => format!("--{}", self.off()),
            _ => format!("--{} {value}", self.name),
        };
        match self.rule {
            Rule::Needless(why) => Ok(Some(format!("{shown} is not needed: {why}"))),
            Rule::Only(values, _) if values.contains(&value) => Ok(None),
            Rule::Only(_, instead) => Err(format!("{shown} is not supported: {instead}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn command() -> Command {
        known_to(Command::new("serve").arg(Arg::new("model")))
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
            (Form::Switch, "false") => vec![joined, vec![format!("--no-{name}")]],
            _ => vec![joined, vec![format!("--{name}"), value.to_owned()]],
        }
    }

    #[test]
    fn every_flag_does_what_its_row_says() {
        for flag in FLAGS {
            let name = flag.name;
            let values: &[&str] = match flag.form {
                Form::Switch => &["true", "false"],
                Form::Value | Form::Values => &["other"],
            };
            let fine = match flag.rule {
                Rule::Needless(_) => &[],
                Rule::Only(fine, _) => fine,
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
                        Rule::Only(_, _) if fine.contains(value) => {
                            assert_eq!(read, Ok(Vec::new()), "{line:?}");
                        }
                        Rule::Only(_, instead) => {
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
        let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        for flag in FLAGS {
            let (Rule::Needless(said) | Rule::Only(_, said)) = flag.rule;
            assert!(
                said.len() > 10 && !said.ends_with('.'),
                "--{}: {said}",
                flag.name
            );
        }
    }

    #[test]
    fn the_last_of_several_values_is_judged_too() {
        let error = read_line(&["--kv-cache-dtype", "auto", "--kv-cache-dtype", "fp8"]);
        assert!(error.unwrap_err().contains("--kv-cache-dtype fp8"));
        let error = read_line(&["--lora-modules", "a=/a", "b=/b"]);
        assert!(error.unwrap_err().contains("--lora-modules a=/a"));
    }

    #[test]
    fn a_switch_takes_nothing_of_what_follows_it() {
        let notes = read_line(&["--trust-remote-code", "demo"]).unwrap();
        assert_eq!(notes.len(), 1);
    }
}
