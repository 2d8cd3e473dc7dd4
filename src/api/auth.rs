//! API keys. Only their hashes are kept, and comparing takes the same time whatever is sent.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use super::error::ApiError;
use super::extract;
use super::state::AppState;
use crate::core::TenantId;

/// Routes that need no key: an orchestrator's probes have none.
const OPEN_ROUTES: [&str; 2] = ["/health", "/ready"];

/// Keep what is derived from a key apart from each other and from its hash here.
const TENANT_CONTEXT: &str = "medgemma-server 2026-11 tenant of an API key";
const SALT_CONTEXT: &str = "medgemma-server 2026-11 cache salt of an API key";

/// Who asks, as far as the engine must know. A request has it once it has passed the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// Shares the machine fairly with others.
    pub(super) tenant: TenantId,
    /// Where several keys open the server, keeps what one caches from the others: a prompt that
    /// is answered sooner would tell them that it was sent before.
    pub(super) salt: Option<[u8; 32]>,
}

/// The keys that open the server; none means that it is open to all.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    hashes: Vec<blake3::Hash>,
}

impl ApiKeys {
    /// Any of these keys opens the server.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut hashes: Vec<blake3::Hash> = Vec::new();
        for key in keys {
            let hash = blake3::hash(key.as_ref().as_bytes());
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
        }
        Self { hashes }
    }

    /// Whether any key will do, and none at all.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    fn admit(&self, key: &str) -> bool {
        let sent = blake3::hash(key.as_bytes());
        // No early exit: the time must not tell which key, or how much of it, was right.
        let found = self.hashes.iter().fold(Choice::from(0), |found, known| {
            found | known.as_bytes().ct_eq(sent.as_bytes())
        });
        found.into()
    }

    fn caller(&self, key: &str) -> Caller {
        let tenant = blake3::derive_key(TENANT_CONTEXT, key.as_bytes());
        let tenant = tenant.first_chunk().expect("a hash has 32 bytes");
        Caller {
            tenant: TenantId(u64::from_le_bytes(*tenant)),
            salt: (self.hashes.len() > 1).then(|| blake3::derive_key(SALT_CONTEXT, key.as_bytes())),
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_open() {
            return Ok(Caller::default());
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(ApiError::unauthorized(
                "No API key was sent. Send the header Authorization: Bearer YOUR_KEY.",
            ));
        };
        let key = value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        match key {
            Some(key) if self.admit(key) => Ok(self.caller(key)),
            Some(_) => Err(ApiError::unauthorized("Incorrect API key.")),
            None => Err(ApiError::unauthorized(
                "The header Authorization is malformed. Send Authorization: Bearer YOUR_KEY.",
            )),
        }
    }
}

/// Lets a request pass that has a key or needs none.
pub(super) async fn require_key(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    if OPEN_ROUTES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match app.keys().check(request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let (head, body) = request.into_parts();
            extract::discard(&head.headers, body).await;
            error.into_response()
        }
    }
}
