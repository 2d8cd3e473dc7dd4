//! Options of `medgemma ready`, and which server to check.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::seconds::{Seconds, some_seconds};

/// Which server is asked whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// `http://HOST:PORT`.
    pub url: String,
    /// Without a response within this time the server is not ready.
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ReadyArguments {
    /// The server [default: what --url-file holds, else this machine's at --port]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The file in which `serve --url-file` wrote where it listens
    #[arg(long, value_name = "FILE", env = "MEDGEMMA_URL_FILE")]
    url_file: Option<PathBuf>,

    /// The server's port
    #[arg(long, env = "MEDGEMMA_PORT", default_value_t = 8000)]
    port: u16,

    /// Longest time to wait for its answer
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = some_seconds)]
    timeout: Seconds,
}

impl ReadyArguments {
    pub(super) fn resolve(self) -> ProbeConfig {
        let written = || {
            // Not there yet, or could not be written: the port is the next best guess.
            let text = std::fs::read_to_string(self.url_file.as_ref()?).ok()?;
            Some(text.trim().to_owned()).filter(|url| !url.is_empty())
        };
        let url = self.url.clone().or_else(written);
        ProbeConfig {
            url: url.unwrap_or_else(|| format!("http://127.0.0.1:{}", self.port)),
            timeout: self.timeout.0,
        }
    }
}
