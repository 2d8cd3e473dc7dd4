//! The server's host names, and the other sites whose pages may use it.
//!
//! A browser lets every page that a person visits send requests to this machine. Such a request
//! differs from a program's or from our own page's by the host name it used for this server
//! (`Host`) and by its site (`Origin`). A page can choose neither.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};

use super::error::ApiError;

/// The browser's statement of where a request comes from. A page cannot forge it.
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Host names and origins that the operator has allowed.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// In lower case, without ports: `med.example.org`, `*.example.org`, or `*` for all.
    hosts: Vec<String>,
    /// As browsers write them: `https://app.example.org`, or `*` for all.
    origins: Vec<String>,
}

impl Site {
    /// Creates a site with the names `hosts`, besides the loopback names, that pages of `origins`
    /// may use, besides its own.
    pub fn new(
        hosts: impl IntoIterator<Item = impl AsRef<str>>,
        origins: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Self {
        let convert = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        Self {
            hosts: hosts
                .into_iter()
                .map(|host| convert(host.as_ref()))
                .collect(),
            origins: (origins.into_iter())
                .map(|origin| origin.as_ref().to_ascii_lowercase())
                .collect(),
        }
    }

    /// Whether names are checked on every address, or only on a loopback one.
    pub(crate) fn names_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Checks the host name that a client used for this server.
    ///
    /// # Errors
    /// 403 for a name that is not this server's.
    pub(crate) fn check_host(&self, authority: &Authority) -> Result<(), ApiError> {
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if is_loopback(&host) || self.is_allowed(&host) {
            return Ok(());
        }
        Err(ApiError::foreign_host(&host))
    }

    fn is_allowed(&self, host: &str) -> bool {
        self.hosts
            .iter()
            .any(|known| match known.strip_prefix('*') {
                Some("") => true,
                // `*.example.org` matches only subdomains.
                Some(end) => host.len() > end.len() && host.ends_with(end),
                None => known == host,
            })
    }

    /// Whether pages of any other site are allowed.
    pub(crate) fn allows_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Returns the origin of a request from a page of another site, if the operator has allowed it.
    pub(crate) fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let is_allowed = self
            .origins
            .iter()
            .any(|known| known == "*" || *known == text);
        is_allowed.then_some(origin)
    }

    /// Checks which page a request is from. `host` is the name that it used for this server.
    ///
    /// # Errors
    /// 403 for a page of another site that is not allowed.
    pub(crate) fn check_origin(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: Option<&Authority>,
    ) -> Result<(), ApiError> {
        // A read-only request changes nothing, and the browser does not show the response to
        // another site's page. A preflight asks for leave to do more.
        let only_reads = method.is_safe() && !is_preflight(method, headers);
        let from = headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        let Some(origin) = headers.get(ORIGIN) else {
            return match from {
                Some(b"cross-site") if !only_reads => Err(ApiError::foreign_origin(None)),
                _ => Ok(()),
            };
        };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let is_own = from == Some(b"same-origin") || self.is_own(&text, host);
        if only_reads || is_own || self.allowed_origin(headers).is_some() {
            return Ok(());
        }
        Err(ApiError::foreign_origin(Some(&text)))
    }

    /// Whether a page of `origin` is this server's: it has the name that the request used for the
    /// server, or one that the operator configured.
    fn is_own(&self, origin: &str, host: Option<&Authority>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return false;
        };
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        // A proxy may terminate TLS, so without a port either default port matches.
        let port = authority.port_u16().unwrap_or(default_port);
        let is_same = host.is_some_and(|host| {
            host.host().eq_ignore_ascii_case(authority.host())
                && host.port_u16().unwrap_or(default_port) == port
        });
        // Other programs on this machine have pages under the loopback names too.
        let is_ours_alone =
            !is_loopback(authority.host()) && !self.hosts.iter().any(|known| known == "*");
        is_same || (is_ours_alone && self.is_allowed(authority.host()))
    }
}

/// Whether a request is a browser's question whether a page of another site may send one.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the host name that a request used for this server: from its target if that is a whole
/// URL, else from its header; `None` if there is none.
///
/// # Errors
/// 400 for a missing name where one is required, for two names, and for an invalid one.
pub(crate) fn host_of(
    uri: &Uri,
    headers: &HeaderMap,
    must_be_there: bool,
) -> Result<Option<Authority>, ApiError> {
    let mut sent = headers.get_all(HOST).iter();
    let host = sent.next();
    if sent.next().is_some() {
        return Err(ApiError::bad_host("The header Host is sent twice."));
    }
    let host = match host.map(HeaderValue::as_bytes) {
        None if must_be_there => {
            return Err(ApiError::bad_host(
                "The header Host is missing: HTTP/1.1 needs it.",
            ));
        }
        None | Some(b"") => None,
        Some(host) => match Authority::try_from(host) {
            Ok(host) if !host.as_str().contains('@') => Some(host),
            _ => {
                return Err(ApiError::bad_host(
                    "The header Host is no name of a server.",
                ));
            }
        },
    };
    Ok(uri.authority().cloned().or(host))
}

/// Whether a name always means this machine, regardless of DNS.
fn is_loopback(host: &str) -> bool {
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inside.is_some_and(|host| {
        host.parse::<Ipv6Addr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let site = Site::new(["Med.example.org.", "*.inner.example.org"], [""; 0]);
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "a.localhost:1",
            "localhost.",
            "127.0.0.1:8000",
            "127.255.1.2",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
            "med.example.org:443",
            "a.inner.example.org",
        ] {
            let authority = host.parse().expect("a name");
            assert!(site.check_host(&authority).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "128.0.0.1",
            "0.0.0.0:8000",
            "[::2]",
            "[::]",
            "xmed.example.org",
            "inner.example.org",
            "xinner.example.org",
        ] {
            let authority = host.parse().expect("a name");
            let error = site.check_host(&authority).expect_err(host);
            assert!(error.to_json().contains("--allowed-hosts"), "{host}");
        }
        assert!(Site::new(["*"], [""; 0]).is_allowed("evil.example"));
    }

    #[test]
    fn only_our_pages_and_allowed_ones_may_post() {
        let site = Site::new(["med.example.org"], ["https://app.example.org"]);
        let judge = |method: Method, origin: &str, from: Option<&'static str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().expect("a header"));
            if let Some(from) = from {
                headers.insert(&SEC_FETCH_SITE, HeaderValue::from_static(from));
            }
            let host = host.parse().expect("a name");
            let checked = site.check_origin(&method, &headers, Some(&host));
            checked.map(|()| site.allowed_origin(&headers).is_some())
        };
        for (origin, from, host, is_allowed) in [
            ("http://127.0.0.1:8000", None, "127.0.0.1:8000", false),
            ("http://localhost:8000", None, "localhost:8000", false),
            ("http://[::1]:8000", None, "[::1]:8000", false),
            // Behind a proxy that terminates TLS and keeps the name.
            ("https://gpu.example.org", None, "gpu.example.org", false),
            (
                "https://gpu.example.org",
                None,
                "gpu.example.org:443",
                false,
            ),
            // Behind a proxy that does not keep it.
            ("https://med.example.org", None, "127.0.0.1:8000", false),
            (
                "https://x.org",
                Some("same-origin"),
                "127.0.0.1:8000",
                false,
            ),
            ("https://app.example.org", Some("cross-site"), "[::1]", true),
        ] {
            let judged = judge(Method::POST, origin, from, host).expect(origin);
            assert_eq!(judged, is_allowed, "{origin}");
        }
        for (origin, from, host) in [
            ("http://evil.example", None, "127.0.0.1:8000"),
            ("http://evil.example", Some("cross-site"), "127.0.0.1:8000"),
            ("http://localhost:3000", Some("same-site"), "localhost:8000"),
            ("http://127.0.0.1:8000", None, "localhost:8000"),
            ("http://localhost", None, "localhost:8000"),
            ("https://app.example.org:444", None, "127.0.0.1"),
            ("http://app.example.org", None, "127.0.0.1"),
            ("null", None, "127.0.0.1"),
            ("file://localhost", None, "localhost"),
            ("", None, "localhost"),
        ] {
            let error = judge(Method::POST, origin, from, host).expect_err(origin);
            assert!(error.to_json().contains("--allowed-origins"), "{origin}");
            assert!(judge(Method::GET, origin, from, host).is_ok(), "{origin}");
        }
    }

    #[test]
    fn a_name_stands_once() {
        let host_of = |uri: &str, hosts: &[&'static str], must_be_there| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_static(host));
            }
            let uri = uri.parse().expect("a target");
            let host = super::host_of(&uri, &headers, must_be_there).ok()?;
            Some(host.map(|host| host.to_string()))
        };
        let some = |host: &str| Some(Some(host.to_owned()));
        assert_eq!(host_of("/", &["a:80"], true), some("a:80"));
        assert_eq!(host_of("http://b/", &["a"], true), some("b"));
        assert_eq!(host_of("/", &[""], true), Some(None));
        assert_eq!(host_of("/", &[], false), Some(None));
        for wrong in [&[][..], &["a", "a"], &["a b"], &["a@b"], &["a/b"]] {
            assert_eq!(host_of("/", wrong, true), None, "{wrong:?}");
        }
    }
}
