//! Flags of vLLM that are not options here. Each is accepted or rejected by name; none is ignored
//! silently.
//!
//! A flag either requests what this server does in any case, or is ignored with a log line that
//! says why, or is rejected with an error that names the option to use instead.

mod table;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use table::FLAGS;

/// A flag of vLLM's.
#[derive(Debug)]
struct VllmFlag {
    /// Without the dashes.
    name: &'static str,
    form: Form,
    rule: Rule,
}

/// The flag's syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `--flag value`; of several the last counts.
    Value,
    /// `--flag value value`
    Values,
    /// `--flag` is true, `--no-flag` false.
    Switch,
}

/// How the flag is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The flag is ignored, and the log says why.
    Needless(&'static str),
    /// Values equal to this server's behaviour are accepted; all others are rejected with this
    /// message.
    Only(&'static [&'static str], &'static str),
    /// A JSON object with a rule for each key; other keys are rejected with this message.
    Object(&'static [(&'static str, Rule)], &'static str),
}

/// Values that mean in vLLM that the flag was not given.
const NOT_GIVEN: [&str; 3] = ["", "None", "null"];

/// Adds the flags to a command, whose help does not show them.
pub(super) fn known_to(command: Command) -> Command {
    FLAGS.iter().fold(command, |command, flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .env(variable(flag.name))
            .allow_hyphen_values(flag.form == Form::Value)
            .hide(true);
        match flag.form {
            Form::Value => command.arg(arg.num_args(1).action(ArgAction::Set)),
            Form::Values => command.arg(arg.num_args(1..).action(ArgAction::Append)),
            Form::Switch => {
                let arg = arg.num_args(0..=1).require_equals(true);
                let arg = arg.action(ArgAction::Set).default_missing_value("true");
                let off = Arg::new(flag.off())
                    .long(flag.off())
                    .aliases(flag.opposite())
                    .value_parser(BoolishValueParser::new())
                    .action(ArgAction::SetTrue)
                    .overrides_with(flag.name)
                    .hide(true);
                let off = match flag.opposite() {
                    Some(name) => off.env(variable(&name)),
                    None => off,
                };
                command.arg(arg.overrides_with(flag.off())).arg(off)
            }
        }
    })
}

/// Returns notes for the log about the flags that were given.
///
/// # Errors
/// Names the flag that is not supported, and the option to use instead.
pub(super) fn read(matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
    let mut notes = Vec::new();
    for flag in FLAGS {
        for value in flag.given(matches) {
            let judged = match flag.form {
                Form::Switch => flag.judge_switch(&value),
                _ => flag.rule.judge(&format!("--{}", flag.name), &value),
            };
            notes.extend(judged.map_err(refused)?);
        }
    }
    Ok(notes)
}

/// The variable of a flag: all options have one.
fn variable(name: &str) -> String {
    format!("MEDGEMMA_{}", name.to_uppercase().replace('-', "_"))
}

fn refused(message: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ArgumentConflict, message + "\n")
}

impl VllmFlag {
    /// The name that says no.
    fn off(&self) -> String {
        format!("no-{}", self.name)
    }

    /// vLLM's other name that says no: of `enable-x`, `disable-x`, and the other way round.
    fn opposite(&self) -> Option<String> {
        let enable = self.name.strip_prefix("enable-");
        let disable = self.name.strip_prefix("disable-");
        enable
            .map(|rest| format!("disable-{rest}"))
            .or_else(|| disable.map(|rest| format!("enable-{rest}")))
    }

    /// The values that it was given, one by one.
    fn given(&self, matches: &ArgMatches) -> Vec<String> {
        if self.form == Form::Switch && self.is_off(matches) {
            return vec!["false".to_owned()];
        }
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
        values
            .filter(|value| !NOT_GIVEN.contains(&value.as_str()))
            .collect()
    }

    /// Whether a switch was turned off by its other name. The command line wins over a variable.
    fn is_off(&self, matches: &ArgMatches) -> bool {
        let off = self.off();
        let is_overruled = matches.value_source(&off) == Some(ValueSource::EnvVariable)
            && matches.value_source(self.name) == Some(ValueSource::CommandLine);
        matches.get_flag(&off) && !is_overruled
    }

    fn judge_switch(&self, value: &str) -> Result<Vec<String>, String> {
        let shown = match value {
            "true" => format!("--{}", self.name),
            "false" => format!("--{}", self.opposite().unwrap_or_else(|| self.off())),
            _ => return Err(format!("--{} is true or false, not {value}", self.name)),
        };
        self.rule.judge_shown(shown, value)
    }
}

impl Rule {
    /// Returns the notes for a flag with this value; none if the value is this server's behaviour.
    ///
    /// # Errors
    /// Says what to use instead of the flag.
    fn judge(self, flag: &str, value: &str) -> Result<Vec<String>, String> {
        let Self::Object(keys, instead) = self else {
            return self.judge_shown(format!("{flag} {value}"), value);
        };
        let object: serde_json::Map<String, Value> = serde_json::from_str(value)
            .map_err(|_| format!("{flag} {value} is no JSON object: {instead}"))?;
        let mut notes = Vec::new();
        for (key, value) in &object {
            let value = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let flag = format!("{flag}.{key}");
            let Some((_, rule)) = keys.iter().find(|(known, _)| known == key) else {
                return Err(format!("{flag} is not supported: {instead}"));
            };
            notes.extend(rule.judge(&flag, &value)?);
        }
        Ok(notes)
    }

    fn judge_shown(self, shown: String, value: &str) -> Result<Vec<String>, String> {
        match self {
            Self::Needless(why) => Ok(vec![format!("{shown} is not needed: {why}")]),
            Self::Only(values, _) if values.contains(&value) => Ok(Vec::new()),
            Self::Only(_, instead) | Self::Object(_, instead) => {
                Err(format!("{shown} is not supported: {instead}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
