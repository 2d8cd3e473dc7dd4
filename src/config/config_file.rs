//! `--config FILE`: options in YAML, a key each, as vLLM takes them.
//!
//! A key is the name of an option of `serve` or of a flag of vLLM's, with dashes or underscores.
//! The command line overrides the file, and the file overrides the environment, which a container
//! image may have set.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::{command, command_line, vllm_flags};

/// Arguments of which one says what another does.
const TWINS: [[&str; 2]; 2] = [
    ["model", "model_option"],
    ["enable_prefix_caching", "no_enable_prefix_caching"],
];

/// The options of a file, in its order.
#[derive(Debug)]
struct ConfigFile(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    line: u64,
    /// In our form: with dashes, but for keys after a dot.
    key: String,
    value: Value,
}

/// Returns what the line and the file that it or the environment names say together, or `matches`,
/// which are the line's, if there is no such file.
///
/// # Errors
/// clap's, which names the file, the line in it and the key.
pub(super) fn heeded(line: Vec<OsString>, matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let Some((_, of_command)) = matches.subcommand() else {
        return Ok(matches);
    };
    let Ok(Some(path)) = of_command.try_get_one::<PathBuf>("config") else {
        return Ok(matches);
    };
    let file = ConfigFile::read(path).map_err(refused)?;
    let mut added = Vec::new();
    for entry in file.0 {
        let words = entry.words(path, of_command)?;
        added.extend(words);
    }
    // After the program's name and the command.
    let mut line = line;
    line.splice(2..2, added);
    command().try_get_matches_from(command_line::with_dashes(line))
}

fn refused(message: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, message + "\n")
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| format!("--config {} cannot be read: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("--config {}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // Of a key that stands twice the last counts, as of a flag.
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            with_snippet: false,
        };
        let file: Option<Self> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| error.to_string())?;
        Ok(file.unwrap_or(Self(Vec::new())))
    }
}

impl<'de> Deserialize<'de> for ConfigFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = ConfigFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key and a value for each option, such as port: 8000")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConfigFile, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Value>()? {
                    let line = key.referenced.line();
                    let key = match key.value.split_once('.') {
                        Some((flag, keys)) => format!("{}.{keys}", flag.replace('_', "-")),
                        None => key.value.replace('_', "-"),
                    };
                    entries.push(Entry { line, key, value });
                }
                Ok(ConfigFile(entries))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

impl Entry {
    /// The entry as words of a command line; none if `given`, the command line's own arguments, say
    /// otherwise.
    ///
    /// # Errors
    /// A key that is no option, and a value that its option does not take.
    fn words(&self, path: &Path, given: &ArgMatches) -> Result<Vec<OsString>, clap::Error> {
        let at = |says: &str| {
            let (path, line, key) = (path.display(), self.line, &self.key);
            refused(format!("--config {path}: line {line}: {key}: {says}"))
        };
        let mut command = command();
        let serve = command
            .find_subcommand("serve")
            .expect("it is the program's main command");
        let name = self.key.split('.').next().unwrap_or_default();
        let arg = serve
            .get_arguments()
            .find(|arg| is_called(arg, name))
            .filter(|_| name != "config");
        let Some(arg) = arg else {
            return Err(at(
                "there is no such option; `medgemma serve --help` lists them",
            ));
        };
        let id = arg.get_id().as_str().to_owned();
        let words = self.as_words(arg);
        // Alone first, so that what is wrong with it is said of this line.
        let line = ["medgemma", "serve"].map(OsString::from).into_iter();
        let line = command_line::with_dashes(line.chain(words.clone()));
        let read = command.try_get_matches_from_mut(line).and_then(|matches| {
            let serve = matches.subcommand_matches("serve");
            vllm_flags::read(serve.expect("the line says so"))
        });
        if let Err(error) = read {
            return Err(at(&essence(&error)));
        }
        let is_given = |id: &str| {
            let is_there = given.try_contains_id(id).is_ok();
            is_there && given.value_source(id) == Some(ValueSource::CommandLine)
        };
        let twins = TWINS.iter().find(|twins| twins.contains(&id.as_str()));
        let is_overruled = is_given(&id)
            || is_given(&format!("no-{id}"))
            || id.strip_prefix("no-").is_some_and(is_given)
            || twins.is_some_and(|twins| twins.iter().any(|twin| is_given(twin)));
        Ok(if is_overruled { Vec::new() } else { words })
    }

    fn as_words(&self, arg: &Arg) -> Vec<OsString> {
        let key = &self.key;
        let word = |value: &str| OsString::from(format!("--{key}={value}"));
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_repeated = matches!(arg.get_action(), ArgAction::Append);
        match &self.value {
            Value::Null => Vec::new(),
            Value::Bool(is_on) if matches!(arg.get_action(), ArgAction::SetTrue) => {
                let on = OsString::from(format!("--{key}"));
                is_on.then_some(on).into_iter().collect()
            }
            Value::Array(items) if is_repeated => {
                items.iter().map(|item| word(&text(item))).collect()
            }
            value => vec![word(&text(value))],
        }
    }
}

fn is_called(arg: &Arg, name: &str) -> bool {
    arg.get_long() == Some(name)
        || arg
            .get_all_aliases()
            .is_some_and(|aliases| aliases.contains(&name))
}

/// What an error says, without the frame that clap gives it.
fn essence(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = text.find("\n\n").unwrap_or(text.len());
    text[..end].trim_end().replace("\n  ", " ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{Command, ServeConfig, parse};

    fn try_serve(text: &str, arguments: &[&str]) -> Result<ServeConfig, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let line = [&["medgemma", "serve", "--config", path], arguments].concat();
        match parse(line.into_iter().map(Into::into)) {
            Ok(Command::Serve(config)) => Ok(*config),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn serve(text: &str, arguments: &[&str]) -> ServeConfig {
        try_serve(text, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    const FILE: &str = "\
# A comment.
model: medgemma-4b-it
port: 9000
max_model_len: 8k
served-model-name: [a, \"b\"]
enable-prefix-caching: false
strict-roles: true
trust_remote_code: true
enforce-eager: null
limit-mm-per-prompt: {image: 4}
structured-outputs-config:
  backend: xgrammar
allowed-origins: [\"https://a\", \"https://b\"]
";

    #[test]
    fn a_file_says_what_flags_would() {
        let config = serve(FILE, &[]);
        assert_eq!(config.model, "medgemma-4b-it");
        assert_eq!(config.port, 9000);
        assert_eq!(config.limits.max_model_len, Some(8000));
        assert_eq!(config.served_model_names, ["a", "b"]);
        assert_eq!(config.prefix_caching, crate::core::PrefixCaching::Off);
        assert_eq!(config.roles, crate::core::RolePolicy::Strict);
        assert_eq!(config.request_defaults.max_images, Some(4));
        assert_eq!(config.network.cors.origins, ["https://a", "https://b"]);
        let told = config.notes.join("\n");
        for flag in ["--trust-remote-code", "--structured-outputs-config.backend"] {
            assert!(told.contains(flag), "{told}");
        }
        for empty in ["", "# nothing\n", "---\n", "{}\n"] {
            assert_eq!(serve(empty, &[]).port, 8000, "{empty:?}");
        }
    }

    #[test]
    fn the_command_line_wins_and_adds_nothing() {
        let line = [
            "--port=1",
            "--served-model-name",
            "c",
            "--enable-prefix-caching",
            "--strict-roles=false",
            "--model",
            "demo",
            "--limit-mm-per-prompt.image",
            "2",
        ];
        let config = serve(FILE, &line);
        assert_eq!((config.port, config.model.as_str()), (1, "demo"));
        assert_eq!(config.served_model_names, ["c"]);
        assert_eq!(config.prefix_caching, crate::core::PrefixCaching::On);
        assert_eq!(config.roles, crate::core::RolePolicy::Merge);
        assert_eq!(config.request_defaults.max_images, Some(2));
        assert_eq!(config.limits.max_model_len, Some(8000));
        assert_eq!(serve(FILE, &["demo"]).model, "demo");
        let file = "no-enable-prefix-caching: true\nport: 1\nport: 2\n";
        let config = serve(file, &[]);
        assert_eq!(config.prefix_caching, crate::core::PrefixCaching::Off);
        assert_eq!(config.port, 2);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_key() {
        for (text, says) in [
            ("port: 1\nprot: 2\n", &["line 2: prot: there is no"][..]),
            ("\nport: many\n", &["line 2: port: ", "many"]),
            (
                "tensor-parallel-size: 2",
                &["line 1: tensor-parallel-size: ", "one GPU"],
            ),
            ("port: [1]", &["line 1: port: "]),
            ("port: {a: 1}", &["line 1: port: "]),
            ("config: other.yaml", &["line 1: config: there is no"]),
            ("- port", &["such as port: 8000"]),
            ("port", &["such as port: 8000"]),
            ("port: 'a", &["line 1"]),
            ("a: b: c", &["line 1"]),
        ] {
            let error = try_serve(text, &[]).unwrap_err();
            assert!(
                error.starts_with("error: --config /") || error.starts_with("--config /"),
                "{error}"
            );
            for part in says {
                assert!(error.contains(part), "{text:?}: {error}");
            }
            assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        }
        let line = ["medgemma", "serve", "--config", "no/such.yaml"];
        let error = parse(line.map(Into::into)).unwrap_err().to_string();
        assert!(
            error.contains("--config no/such.yaml cannot be read"),
            "{error}"
        );
    }
}
