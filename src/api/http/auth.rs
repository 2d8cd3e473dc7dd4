//! API keys. Only hashes of the keys are stored, and they are compared in constant time.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use super::auth_failures::Sent;
use super::error::ApiError;
use super::extract;
use super::limits::{KeyLimits, Quotas};
use super::metrics_access;
use super::peer::Peer;
use super::state::AppState;
use crate::api::docs::pages;
use crate::core::TenantId;

/// Routes that need no key, because an orchestrator's probes send none.
const OPEN_ROUTES: [&str; 4] = ["/health", "/livez", "/ready", "/readyz"];

/// Whether a route is an orchestrator's probe.
pub(crate) fn is_probe(path: &str) -> bool {
    OPEN_ROUTES.contains(&path)
}

/// Whether a route needs no key: probes, and the web pages, which contain no data of this server.
fn is_open(path: &str) -> bool {
    is_probe(path) || pages::is_page(path)
}

/// The header in which Anthropic's clients send their key.
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Contexts of the key derivations. They differ, so that the values derived from one key are
/// unrelated to each other and to its stored hash.
const TENANT_CONTEXT: &str = "medgemma-server 2026-11 tenant of an API key";
const SALT_CONTEXT: &str = "medgemma-server 2026-11 cache salt of an API key";

/// The caller's identity, as far as the engine needs it. Authenticated requests carry it as an
/// extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The unit of fair scheduling.
    pub(crate) tenant: TenantId,
    /// Separates the prefix caches of different keys. Without it, a faster response would reveal
    /// that another client had sent the same prompt. `None` where at most one key exists.
    pub(crate) salt: Option<[u8; 32]>,
    /// The priorities that its requests may have.
    pub(crate) priorities: Priorities,
}

/// The priorities that a caller's requests may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Priorities {
    /// All priorities: the server has no keys, or the caller's key has the permission.
    #[default]
    All,
    /// No priorities below 0, which are scheduled before all default requests.
    NotBelowZero,
}

/// The API keys that the server accepts. If there are none, requests need no key.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    hashes: Vec<blake3::Hash>,
    /// Hashes of the keys whose requests may have a priority below 0.
    preferred: Vec<blake3::Hash>,
    quotas: Arc<Quotas>,
}

impl ApiKeys {
    /// Accepts any of these keys.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut hashes: Vec<blake3::Hash> = Vec::new();
        for key in keys {
            let hash = blake3::hash(key.as_ref().as_bytes());
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
        Self {
            hashes,
            ..Self::default()
        }
    }

    /// Lets requests with these keys have priorities below 0. A key that is not among the accepted
    /// ones still gives no access.
    #[must_use]
    pub fn with_preferred(mut self, keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let hash = |key: &str| blake3::hash(key.as_bytes());
        let hashes = keys.into_iter().map(|key| hash(key.as_ref()));
        self.preferred.extend(hashes);
        self
    }

    /// Sets the limits of each key. Without keys, the limits apply to all clients together.
    #[must_use]
    pub fn with_limits(mut self, limits: KeyLimits) -> Self {
        self.quotas = Arc::new(Quotas::new(limits));
        self
    }

    pub(crate) fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// Returns the number of accepted keys.
    pub fn num_keys(&self) -> usize {
        self.hashes.len()
    }

    /// Whether requests need no key.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    fn admit(&self, key: &str) -> bool {
        let sent = blake3::hash(key.as_bytes());
        // No early exit: the time must not reveal which key matched, or how much of it.
        let found = self.hashes.iter().fold(Choice::from(0), |found, known| {
            found | known.as_bytes().ct_eq(sent.as_bytes())
        });
        found.into()
    }

    fn caller(&self, key: &str) -> Caller {
        let tenant = blake3::derive_key(TENANT_CONTEXT, key.as_bytes());
        let tenant = tenant.first_chunk().expect("a hash has 32 bytes");
        let is_one_of_several = self.hashes.len() > 1;
        let is_preferred = self.preferred.contains(&blake3::hash(key.as_bytes()));
        Caller {
            tenant: match is_one_of_several {
                true => TenantId(u64::from_le_bytes(*tenant)),
                false => TenantId::default(),
            },
            salt: is_one_of_several.then(|| blake3::derive_key(SALT_CONTEXT, key.as_bytes())),
            priorities: match is_preferred {
                true => Priorities::All,
                false => Priorities::NotBelowZero,
            },
        }
    }

    /// Checks the key in either header. If both headers have a key, one valid key is enough.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::default());
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::trim).map(str::to_owned);
        let authorization = headers.get(AUTHORIZATION);
        let bearer = authorization.and_then(text).and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            (scheme.eq_ignore_ascii_case("bearer")).then(|| key.trim().to_owned())
        });
        let x_api_key = headers.get(&X_API_KEY);
        let keys = [bearer, x_api_key.and_then(text)];
        let mut keys = keys.into_iter().flatten().peekable();
        if keys.peek().is_some() {
            let admitted = keys.find(|key| self.admit(key));
            return match admitted {
                Some(key) => Ok(self.caller(&key)),
                None => Err(ApiError::unauthorized("Incorrect API key.")),
            };
        }
        Err(ApiError::unauthorized(match (authorization, x_api_key) {
            (None, None) => {
                "No API key was sent. Send the header Authorization: Bearer YOUR_KEY, or \
                 x-api-key: YOUR_KEY."
            }
            (Some(_), _) => {
                "The header Authorization is malformed. Send Authorization: Bearer YOUR_KEY."
            }
            (None, Some(_)) => "The header x-api-key is not ASCII.",
        }))
    }
}

/// Middleware that passes only requests with a valid key, or to routes that need none.
pub(crate) async fn require_key(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if is_open(path) {
        return next.run(request).await;
    }
    let checked = match metrics_access::is_metrics(path) {
        true => metrics_access::check(&app, &request),
        false => app.keys().check(request.headers()),
    };
    match checked {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => refuse(&app, request, error).await,
    }
}

/// Rejects a request without a valid key, and slows down addresses that try many keys.
pub(crate) async fn refuse(app: &AppState, request: Request, error: ApiError) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    // The key was valid but lacks a permission.
    if !error.is_of_key() {
        return error.into_response();
    }
    app.metrics().auth_failure();
    // Requests made inside this process have no peer address to limit or to log.
    let Some(peer) = peer else {
        return error.into_response();
    };
    let has_key = head.headers.contains_key(AUTHORIZATION) || head.headers.contains_key(&X_API_KEY);
    let sent = match has_key {
        true => Sent::WrongKey,
        false => Sent::Nothing,
    };
    let verdict = app.auth_failures().count(peer.network, sent);
    let error = match verdict.wait {
        Some(wait) => ApiError::too_many_wrong_keys(wait),
        None => error,
    };
    let code = error.refusal().code.unwrap_or("unknown");
    app.metrics().error(code);
    if let Some(num_untold) = verdict.line {
        let address = peer.network;
        tracing::info!(%address, code, num_untold, "request refused for its key");
    }
    error.logged().into_response()
}
