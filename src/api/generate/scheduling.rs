//! Converts scheduling fields and the caller's identity to the engine's scheduling parameters.

use std::time::{Duration, Instant};

use super::types::scheduling_fields::SchedulingFields;
use crate::api::http::error::ApiError;
use crate::api::http::keys::{Caller, Priorities};
use crate::core::{CacheSalt, SchedulingParams};

/// Context of the hash, so that salts differ from all other hashes.
const SALT_CONTEXT: &str = "medgemma-server 2026-11 cache salt";

/// The checked scheduling fields of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequestedScheduling {
    priority: i32,
    cache_salt: Option<String>,
    timeout: Option<Duration>,
}

impl RequestedScheduling {
    /// Checks the fields.
    ///
    /// # Errors
    /// 400 that names the field and its range.
    pub(crate) fn new(fields: SchedulingFields) -> Result<Self, ApiError> {
        let priority = fields.priority.unwrap_or(0);
        let priority = i32::try_from(priority).map_err(|_| {
            let (least, most) = (i32::MIN, i32::MAX);
            let message = format!("'priority' must be {least} to {most}, got {priority}.");
            ApiError::invalid_value("priority", message)
        })?;
        if fields.cache_salt.as_deref() == Some("") {
            return Err(ApiError::invalid_value(
                "cache_salt",
                "'cache_salt' must not be empty.",
            ));
        }
        let timeout = match fields.timeout {
            None => None,
            Some(seconds) if seconds > 0.0 => {
                // A timeout beyond the type's range is as good as none.
                Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
            Some(seconds) => {
                return Err(ApiError::invalid_value(
                    "timeout",
                    format!("'timeout' must be above 0 seconds, got {seconds}."),
                ));
            }
        };
        Ok(Self {
            priority,
            cache_salt: fields.cache_salt,
            timeout,
        })
    }

    /// Returns what decides where a request's prompt is cached, and when it runs: its salt and its
    /// priority.
    pub(crate) fn for_the_cache(&self) -> (Option<String>, i32) {
        (self.cache_salt.clone(), self.priority)
    }

    /// Returns the parameters of a request by `caller` that arrived at `arrived` and may take at
    /// most `limit`.
    ///
    /// # Errors
    /// 403 for a priority that the caller's requests may not have.
    pub(crate) fn scheduling(
        &self,
        caller: &Caller,
        arrived: Instant,
        limit: Option<Duration>,
    ) -> Result<SchedulingParams, ApiError> {
        if self.priority < 0 && caller.priorities == Priorities::NotBelowZero {
            return Err(ApiError::forbidden(
                "priority",
                "This API key may not use a 'priority' below 0. Send 0 or more, or start the \
                 server with --priority-api-key for this key.",
            ));
        }
        let timeout = [self.timeout, limit].into_iter().flatten().min();
        Ok(SchedulingParams {
            priority: self.priority,
            tenant: caller.tenant,
            cache_salt: self.salt(caller),
            deadline: timeout.and_then(|timeout| arrived.checked_add(timeout)),
        })
    }

    /// Returns the salt, derived from the caller's part and the request's part, as far as they
    /// exist. The caller's part makes it useless to guess the `cache_salt` of another caller.
    fn salt(&self, caller: &Caller) -> Option<CacheSalt> {
        if caller.salt.is_none() && self.cache_salt.is_none() {
            return None;
        }
        let mut hasher = blake3::Hasher::new_derive_key(SALT_CONTEXT);
        // Flags and fixed lengths keep the two parts unambiguous.
        hasher.update(&[u8::from(caller.salt.is_some())]);
        hasher.update(&caller.salt.unwrap_or_default());
        hasher.update(&[u8::from(self.cache_salt.is_some())]);
        hasher.update(self.cache_salt.as_deref().unwrap_or_default().as_bytes());
        Some(CacheSalt(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::TenantId;

    fn wish(cache_salt: Option<&str>) -> RequestedScheduling {
        let fields = SchedulingFields {
            cache_salt: cache_salt.map(str::to_owned),
            ..SchedulingFields::default()
        };
        RequestedScheduling::new(fields).expect("valid")
    }

    #[test]
    fn salts_differ_by_caller_and_by_word() {
        let caller = |salt: Option<u8>| Caller {
            salt: salt.map(|byte| [byte; 32]),
            ..Caller::default()
        };
        let salts: Vec<_> = [None, Some(0), Some(1)]
            .iter()
            .flat_map(|salt| {
                [None, Some("\0"), Some("a")].map(|word| wish(word).salt(&caller(*salt)))
            })
            .collect();
        assert_eq!(salts[0], None, "nobody is kept apart");
        for (at, salt) in salts.iter().enumerate() {
            assert!(!salts[..at].contains(salt), "{at}");
        }
        assert_eq!(
            wish(Some("a")).salt(&caller(None)),
            wish(Some("a")).salt(&caller(None))
        );
    }

    #[test]
    fn going_first_is_for_those_who_may() {
        let asked = |priority, priorities| {
            let wish = RequestedScheduling::new(SchedulingFields {
                priority: Some(priority),
                ..SchedulingFields::default()
            });
            let caller = Caller {
                priorities,
                ..Caller::default()
            };
            let scheduling = wish
                .expect("valid")
                .scheduling(&caller, Instant::now(), None);
            scheduling.ok().map(|scheduling| scheduling.priority)
        };
        for priority in [-1, i64::from(i32::MIN), 0, 1] {
            let as_asked = Some(priority as i32);
            assert_eq!(asked(priority, Priorities::All), as_asked);
            let allowed = as_asked.filter(|&priority| priority >= 0);
            assert_eq!(asked(priority, Priorities::NotBelowZero), allowed);
        }
    }

    #[test]
    fn the_shorter_time_counts() {
        let caller = Caller {
            tenant: TenantId(3),
            ..Caller::default()
        };
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = |timeout: Option<f64>, limit| {
            let fields = SchedulingFields {
                timeout,
                ..SchedulingFields::default()
            };
            let wish = RequestedScheduling::new(fields).expect("valid");
            let scheduling = wish.scheduling(&caller, now, limit);
            scheduling.expect("no priority").deadline
        };
        assert_eq!(deadline(None, None), None);
        assert_eq!(deadline(Some(2.0), None), Some(now + 2 * second));
        assert_eq!(deadline(None, Some(second)), Some(now + second));
        assert_eq!(deadline(Some(2.0), Some(second)), Some(now + second));
        assert_eq!(deadline(Some(1.0), Some(2 * second)), Some(now + second));
        assert_eq!(deadline(Some(1e300), None), None);
    }
}
