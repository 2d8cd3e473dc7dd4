//! HTTP requests to the hub: revisions, file descriptions, file contents.
//!
//! Each call is one attempt; retries are up to the caller. The token is sent only to the hub
//! itself, not to hosts that it redirects to.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue,
    IF_RANGE, LOCATION, RANGE,
};
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use tokio::time::timeout;

use super::digest::Expected;
use super::proxy::{Proxies, Proxy};
use super::repository::{Commit, RepoId, Revision, is_file_name};
use super::response_error::{Asked, Failure, TokenSent, of_status};
use super::token;
use crate::config::HubConfig;
use crate::error::{Error, HubProblem, Result};
use crate::http_client;

/// Maximum number of consecutive redirects.
const MAX_HOPS: usize = 10;
/// Maximum size of the list of a repository's files.
const MAX_LIST_BYTES: usize = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A hub and the credentials for it.
#[derive(Debug)]
pub(super) struct Endpoint {
    http: reqwest::Client,
    base: Url,
    /// Address as the operator wrote it, for messages.
    name: String,
    /// Authorization header; marked as sensitive, so that it is never printed.
    authorization: Option<HeaderValue>,
    proxies: Proxies,
    /// The proxy that answers in the hub's place: the hub is asked without TLS.
    plain_proxy: Option<Proxy>,
    stall_timeout: Duration,
}

/// The commit and files of a revision.
#[derive(Debug)]
pub(super) struct RevisionInfo {
    pub(super) commit: Commit,
    /// Names of all files of the repository.
    pub(super) names: Vec<String>,
}

/// The hub's description of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    /// Name of its bytes in the cache.
    pub(super) etag: String,
    pub(super) size: u64,
    pub(super) expected: Expected,
}

/// A response with a file's bytes.
#[derive(Debug)]
pub(super) struct Opened {
    response: Response,
    stall_timeout: Duration,
    /// Offset in the file at which they begin.
    pub(super) start: u64,
    /// ETag of the host that sends them, which may differ from the hub's.
    pub(super) host_etag: Option<HeaderValue>,
}

/// Where to begin a download.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    pub(super) start: u64,
    /// ETag of the host that sent the present bytes, if known.
    pub(super) host_etag: Option<HeaderValue>,
}

#[derive(Deserialize)]
struct RepositoryJson {
    sha: String,
    siblings: Vec<SiblingJson>,
}

#[derive(Deserialize)]
struct SiblingJson {
    rfilename: String,
}

/// Which redirects are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follow {
    All,
    /// Follow until a response describes the file.
    UntilDescribed,
}

impl Endpoint {
    /// # Errors
    /// Returns `Config` for an invalid address or token.
    pub(super) fn new(config: &HubConfig) -> Result<Self> {
        let wrong =
            |what: &str| Error::Config(format!("HF_ENDPOINT is {}: {what}", config.endpoint));
        let base = Url::parse(&config.endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| wrong("it must be an address, such as https://huggingface.co"))?;
        let authorization = match token::find(&config.token)? {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.0))
                    .expect("tokens are visible ASCII");
                value.set_sensitive(true);
                Some(value)
            }
        };
        let http = http_client::with_tls()
            .user_agent(concat!("medgemma-server/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| Error::Config(format!("no HTTP client: {error}")))?;
        let proxies = Proxies::from_env();
        let plain_proxy = proxies.of(&base).filter(|_| base.scheme() == "http");
        Ok(Self {
            http,
            proxies,
            plain_proxy,
            base,
            name: config.endpoint.clone(),
            authorization,
            stall_timeout: config.stall_timeout,
        })
    }

    /// Address as the operator wrote it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn asked<'a>(
        &'a self,
        repo: &'a RepoId,
        revision: &'a str,
        file: Option<&'a str>,
    ) -> Asked<'a> {
        Asked {
            endpoint: &self.name,
            repo,
            revision,
            file,
            proxy: self.plain_proxy.as_ref(),
            token: match self.authorization {
                Some(_) => TokenSent::Yes,
                None => TokenSent::No,
            },
        }
    }

    /// Returns the commit of a revision, and its files.
    pub(super) async fn revision(
        &self,
        repo: &RepoId,
        revision: &Revision,
    ) -> std::result::Result<RevisionInfo, Failure> {
        let parts = ["api", "models"]
            .into_iter()
            .chain(repo.as_str().split('/'));
        let url = self.url(parts.chain(["revision", revision.as_str()]));
        let asked = self.asked(repo, revision.as_str(), None);
        let response = self
            .send(Method::GET, url, HeaderMap::new(), Follow::All)
            .await?;
        let mut response = succeed(response, &asked)?;
        let mut body = Vec::new();
        while let Some(bytes) = next(&mut response, self.stall_timeout).await? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_LIST_BYTES {
                return Err(self.not_a_hub("lists more files than any model has"));
            }
        }
        let repository: RepositoryJson = serde_json::from_slice(&body)
            .map_err(|error| self.not_a_hub(&format!("the list of files is not one ({error})")))?;
        let commit = Commit::parse(&repository.sha)
            .ok_or_else(|| self.not_a_hub("the commit's name is not one"))?;
        let names = repository.siblings.into_iter().map(|file| file.rfilename);
        Ok(RevisionInfo {
            commit,
            names: names.collect(),
        })
    }

    /// Returns the description of a file.
    pub(super) async fn describe(
        &self,
        repo: &RepoId,
        commit: &Commit,
        name: &str,
    ) -> std::result::Result<RemoteFile, Failure> {
        let asked = self.asked(repo, commit.as_str(), Some(name));
        let response = self
            .send(
                Method::HEAD,
                self.file_url(repo, commit, name),
                HeaderMap::new(),
                Follow::UntilDescribed,
            )
            .await?;
        let headers = response.headers().clone();
        let is_redirect = response.status().is_redirection();
        if !is_redirect {
            succeed(response, &asked)?;
        }
        let etag =
            etag_of(&headers).ok_or_else(|| self.not_a_hub(&format!("says no ETag of {name}")))?;
        if !is_file_name(&etag) {
            return Err(self.not_a_hub(&format!("{name} has no usable ETag")));
        }
        let linked_size = number(&headers, "x-linked-size");
        let size = match linked_size {
            None if !is_redirect => number(&headers, CONTENT_LENGTH.as_str()),
            size => size,
        };
        let size = size.ok_or_else(|| self.not_a_hub(&format!("says no size of {name}")))?;
        Ok(RemoteFile {
            name: name.to_owned(),
            expected: Expected::of_etag(&etag),
            etag,
            size,
        })
    }

    /// Requests a file's bytes from an offset on; the server may start from the beginning instead.
    pub(super) async fn open(
        &self,
        repo: &RepoId,
        commit: &Commit,
        file: &RemoteFile,
        begin: &Begin,
    ) -> std::result::Result<Opened, Failure> {
        let mut headers = HeaderMap::new();
        if begin.start > 0 {
            let range = format!("bytes={}-", begin.start);
            headers.insert(RANGE, range.parse().expect("digits are ASCII"));
            if let Some(etag) = &begin.host_etag {
                headers.insert(IF_RANGE, etag.clone());
            }
        }
        let asked = self.asked(repo, commit.as_str(), Some(&file.name));
        let url = self.file_url(repo, commit, &file.name);
        let mut seen = |response: &Response| match etag_seen(response) {
            Some(etag) if etag != file.etag => Err(Failure::is_final(
                HubProblem::Damaged,
                format!(
                    "{}: {} was {} when it was asked for, and is {etag} now. Start again.",
                    asked.repo, file.name, file.etag
                ),
            )),
            _ => Ok(()),
        };
        let response = self
            .send_seen(Method::GET, url, headers, Follow::All, &mut seen)
            .await?;
        let status = response.status().as_u16();
        let start = match status {
            206 => match content_range(response.headers()) {
                Some((start, total))
                    if start == begin.start && total.is_none_or(|t| t == file.size) =>
                {
                    start
                }
                _ => return Err(Failure::Part("it sends another part than was asked for")),
            },
            // The file is shorter than the partial one.
            416 => {
                return Err(Failure::Part(
                    "it does not have the part that was asked for",
                ));
            }
            _ => 0,
        };
        let response = succeed(response, &asked)?;
        let host_etag = response.headers().get(ETAG).cloned();
        Ok(Opened {
            // Weak ETags do not guarantee identical bytes.
            host_etag: host_etag.filter(|etag| !etag.as_bytes().starts_with(b"W/")),
            response,
            stall_timeout: self.stall_timeout,
            start,
        })
    }

    /// Creates the failure for a request without a response.
    fn unsent(&self, error: &reqwest::Error, url: &Url) -> Failure {
        let what = cause(error);
        // A retry would get the same certificate.
        if what.contains("invalid peer certificate") {
            return Failure::is_final(
                HubProblem::Network,
                format!(
                    "{} cannot be trusted: {what}. If a proxy intercepts TLS, set SSL_CERT_FILE to \
                     its CA certificate.",
                    self.name
                ),
            );
        }
        let proxy = self.proxies.of(url);
        let blamed =
            proxy.and_then(|proxy| proxy.unsent(error, url.host_str().unwrap_or_default()));
        blamed.unwrap_or_else(|| Failure::transient(what))
    }

    fn not_a_hub(&self, what: &str) -> Failure {
        Failure::is_final(
            HubProblem::Damaged,
            format!(
                "{}: {what}. Is it a Hugging Face hub (HF_ENDPOINT)?",
                self.name
            ),
        )
    }

    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("addresses with a host have paths")
            .pop_if_empty()
            // A slash within a revision's name is escaped.
            .extend(parts);
        url
    }

    fn file_url(&self, repo: &RepoId, commit: &Commit, name: &str) -> Url {
        let parts = repo.as_str().split('/');
        self.url(parts.chain(["resolve", commit.as_str(), name]))
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        follow: Follow,
    ) -> std::result::Result<Response, Failure> {
        self.send_seen(method, url, headers, follow, &mut |_| Ok(()))
            .await
    }

    /// Follows redirects; `seen` is called with the hub's own responses, including redirects.
    async fn send_seen(
        &self,
        method: Method,
        mut url: Url,
        headers: HeaderMap,
        follow: Follow,
        seen: &mut (dyn FnMut(&Response) -> std::result::Result<(), Failure> + Send),
    ) -> std::result::Result<Response, Failure> {
        // After a redirect to another host, the token is not sent any more, not even back to the
        // hub.
        let mut is_hub = true;
        for _ in 0..MAX_HOPS {
            is_hub &= url.origin() == self.base.origin();
            let mut request = self
                .http
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                // Sizes and ranges must refer to the uncompressed file.
                .header(ACCEPT_ENCODING, "identity");
            if is_hub && let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = timeout(CONNECT_TIMEOUT + self.stall_timeout, request.send()).await;
            let response = match response {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.unsent(&error.without_url(), &url)),
                Err(_) => return Err(Failure::transient("it does not answer")),
            };
            if is_hub && (response.status().is_success() || response.status().is_redirection()) {
                seen(&response)?;
            }
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| response.url().join(location).ok());
            let Some(next) = next.filter(Url::has_host) else {
                return Err(self.not_a_hub("redirects to nowhere"));
            };
            let is_described = response.headers().contains_key("x-linked-etag")
                && response.headers().contains_key("x-linked-size");
            if follow == Follow::UntilDescribed && is_described {
                return Ok(response);
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(self.not_a_hub("redirects from https to http, which is not followed"));
            }
            url = next;
        }
        Err(self.not_a_hub(&format!("redirects more than {MAX_HOPS} times")))
    }
}

impl Opened {
    /// Returns the next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> std::result::Result<Option<Bytes>, Failure> {
        next(&mut self.response, self.stall_timeout).await
    }
}

async fn next(
    response: &mut Response,
    stall_timeout: Duration,
) -> std::result::Result<Option<Bytes>, Failure> {
    match timeout(stall_timeout, response.chunk()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Failure::transient(cause(&error.without_url()))),
        Err(_) => Err(Failure::transient(format!(
            "nothing came for {} s",
            stall_timeout.as_secs()
        ))),
    }
}

fn succeed(response: Response, asked: &Asked<'_>) -> std::result::Result<Response, Failure> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    Err(of_status(status, response.headers(), asked))
}

/// Returns the root cause; the outer errors only say that something failed.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Returns the hub's ETag of a file, from a response with the file or a redirect to it.
fn etag_of(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let etag = text("x-linked-etag").or_else(|| text(ETAG.as_str()))?;
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    Some(etag.to_owned())
}

/// Like [`etag_of`]; but the ETag of a redirect itself is not the file's.
fn etag_seen(response: &Response) -> Option<String> {
    let headers = response.headers();
    let tells = response.status().is_success() || headers.contains_key("x-linked-etag");
    etag_of(headers).filter(|_| tells)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Parses the first byte and the total of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            content_range(&headers)
        };
        assert_eq!(of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(of("bytes 5-9/*"), Some((5, None)));
        for text in ["bytes */10", "5-9/10", "bytes 5/10", ""] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn etags_are_read_bare() {
        for (name, value, etag) in [
            ("etag", "\"abc\"", "abc"),
            ("etag", "W/\"abc\"", "abc"),
            ("x-linked-etag", "abc", "abc"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(etag_of(&headers).as_deref(), Some(etag));
        }
        assert_eq!(etag_of(&HeaderMap::new()), None);
    }
}
