//! API keys and the callers they identify. Only hashes of the keys are stored, and they are compared
//! in constant time.

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use subtle::{Choice, ConstantTimeEq};

use super::error::ApiError;
use super::limits::{KeyLimits, Quotas};
use crate::core::TenantId;

/// The header in which Anthropic's clients send their key.
pub(super) static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

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
