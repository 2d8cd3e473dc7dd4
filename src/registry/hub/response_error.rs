//! Turns the hub's error responses into retries or messages.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::proxy::Proxy;
use super::repository::RepoId;
use crate::error::{Error, HubProblem};

/// Reason for a failed request.
#[derive(Debug)]
pub(super) enum Failure {
    /// A retry may succeed.
    Transient {
        what: String,
        /// Waiting time that the server requests.
        wait: Option<Duration>,
    },
    /// A retry from the beginning may succeed: the remaining part cannot be requested separately.
    Part(&'static str),
    /// A retry would not succeed.
    Final(Error),
}

impl Failure {
    pub(super) fn transient(what: impl Into<String>) -> Self {
        Self::Transient {
            what: what.into(),
            wait: None,
        }
    }

    pub(super) fn is_final(problem: HubProblem, message: String) -> Self {
        Self::Final(Error::Hub { problem, message })
    }
}

/// The requested item, as named in messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) endpoint: &'a str,
    pub(super) repo: &'a RepoId,
    /// Revision, or its commit.
    pub(super) revision: &'a str,
    /// File; `None` for the list of files.
    pub(super) file: Option<&'a str>,
    /// The proxy that may have answered instead of the hub.
    pub(super) proxy: Option<&'a Proxy>,
    pub(super) token: TokenSent,
}

/// Whether the request carried a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenSent {
    Yes,
    No,
}

const GIVE_TOKEN: &str = "--hf-token, HF_TOKEN, or a file that --hf-token-file names";

/// Interprets a status other than success.
pub(super) fn of_status(status: u16, headers: &HeaderMap, asked: &Asked<'_>) -> Failure {
    if let Some(proxy) = asked.proxy
        && let Some(failure) = proxy.answered(status, headers, asked.endpoint)
    {
        return failure;
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = header("x-error-code").unwrap_or_default();
    match (status, code) {
        (401 | 403, "GatedRepo") => gated(asked),
        (401 | 404, "RepoNotFound") => no_repository(asked),
        (404, "RevisionNotFound") => Failure::is_final(
            HubProblem::NotFound,
            format!(
                "{} has no revision {} at {}",
                asked.repo, asked.revision, asked.endpoint
            ),
        ),
        (404, _) => match asked.file {
            Some(file) => Failure::is_final(
                HubProblem::NotFound,
                format!(
                    "{} has no {file} at revision {}",
                    asked.repo, asked.revision
                ),
            ),
            None => no_repository(asked),
        },
        (401 | 403, _) => {
            let said = header("x-error-message").map_or(String::new(), |said| {
                format!(": {}", said.chars().take(200).collect::<String>())
            });
            let hint = match asked.token {
                TokenSent::Yes => "The token may be wrong, revoked, or without the right to read \
                                   this repository. Give another one"
                    .to_owned(),
                TokenSent::No => "It may be private: give a token".to_owned(),
            };
            Failure::is_final(
                HubProblem::Access,
                format!(
                    "{} answers {status} for {}{said}. {hint}: {GIVE_TOKEN}.",
                    asked.endpoint, asked.repo
                ),
            )
        }
        (408 | 425 | 429 | 500..=599, _) => Failure::Transient {
            what: match status {
                429 => "too many requests (429)".to_owned(),
                _ => format!("it answers {status}"),
            },
            wait: wait(headers),
        },
        _ => Failure::is_final(
            HubProblem::Network,
            format!(
                "{} answers {status} for {}. Is it a Hugging Face hub (HF_ENDPOINT)?",
                asked.endpoint, asked.repo
            ),
        ),
    }
}

fn gated(asked: &Asked<'_>) -> Failure {
    let Asked { endpoint, repo, .. } = asked;
    let message = match asked.token {
        TokenSent::No => format!(
            "{repo} is gated. Accept its terms at {endpoint}/{repo} with an account, and give a \
             token of that account ({endpoint}/settings/tokens): {GIVE_TOKEN}."
        ),
        TokenSent::Yes => format!(
            "{repo} is gated, and the token that was sent does not give access. Accept its terms \
             at {endpoint}/{repo} with the account that the token belongs to; a fine-grained token \
             must also be allowed to read public gated repositories ({endpoint}/settings/tokens)."
        ),
    };
    Failure::is_final(HubProblem::Access, message)
}

fn no_repository(asked: &Asked<'_>) -> Failure {
    let Asked { endpoint, repo, .. } = asked;
    let hint = match asked.token {
        TokenSent::No => format!("If it is private, give a token: {GIVE_TOKEN}."),
        TokenSent::Yes => "If it is private, the token that was sent cannot see it.".to_owned(),
    };
    Failure::is_final(
        HubProblem::NotFound,
        format!("there is no {repo} at {endpoint}. {hint}"),
    )
}

/// Returns how long the server asks to wait: Retry-After in seconds, or the `t` of RateLimit.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text("retry-after").and_then(|text| text.trim().parse().ok());
    let reset = || {
        let mut fields = text("ratelimit")?.split(';');
        fields.find_map(|field| field.trim().strip_prefix("t=")?.parse().ok())
    };
    after.or_else(reset).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> RepoId {
        RepoId::parse("google/medgemma-4b-it").unwrap()
    }

    fn said(
        status: u16,
        headers: &[(&'static str, &str)],
        file: Option<&str>,
        token: TokenSent,
    ) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let asked = Asked {
            endpoint: "https://hub",
            repo: &repo(),
            revision: "main",
            file,
            proxy: None,
            token,
        };
        match of_status(status, &headers, &asked) {
            Failure::Transient { what, wait } => format!("passing: {what} {wait:?}"),
            Failure::Final(Error::Hub { problem, message }) => format!("{problem:?}: {message}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        use TokenSent::{No, Yes};
        let gated = &[("x-error-code", "GatedRepo")][..];
        let no_repo = &[("x-error-code", "RepoNotFound")][..];
        /// Status, headers, file, whether a token was sent, and the expected parts of the message.
        type Case<'a> = (
            u16,
            &'a [(&'static str, &'a str)],
            Option<&'a str>,
            TokenSent,
            &'a [&'a str],
        );
        let cases: [Case; 13] = [
            (
                401,
                gated,
                None,
                No,
                &[
                    "Access: ",
                    "https://hub/google/medgemma-4b-it",
                    "HF_TOKEN",
                    "settings/tokens",
                ],
            ),
            (
                403,
                gated,
                Some("config.json"),
                Yes,
                &[
                    "Access: ",
                    "https://hub/google/medgemma-4b-it",
                    "does not give access",
                    "fine-grained",
                ],
            ),
            (
                401,
                no_repo,
                None,
                No,
                &["NotFound: there is no google/", "give a token"],
            ),
            (
                404,
                no_repo,
                None,
                Yes,
                &["NotFound: there is no google/", "cannot see it"],
            ),
            (404, &[], None, No, &["NotFound: there is no google/"]),
            (
                404,
                &[("x-error-code", "RevisionNotFound")],
                None,
                No,
                &["NotFound: ", "no revision main"],
            ),
            (
                404,
                &[],
                Some("config.json"),
                No,
                &["NotFound: ", "has no config.json"],
            ),
            (
                401,
                &[("x-error-message", "Invalid credentials")],
                None,
                Yes,
                &["Access: ", "401", "Invalid credentials", "Give another one"],
            ),
            (403, &[], None, No, &["Access: ", "403", "give a token"]),
            (
                429,
                &[("retry-after", "7")],
                None,
                No,
                &["passing: ", "429", "Some(7s)"],
            ),
            (
                429,
                &[("ratelimit", "\"api\";r=0;t=55")],
                None,
                No,
                &["passing: ", "Some(55s)"],
            ),
            (
                503,
                &[("retry-after", "soon")],
                None,
                No,
                &["passing: ", "503", "None"],
            ),
            (418, &[], None, No, &["Network: ", "418", "HF_ENDPOINT"]),
        ];
        for (status, headers, file, token, says) in cases {
            let said = said(status, headers, file, token);
            for part in says {
                assert!(said.contains(part), "{status} {headers:?}: {said}");
            }
        }
    }
}
