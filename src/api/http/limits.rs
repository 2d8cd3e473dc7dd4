//! Rate limits of each key: concurrent requests and tokens per minute, and the headers that report
//! them.
//!
//! Keeps the counts of each tenant. Without keys, all clients are one tenant. The limit on a key's
//! waiting requests is in the engine, which owns the waiting queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::error::ApiError;
use crate::core::TenantId;

/// Upper bound of the tokens charged in advance for one answer. The actual number is charged when
/// the answer ends.
const FORESEEN_TOKENS: usize = 512;

/// Number of tenants up to which idle ones are kept.
const FEW_TENANTS: usize = 64;

/// The limits of one key. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Maximum concurrent requests. Each answer to each prompt counts as one.
    pub max_requests: Option<usize>,
    /// Maximum tokens per minute, of prompts and answers together.
    pub max_tokens_per_minute: Option<usize>,
}

/// The limits, and the usage of each tenant.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    limits: KeyLimits,
    tenants: Mutex<HashMap<TenantId, Usage>>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    num_requests: usize,
    /// What is left of the minute's tokens. Negative if answers were longer than charged in
    /// advance.
    tokens: f64,
    /// Time at which `tokens` was computed.
    at: Instant,
}

/// What a request will need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// Number of answers to all of its prompts.
    pub(crate) num_answers: usize,
    /// Tokens of all of its prompts.
    pub(crate) prompt_tokens: usize,
    /// Maximum tokens of each answer, if the request sets it.
    pub(crate) max_tokens: Option<usize>,
}

impl Need {
    /// Returns the number of tokens that are charged when the request is admitted.
    fn foreseen(&self) -> usize {
        let each = self
            .max_tokens
            .map_or(FORESEEN_TOKENS, |most| most.min(FORESEEN_TOKENS));
        self.prompt_tokens + self.num_answers * each
    }
}

/// Admission of a request under its key's limits. Dropping it frees its places and replaces the
/// tokens charged in advance by those used.
#[derive(Debug)]
pub(crate) struct Permit {
    quotas: Arc<Quotas>,
    tenant: TenantId,
    need: Need,
    /// Tokens used so far; 0 until the engine has the request.
    used: usize,
}

impl Quotas {
    pub(crate) fn new(limits: KeyLimits) -> Self {
        Self {
            limits,
            tenants: Mutex::default(),
        }
    }

    /// Admits a request if its key's limits allow it now. A request that is larger than a whole
    /// minute's tokens needs all of a minute's tokens.
    ///
    /// # Errors
    /// 429 that names the limit and when to retry; 400 for more answers than may ever run at once.
    pub(crate) fn admit(
        self: &Arc<Self>,
        tenant: TenantId,
        need: Need,
    ) -> Result<Permit, ApiError> {
        let num_answers = need.num_answers;
        if let Some(max) = self.limits.max_requests
            && num_answers > max
        {
            return Err(ApiError::invalid_value(
                "n",
                format!(
                    "This request asks for {num_answers} answers, but an API key may have {max} \
                     requests at a time (--max-requests-per-key), and each answer counts as one."
                ),
            ));
        }
        let now = Instant::now();
        let foreseen = need.foreseen() as f64;
        let mut tenants = self.tenants();
        self.forget_idle(&mut tenants, now);
        let usage = self.usage(&mut tenants, tenant, now);
        let limits = self.limits;
        let refusal = if let Some(max) = limits.max_requests
            && usage.num_requests + num_answers > max
        {
            let held = usage.num_requests;
            let message = format!(
                "This API key has {held} requests in progress, and {max} are allowed at a time \
                 (--max-requests-per-key). Try again when one has ended."
            );
            Some((message, Duration::from_secs(1)))
        } else if let Some(max) = limits.max_tokens_per_minute
            && usage.tokens < foreseen.min(max as f64)
        {
            let missing = foreseen.min(max as f64) - usage.tokens;
            let after = Duration::from_secs_f64((missing * 60.0 / max as f64).ceil().max(1.0));
            let message = format!(
                "This API key has used its {max} tokens a minute (--max-tokens-per-minute-per-key). \
                 Try again in {} s.",
                after.as_secs()
            );
            Some((message, after))
        } else {
            None
        };
        if let Some((message, after)) = refusal {
            let headers = limits.headers(usage);
            return Err(ApiError::rate_limited(message, after, headers));
        }
        usage.num_requests += num_answers;
        usage.tokens -= foreseen;
        Ok(Permit {
            quotas: Arc::clone(self),
            tenant,
            need,
            used: 0,
        })
    }

    /// Returns a tenant's usage, updated to `now`.
    fn usage<'a>(
        &self,
        tenants: &'a mut HashMap<TenantId, Usage>,
        tenant: TenantId,
        now: Instant,
    ) -> &'a mut Usage {
        let most = self.limits.max_tokens_per_minute.unwrap_or(0) as f64;
        let usage = tenants.entry(tenant).or_insert(Usage {
            num_requests: 0,
            tokens: most,
            at: now,
        });
        let minutes = (now - usage.at).as_secs_f64() / 60.0;
        usage.tokens = (usage.tokens + most * minutes).min(most);
        usage.at = now;
        usage
    }

    /// Drops tenants that have been idle for so long that their tokens must have refilled.
    fn forget_idle(&self, tenants: &mut HashMap<TenantId, Usage>, now: Instant) {
        if tenants.len() > FEW_TENANTS {
            const LONGEST_DEBT: Duration = Duration::from_secs(3600);
            tenants.retain(|_, usage| usage.num_requests > 0 || now - usage.at < LONGEST_DEBT);
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Usage>> {
        // Plain numbers that are consistent after every statement, so a panic elsewhere cannot
        // break them.
        self.tenants
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl KeyLimits {
    /// Returns the rate limit headers of OpenAI's API, for the limits that are set.
    fn headers(&self, usage: &Usage) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let mut tell = |name: &'static str, value: String| {
            let value = HeaderValue::try_from(value).expect("digits and units are ASCII");
            headers.push((HeaderName::from_static(name), value));
        };
        if let Some(max) = self.max_requests {
            let left = max.saturating_sub(usage.num_requests);
            tell("x-ratelimit-limit-requests", max.to_string());
            tell("x-ratelimit-remaining-requests", left.to_string());
            // The reset time is that of the next request to end, which is unknown. It is 0 while
            // some requests are left.
            let reset = Duration::from_secs(u64::from(left == 0));
            tell("x-ratelimit-reset-requests", shown(reset));
        }
        if let Some(max) = self.max_tokens_per_minute {
            let left = usage.tokens.max(0.0).floor();
            let missing = (max as f64 - usage.tokens).max(0.0);
            tell("x-ratelimit-limit-tokens", max.to_string());
            tell("x-ratelimit-remaining-tokens", format!("{left:.0}"));
            let reset = Duration::from_secs_f64(missing * 60.0 / max as f64);
            tell("x-ratelimit-reset-tokens", shown(reset));
        }
        headers
    }
}

/// Formats a duration as OpenAI's API does: `6m0s`, `1s`, `20ms`.
fn shown(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        1..1000 => format!("{millis}ms"),
        _ => {
            let seconds = millis.div_ceil(1000);
            match seconds / 60 {
                0 => format!("{seconds}s"),
                minutes => format!("{minutes}m{}s", seconds % 60),
            }
        }
    }
}

impl Permit {
    /// Returns the rate limit headers for the response.
    pub(crate) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut tenants = self.quotas.tenants();
        let usage = self.quotas.usage(&mut tenants, self.tenant, Instant::now());
        self.quotas.limits.headers(usage)
    }

    /// Records that the engine has the request and has generated `output_tokens` tokens so far.
    pub(crate) fn used(&mut self, output_tokens: usize) {
        self.used = self.need.prompt_tokens + output_tokens;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut tenants = self.quotas.tenants();
        let usage = self.quotas.usage(&mut tenants, self.tenant, Instant::now());
        usage.num_requests -= self.need.num_answers;
        usage.tokens += self.need.foreseen() as f64 - self.used as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: TenantId = TenantId(1);
    const YOU: TenantId = TenantId(2);

    fn need(num_answers: usize, prompt_tokens: usize, max_tokens: usize) -> Need {
        Need {
            num_answers,
            prompt_tokens,
            max_tokens: Some(max_tokens),
        }
    }

    fn quotas(max_requests: Option<usize>, max_tokens_per_minute: Option<usize>) -> Arc<Quotas> {
        Arc::new(Quotas::new(KeyLimits {
            max_requests,
            max_tokens_per_minute,
        }))
    }

    fn told(headers: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
        let headers = headers.iter();
        headers
            .map(|(name, value)| {
                let name = name.as_str().trim_start_matches("x-ratelimit-").to_owned();
                (name, value.to_str().expect("ASCII").to_owned())
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_takes_a_place_until_it_has_ended() {
        let quotas = quotas(Some(3), None);
        let two = quotas.admit(ME, need(2, 9, 9)).expect("two of three");
        assert_eq!(
            told(&two.headers()),
            [
                ("limit-requests", "3"),
                ("remaining-requests", "1"),
                ("reset-requests", "0s")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(quotas.admit(ME, need(2, 9, 9)).is_err());
        let third = quotas.admit(ME, need(1, 9, 9)).expect("the third");
        assert!(quotas.admit(ME, need(1, 9, 9)).is_err());
        assert!(quotas.admit(YOU, need(3, 9, 9)).is_ok());
        drop(two);
        assert!(quotas.admit(ME, need(2, 9, 9)).is_ok());
        drop(third);
        assert!(quotas.admit(ME, need(4, 9, 9)).is_err(), "never");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back_with_the_minute() {
        let quotas = quotas(None, Some(600));
        let mut first = quotas.admit(ME, need(1, 100, 400)).expect("500 of 600");
        assert!(quotas.admit(ME, need(1, 100, 1)).is_err());
        assert!(quotas.admit(YOU, need(1, 100, 1)).is_ok());
        // It was shorter than charged in advance.
        first.used(50);
        drop(first);
        let mut second = quotas.admit(ME, need(1, 100, 300)).expect("450 are left");
        // This one is longer than charged in advance.
        second.used(600);
        drop(second);
        // 600 − 150 − 700: 250 too many, and ten are refilled each second.
        assert!(quotas.admit(ME, need(1, 1, 1)).is_err());
        tokio::time::advance(Duration::from_secs(25)).await;
        assert!(quotas.admit(ME, need(1, 1, 1)).is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        let small = quotas.admit(ME, need(1, 1, 1)).expect("ten are there");
        let headers = told(&small.headers());
        assert_eq!(headers[1].1, "8");
        assert_eq!(headers[2].1, "1m0s");
        drop(small);
        tokio::time::advance(Duration::from_secs(600)).await;
        // Larger than a minute's tokens: a whole minute's tokens are enough.
        let large = quotas
            .admit(ME, need(9, 1_000, 100))
            .expect("all are there");
        assert!(quotas.admit(ME, need(1, 1, 1)).is_err());
        drop(large);
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_is_told() {
        let quotas = quotas(None, None);
        let permit = quotas
            .admit(ME, need(1_000, 1_000_000, 9))
            .expect("no limit");
        assert!(permit.headers().is_empty());
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        for (millis, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1_000, "1s"),
            (1_001, "2s"),
            (59_900, "1m0s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(shown(Duration::from_millis(millis)), text);
        }
    }
}
