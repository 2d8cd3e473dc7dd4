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

/// Routes that need no key: an orchestrator's probes have none.
const OPEN_ROUTES: [&str; 2] = ["/health", "/ready"];

/// The keys that open the server; none means that it is open to all.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    hashes: Vec<blake3::Hash>,
}

impl ApiKeys {
    /// Any of these keys opens the server.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let hash = |key: &dyn AsRef<str>| blake3::hash(key.as_ref().as_bytes());
        Self {
            hashes: keys.into_iter().map(|key| hash(&key)).collect(),
        }
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

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.is_open() {
            return Ok(());
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
            Some(key) if self.admit(key) => Ok(()),
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
    request: Request,
    next: Next,
) -> Response {
    if OPEN_ROUTES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match app.keys().check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let (head, body) = request.into_parts();
            extract::discard(&head.headers, body).await;
            error.into_response()
        }
    }
}
