//! What one key may ask at a time and in a minute, and the headers that tell how much is left.
//!
//! Owns the counts of each tenant. Where no keys are, all clients are one tenant. How many of a
//! key's requests may wait is the engine's affair: it knows who waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::error::ApiError;
use crate::core::TenantId;

/// Of an answer that has not begun, at most so many tokens are counted beforehand; what it has in
/// the end is counted then.
const FORESEEN_TOKENS: usize = 512;

/// Most tenants without anything to remember that are kept.
const FEW_TENANTS: usize = 64;

/// What one key may ask; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests at a time, each answer to a prompt counted.
    pub max_requests: Option<usize>,
    /// Tokens a minute, of prompts and answers.
    pub max_tokens_per_minute: Option<usize>,
}

/// The limits, and what each tenant has used of them.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    limits: KeyLimits,
    tenants: Mutex<HashMap<TenantId, Usage>>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    num_requests: usize,
    /// What is left of the minute's tokens; less than nothing where answers were longer than was
    /// foreseen.
    tokens: f64,
    /// When that was so.
    at: Instant,
}

/// What a request is going to need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Answers to all of its prompts.
    pub(super) num_answers: usize,
    /// Of all of its prompts.
    pub(super) prompt_tokens: usize,
    /// Most in each answer, as far as the request says.
    pub(super) max_tokens: Option<usize>,
}

impl Need {
    /// Tokens that are counted when the request comes.
    fn foreseen(&self) -> usize {
        let each = self
            .max_tokens
            .map_or(FORESEEN_TOKENS, |most| most.min(FORESEEN_TOKENS));
        self.prompt_tokens + self.num_answers * each
    }
}

/// A request within its key's limits. Dropped, its places are free again, and what was counted of
/// it is what it used.
#[derive(Debug)]
pub(super) struct Permit {
    quotas: Arc<Quotas>,
    tenant: TenantId,
    need: Need,
    /// Tokens that it really had: none before it began.
    used: usize,
}

impl Quotas {
    pub(super) fn new(limits: KeyLimits) -> Self {
        Self {
            limits,
            tenants: Mutex::default(),
        }
    }

    /// Lets a request in, if its key has that much left. A request that is larger than a whole
    /// minute's tokens needs a whole minute's.
    ///
    /// # Errors
    /// 429 that says which limit, and when to come again; 400 for more answers at once than there
    /// may ever be.
    pub(super) fn admit(
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
                "This API key has {held} requests at work, and {max} are allowed at a time \
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

    /// A tenant's usage as it is now.
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

    /// Those who have nothing at work and all of their tokens are as if they had never come.
    fn forget_idle(&self, tenants: &mut HashMap<TenantId, Usage>, now: Instant) {
        if tenants.len() > FEW_TENANTS {
            const LONGEST_DEBT: Duration = Duration::from_secs(3600);
            tenants.retain(|_, usage| usage.num_requests > 0 || now - usage.at < LONGEST_DEBT);
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Usage>> {
        // Plain numbers, right after every statement: a panic elsewhere breaks none of them.
        self.tenants
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl KeyLimits {
    /// What OpenAI's API tells of its limits, for those that are set.
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
            // When one of them ends, which nobody knows; none has to be waited for while some are
            // left.
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

/// As OpenAI's API writes durations: `6m0s`, `1s`, `20ms`.
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
    /// How much its key has left, for the answer's head.
    pub(super) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut tenants = self.quotas.tenants();
        let usage = self.quotas.usage(&mut tenants, self.tenant, Instant::now());
        self.quotas.limits.headers(usage)
    }

    /// The engine has it, and it has so many tokens of answers so far.
    pub(super) fn used(&mut self, output_tokens: usize) {
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
        // It was shorter than was foreseen.
        first.used(50);
        drop(first);
        let mut second = quotas.admit(ME, need(1, 100, 300)).expect("450 are left");
        // This one is longer, by what nobody foresaw.
        second.used(600);
        drop(second);
        // 600 − 150 − 700: 250 too many, and ten come back with each second.
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
        // Larger than a minute's: a whole minute's are enough.
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
