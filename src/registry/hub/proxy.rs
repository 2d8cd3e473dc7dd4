//! Recognises failures that a proxy on the way to the hub causes, so that the hub is not blamed.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use reqwest::header::HeaderMap;

use super::response_error::Failure;
use crate::error::HubProblem;

/// The proxies that the environment names; the HTTP client reads the same variables.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

/// A proxy, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Address without credentials.
    address: String,
    /// The variable that usually names it.
    variable: &'static str,
}

/// Headers that a hub sends with its refusals, and proxies do not.
const OF_HUBS: [&str; 3] = ["x-error-code", "x-error-message", "x-request-id"];

impl Proxies {
    pub(super) fn from_env() -> Self {
        Self(Matcher::from_env())
    }

    /// Returns the proxy that requests to `url` go through.
    pub(super) fn of(&self, url: &Url) -> Option<Proxy> {
        let intercept = self.0.intercept(&url.as_str().parse().ok()?)?;
        let uri = intercept.uri();
        let port = uri.port().map_or(String::new(), |port| format!(":{port}"));
        Some(Proxy {
            address: format!(
                "{}://{}{port}",
                uri.scheme_str().unwrap_or("http"),
                uri.host()?
            ),
            variable: match url.scheme() {
                "https" => "HTTPS_PROXY",
                _ => "HTTP_PROXY",
            },
        })
    }
}

impl Proxy {
    fn name(&self) -> String {
        format!("the proxy {} ({})", self.address, self.variable)
    }

    fn asks_for_password(&self) -> Failure {
        Failure::is_final(
            HubProblem::Network,
            format!(
                "{} asks for a name and a password (407): give them in {}, as in \
                 http://NAME:PASSWORD@HOST:PORT.",
                self.name(),
                self.variable
            ),
        )
    }

    /// Returns the failure if a request to `host` got no response because of the proxy.
    pub(super) fn unsent(&self, error: &reqwest::Error, host: &str) -> Option<Failure> {
        let mut chain = Vec::new();
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        let says = |text: &str| chain.iter().any(|error| error.contains(text));
        let name = self.name();
        if says("proxy authorization required") {
            return Some(self.asks_for_password());
        }
        if says("tunnel error: unsuccessful") {
            return Some(Failure::is_final(
                HubProblem::Network,
                format!(
                    "{name} refuses to connect to {host}. Allow {host} there, or list it in \
                     NO_PROXY if it can be reached directly."
                ),
            ));
        }
        let is_unreachable = ["tcp connect error", "dns error", "tunnel error"];
        is_unreachable.iter().any(|text| says(text)).then(|| {
            let cause = chain.last().map_or("", String::as_str);
            Failure::transient(format!("{name} cannot be reached: {cause}"))
        })
    }

    /// Returns the failure if a response to a request without a tunnel is the proxy's own.
    pub(super) fn answered(
        &self,
        status: u16,
        headers: &HeaderMap,
        endpoint: &str,
    ) -> Option<Failure> {
        if status == 407 {
            return Some(self.asks_for_password());
        }
        if OF_HUBS.iter().any(|name| headers.contains_key(*name)) {
            return None;
        }
        let name = self.name();
        match status {
            403 | 405 | 511 => Some(Failure::is_final(
                HubProblem::Network,
                format!(
                    "{name} answers {status} to a request for {endpoint}. Allow it there, or list \
                     its host in NO_PROXY if it can be reached directly."
                ),
            )),
            502..=504 => Some(Failure::transient(format!("{name} answers {status}"))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::http_client;

    #[tokio::test]
    async fn a_proxy_that_nobody_runs_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let through = reqwest::Proxy::all(&address).unwrap();
        let client = http_client::without_tls().proxy(through).build().unwrap();
        let proxy = Proxy {
            address: address.clone(),
            variable: "HTTPS_PROXY",
        };
        for url in ["https://hub.invalid/api", "http://hub.invalid/api"] {
            let error = client.get(url).send().await.unwrap_err().without_url();
            match proxy.unsent(&error, "hub.invalid") {
                Some(Failure::Transient { what, .. }) => {
                    let says = format!("the proxy {address} (HTTPS_PROXY) cannot be reached: ");
                    assert!(what.starts_with(&says), "{what}");
                }
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_a_hub_answers_through_a_proxy_is_the_hubs() {
        let proxy = Proxy {
            address: "http://proxy:3128".to_owned(),
            variable: "HTTP_PROXY",
        };
        let hubs = HeaderMap::from_iter([("x-request-id".parse().unwrap(), "1".parse().unwrap())]);
        for status in [401, 404, 429, 500] {
            let answered = proxy.answered(status, &HeaderMap::new(), "http://hub");
            assert!(answered.is_none(), "{status}");
        }
        for status in [403, 405, 502, 503] {
            assert!(proxy.answered(status, &hubs, "http://hub").is_none());
            let answered = proxy.answered(status, &HeaderMap::new(), "http://hub");
            assert!(answered.is_some(), "{status}");
        }
        assert!(proxy.answered(407, &hubs, "http://hub").is_some());
    }
}
