//! Environment variables with our prefix that are not options: misspelt ones, and those that
//! Kubernetes sets.

use std::collections::BTreeSet;
use std::env;

use clap::Command;

const PREFIX: &str = "MEDGEMMA_";

/// Whether Kubernetes set this variable: for a service named medgemma it sets `MEDGEMMA_PORT` to
/// the service's address in every pod.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    name == "MEDGEMMA_PORT" && value.contains("://")
}

/// Returns notes for the log about variables with our prefix that are not options.
pub(super) fn strays(command: &Command) -> Vec<String> {
    let set = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    strays_among(set, &known(command))
}

fn known(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env());
    let own = own.map(|name| name.to_string_lossy().into_owned());
    let below = command.get_subcommands().flat_map(known);
    own.chain(below).collect()
}

fn strays_among(
    set: impl Iterator<Item = (String, String)>,
    known: &BTreeSet<String>,
) -> Vec<String> {
    let strays = set.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty());
    let mut notes: Vec<String> = strays
        .filter_map(|(name, value)| {
            if is_service_link(&name, &value) {
                Some(format!(
                    "{name}={value} was set by Kubernetes for a service named medgemma and is \
                     ignored: use --port, or enableServiceLinks: false"
                ))
            } else if known.contains(&name) || is_of_services(&name) {
                None
            } else {
                Some(format!(
                    "{name} is not a known option and is ignored: is it misspelt?"
                ))
            }
        })
        .collect();
    notes.sort();
    notes
}

/// The other variables that Kubernetes sets for a service.
fn is_of_services(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name with our prefix in a text.
    fn named(text: &str) -> BTreeSet<&str> {
        let is_end = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let parts = text.split(is_end);
        parts
            .filter(|name| name.len() > PREFIX.len() && name.starts_with(PREFIX))
            .collect()
    }

    #[test]
    fn what_the_image_and_the_readme_name_is_there() {
        let mut known = known(&crate::config::command());
        // Of the tests, not of the program.
        known.extend(["MEDGEMMA_TEST_GPU", "MEDGEMMA_UPDATE"].map(str::to_owned));
        let texts = [
            include_str!("../../Dockerfile"),
            include_str!("../../README.md"),
        ];
        for text in texts {
            let named = named(text);
            assert!(named.len() >= 5, "{named:?}");
            let unknown: Vec<_> = named
                .iter()
                .filter(|name| !known.contains(**name))
                .collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
    }

    #[test]
    fn strays_are_told_and_services_are_not() {
        let known = ["MEDGEMMA_PORT", "MEDGEMMA_HOST"].map(str::to_owned).into();
        let notes = |name: &str, value: &str| {
            let set = [(name.to_owned(), value.to_owned())];
            strays_among(set.into_iter(), &known)
        };
        for (name, value) in [
            ("MEDGEMMA_PORT", "8000"),
            ("MEDGEMMA_HOST", "0.0.0.0"),
            ("MEDGEMMA_MAX_MODELLEN", ""),
            ("MEDGEMMA_SERVICE_HOST", "10.0.0.1"),
            ("MEDGEMMA_SERVICE_PORT_HTTP", "80"),
            ("MEDGEMMA_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("OTHER_MAX_MODELLEN", "5"),
        ] {
            assert_eq!(notes(name, value), [""; 0], "{name}");
        }
        let told = notes("MEDGEMMA_MAX_MODELLEN", "5");
        assert!(told[0].starts_with("MEDGEMMA_MAX_MODELLEN is not a known option"));
        let told = notes("MEDGEMMA_PORT", "tcp://10.0.0.1:80");
        assert!(told[0].contains("Kubernetes"));
    }
}
