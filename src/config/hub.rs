//! Settings of the hub: its address, the cache directory, credentials.
//!
//! The variables are those of huggingface_hub, so that a machine which is set up for Python is set
//! up for this. Reads no files: a token's file is for the registry to open.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// As huggingface_hub's own.
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The hub, its cache and credentials.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Where the hub is, without a slash at its end.
    pub endpoint: String,
    /// The folder of all models, in the layout of huggingface_hub.
    pub cache: PathBuf,
    /// A branch, a tag or a commit; `None` is the main branch.
    pub revision: Option<String>,
    /// Credentials.
    pub token: TokenChoice,
    /// Whether network access is allowed.
    pub access: HubAccess,
    /// Maximum time without data before the connection is considered broken.
    pub stall_timeout: Duration,
    /// How interrupted downloads are retried.
    pub retries: Retries,
    /// Where progress is reported.
    pub progress: ProgressOutput,
}

/// Where the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChoice {
    /// None is sent.
    None,
    /// This one.
    Given(HubToken),
    /// In this file, which must be there.
    File(PathBuf),
    /// Where `hf auth login` leaves it, if it does.
    Login(PathBuf),
}

/// A secret token for the hub.
#[derive(Clone, PartialEq, Eq)]
pub struct HubToken(pub String);

impl fmt::Debug for HubToken {
    // Settings are printed and logged; tokens never.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubToken(…)")
    }
}

/// Whether the hub may be contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubAccess {
    /// Network access is allowed.
    Online,
    /// Offline: use only the cache.
    Offline,
}

/// How often, and after which pauses, a request is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts without progress after which it fails.
    pub max_attempts: u32,
    /// Pause before the second attempt; it doubles before each further one.
    pub first_pause: Duration,
    /// Maximum pause, also if the server asks for more.
    pub longest_pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max_attempts: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(300),
        }
    }
}

/// Where progress is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressOutput {
    /// Bars if stderr is a terminal, else plain lines there.
    Stderr,
    /// Bars if stderr is a terminal, else the log.
    Log,
    /// Plain lines on stderr, on a terminal too.
    PlainLines,
    /// The log, on a terminal too.
    LogOnly,
}

/// The value of the flag without a token, which vLLM accepts: the token is then taken from the
/// other sources.
const IMPLICIT_TOKEN: &str = "true";

#[derive(Args, Clone, Debug)]
pub(super) struct HubArguments {
    /// Which version of a model on the hub: a branch, a tag or a commit [default: main]
    #[arg(
        long,
        value_name = "REVISION",
        env = "MEDGEMMA_REVISION",
        help_heading = "Hub"
    )]
    pub(super) revision: Option<String>,

    #[command(flatten)]
    pub(super) cache: CacheArguments,

    /// Token for models that are gated or private [default: HF_TOKEN, else what `hf auth login`
    /// left]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "MEDGEMMA_HF_TOKEN",
        num_args = 0..=1,
        default_missing_value = IMPLICIT_TOKEN,
        value_parser = hub_token,
        help_heading = "Hub"
    )]
    pub(super) hf_token: Option<HubToken>,

    /// A file that holds the token, such as a container's secret [default: HF_TOKEN_PATH]
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDGEMMA_HF_TOKEN_FILE",
        help_heading = "Hub"
    )]
    pub(super) hf_token_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct CacheArguments {
    /// Where models from the hub are kept, in its cache's layout [default: HF_HUB_CACHE, else
    /// HF_HOME/hub, else ~/.cache/huggingface/hub]
    #[arg(
        long,
        value_name = "DIR",
        env = "MEDGEMMA_DOWNLOAD_DIR",
        help_heading = "Hub"
    )]
    pub(super) download_dir: Option<PathBuf>,
}

impl CacheArguments {
    pub(super) fn resolve(self, variables: &Variables<'_>) -> PathBuf {
        self.download_dir.map_or_else(
            || variables.cache(),
            |dir| variables.expand(dir.into_os_string()),
        )
    }
}

impl HubArguments {
    pub(super) fn resolve(self, variables: &Variables<'_>, progress: ProgressOutput) -> HubConfig {
        let progress = match progress {
            ProgressOutput::Stderr if variables.is_true("HF_HUB_DISABLE_PROGRESS_BARS") => {
                ProgressOutput::PlainLines
            }
            ProgressOutput::Log if variables.is_true("HF_HUB_DISABLE_PROGRESS_BARS") => {
                ProgressOutput::LogOnly
            }
            chosen => chosen,
        };
        let is_offline =
            variables.is_true("HF_HUB_OFFLINE") || variables.is_true("TRANSFORMERS_OFFLINE");
        let stall_timeout = variables
            .text("HF_HUB_DOWNLOAD_TIMEOUT")
            .and_then(|text| text.trim().parse().ok())
            .filter(|seconds| *seconds > 0);
        HubConfig {
            endpoint: variables
                .text("HF_ENDPOINT")
                .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            revision: self.revision,
            token: variables.token(self.hf_token, self.hf_token_file),
            cache: self.cache.resolve(variables),
            access: if is_offline {
                HubAccess::Offline
            } else {
                HubAccess::Online
            },
            stall_timeout: stall_timeout.map_or(DEFAULT_STALL_TIMEOUT, Duration::from_secs),
            retries: Retries::default(),
            progress,
        }
    }
}

/// The environment, which tests put in another's place.
pub(super) struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Variables<'_> {
    /// The environment variables of this process.
    pub(super) fn of_process() -> Variables<'static> {
        Variables {
            lookup: &|name| std::env::var_os(name),
        }
    }

    /// An empty variable counts as none.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.into_string().ok()
    }

    fn is_true(&self, name: &str) -> bool {
        let text = self.text(name).unwrap_or_default().to_ascii_lowercase();
        ["1", "on", "yes", "true"].contains(&text.trim())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|path| self.expand(path))
    }

    /// `~` where no shell has seen it, as in a service's settings.
    fn expand(&self, path: OsString) -> PathBuf {
        match (Path::new(&path).strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.into(),
        }
    }

    fn home(&self) -> Option<PathBuf> {
        self.get("HOME")
            .map(Into::into)
            .or_else(std::env::home_dir)
            .filter(|home| !home.as_os_str().is_empty())
    }

    fn hf_home(&self) -> PathBuf {
        let of_user = || match self.path("XDG_CACHE_HOME") {
            Some(caches) => caches.join("huggingface"),
            None => self
                .home()
                .unwrap_or_default()
                .join(".cache")
                .join("huggingface"),
        };
        self.path("HF_HOME").unwrap_or_else(of_user)
    }

    fn cache(&self) -> PathBuf {
        self.path("HF_HUB_CACHE")
            .or_else(|| self.path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| self.hf_home().join("hub"))
    }

    /// A flag overrides the environment, and a token overrides a file.
    fn token(&self, given: Option<HubToken>, file: Option<PathBuf>) -> TokenChoice {
        let given = given.filter(|token| token.0 != IMPLICIT_TOKEN);
        match (given, file) {
            (Some(token), _) => return TokenChoice::Given(token),
            (None, Some(file)) => return TokenChoice::File(self.expand(file.into_os_string())),
            (None, None) => {}
        }
        if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return TokenChoice::None;
        }
        let variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
            .into_iter()
            .find_map(|name| self.text(name).filter(|text| !text.trim().is_empty()));
        match variable {
            // What is wrong with it is said when it is to be sent.
            Some(text) => TokenChoice::Given(HubToken(text.trim().to_owned())),
            None => TokenChoice::Login(
                self.path("HF_TOKEN_PATH")
                    .unwrap_or_else(|| self.hf_home().join("token")),
            ),
        }
    }
}

/// A token as people paste it.
///
/// # Errors
/// What is wrong with it; never the token itself.
pub(crate) fn hub_token(text: &str) -> Result<HubToken, String> {
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        // What cannot stand in a header could never be sent.
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(HubToken(token.to_owned()))
        }
        _ => Err("it must be of visible ASCII characters, without spaces".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(arguments: HubArguments, variables: &[(&str, &str)]) -> HubConfig {
        let variables: Vec<(String, OsString)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        let lookup = |name: &str| {
            let (_, value) = variables.iter().find(|(own, _)| own == name)?;
            Some(value.clone())
        };
        arguments.resolve(&Variables { lookup: &lookup }, ProgressOutput::Stderr)
    }

    const NOTHING: HubArguments = HubArguments {
        revision: None,
        cache: CacheArguments { download_dir: None },
        hf_token: None,
        hf_token_file: None,
    };

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (
                &[("HOME", "/h"), ("HF_HOME", "")],
                "/h/.cache/huggingface/hub",
            ),
            (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")], "/o"),
            (
                &[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/o")],
                "/c",
            ),
        ] {
            assert_eq!(resolved(NOTHING, variables).cache, Path::new(cache));
        }
        let flag = HubArguments {
            cache: CacheArguments {
                download_dir: Some("~/d".into()),
            },
            ..NOTHING
        };
        let variables = [("HOME", "/h"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(resolved(flag, &variables).cache, Path::new("/h/d"));
    }

    #[test]
    fn the_nearest_token_counts() {
        let given = |text: &str| TokenChoice::Given(HubToken(text.to_owned()));
        let all = [
            ("HF_TOKEN", " a\n"),
            ("HUGGING_FACE_HUB_TOKEN", "b"),
            ("HF_TOKEN_PATH", "/t"),
            ("HF_HOME", "/f"),
        ];
        let token = |arguments: HubArguments, variables: &[_]| resolved(arguments, variables).token;
        let flag = HubArguments {
            hf_token: Some(HubToken("c".to_owned())),
            hf_token_file: Some("/file".into()),
            ..NOTHING
        };
        assert_eq!(token(flag, &all), given("c"));
        let file = HubArguments {
            hf_token_file: Some("/file".into()),
            ..NOTHING
        };
        assert_eq!(token(file, &all), TokenChoice::File("/file".into()));
        assert_eq!(token(NOTHING, &all), given("a"));
        assert_eq!(token(NOTHING, &all[1..]), given("b"));
        assert_eq!(token(NOTHING, &all[2..]), TokenChoice::Login("/t".into()));
        let login = TokenChoice::Login("/f/token".into());
        assert_eq!(token(NOTHING, &all[3..]), login);
        let implicit = [all[0], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(token(NOTHING, &implicit), TokenChoice::None);
    }

    #[test]
    fn tokens_are_never_shown() {
        let config = resolved(NOTHING, &[("HF_TOKEN", "hf_secret")]);
        assert!(!format!("{config:?}").contains("hf_secret"));
        let error = hub_token("hf_secret and more").unwrap_err();
        assert!(!error.contains("hf_secret"), "{error}");
    }

    #[test]
    fn the_environment_says_where_the_hub_is_and_whether_to_ask_it() {
        let config = resolved(NOTHING, &[]);
        assert_eq!(config.endpoint, "https://huggingface.co");
        assert_eq!(config.access, HubAccess::Online);
        assert_eq!(config.stall_timeout, DEFAULT_STALL_TIMEOUT);
        let config = resolved(
            NOTHING,
            &[
                ("HF_ENDPOINT", "http://mirror:8080/hub//"),
                ("HF_HUB_OFFLINE", "Yes"),
                ("HF_HUB_DOWNLOAD_TIMEOUT", "60"),
                ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
            ],
        );
        assert_eq!(config.endpoint, "http://mirror:8080/hub");
        assert_eq!(config.access, HubAccess::Offline);
        assert_eq!(config.stall_timeout, Duration::from_secs(60));
        assert_eq!(config.progress, ProgressOutput::PlainLines);
        for (variables, access) in [
            (("HF_HUB_OFFLINE", "0"), HubAccess::Online),
            (("TRANSFORMERS_OFFLINE", "1"), HubAccess::Offline),
        ] {
            assert_eq!(resolved(NOTHING, &[variables]).access, access);
        }
    }
}
