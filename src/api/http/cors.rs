//! The CORS headers: what tells a browser that a page of another site may send a request here and
//! read the response.
//!
//! Which sites may is for `site` to know, and which responses get the headers for `request_guard`.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

/// The headers of responses that clients read, besides those that browsers always show.
const EXPOSED: &str = "x-request-id, request-id, retry-after, x-ratelimit-limit-requests, \
                       x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
                       x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, \
                       x-ratelimit-reset-tokens, x-medgemma-warning";

/// Headers that a page may send in any case. Browsers ask about the last one where it says JSON.
const ALWAYS: [&str; 4] = [
    "accept",
    "accept-language",
    "content-language",
    "content-type",
];

/// What pages of allowed sites may send.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// `None` means the methods that routes have.
    methods: Option<HeaderValue>,
    /// `None` means every header that a page asks for.
    headers: Option<HeaderValue>,
    credentials: Credentials,
}

/// Whether requests from pages may bring what the browser keeps for this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// They may: cookies and certificates.
    Allowed,
    /// They bring only what the page itself sends.
    #[default]
    Withheld,
}

impl Cors {
    /// Creates the rules with these methods and headers, where `None` means all.
    ///
    /// # Panics
    /// If a name is not visible ASCII; options are checked when they are read.
    pub fn new(
        methods: Option<&[String]>,
        headers: Option<&[String]>,
        credentials: Credentials,
    ) -> Self {
        let value = |text: String| HeaderValue::try_from(text).expect("names are visible ASCII");
        Self {
            methods: methods.map(|methods| value(methods.join(", "))),
            headers: headers.map(|headers| {
                let always = ALWAYS.map(str::to_owned);
                value([&always[..], headers].concat().join(", "))
            }),
            credentials,
        }
    }

    /// Answers the preflight request of an allowed site.
    pub(crate) fn preflight(&self, asked: &HeaderMap) -> Response {
        let mut response = ().into_response();
        let headers = response.headers_mut();
        let methods = self.methods.clone();
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            methods.unwrap_or(HeaderValue::from_static("GET, POST")),
        );
        // Client libraries send many headers of their own, and no header that this server reads is
        // a risk.
        let asked = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(names) = self.headers.as_ref().or(asked) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        response
    }

    /// Lets pages of `origin` read a response with these headers.
    pub(crate) fn allow(&self, origin: HeaderValue, headers: &mut HeaderMap) {
        // Never "*": with credentials browsers do not take it.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials == Credentials::Allowed {
            let allowed = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, allowed);
        }
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED),
        );
    }
}
