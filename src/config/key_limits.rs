//! Limits for each API key, and keys with priority.

use clap::Args;

use super::ApiKey;
use super::api_key::api_key;
use super::counts::at_least_one;

/// Limits of one API key; `None` means no limit. Without keys they apply to all clients together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests at a time, each answer to a prompt counted.
    pub max_requests: Option<usize>,
    /// Most of those requests that may wait in the queue.
    pub max_waiting: Option<usize>,
    /// Tokens a minute, of prompts and answers.
    pub max_tokens_per_minute: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct KeyLimitArguments {
    /// API key whose requests may use priorities below 0 (served first). Also valid as --api-key;
    /// may be repeated
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_PRIORITY_API_KEY",
        value_parser = api_key,
        help_heading = "Network"
    )]
    pub(super) priority_api_key: Vec<ApiKey>,

    /// Maximum number of concurrent requests of one key, or of all clients if there are no keys; a
    /// request with n answers counts n times. Requests over the limit get 429 with Retry-After
    /// [default: none]
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_REQUESTS_PER_KEY",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    max_requests_per_key: Option<usize>,

    /// Maximum number of waiting requests of one key, counted alike. Default: with several keys, a
    /// key may queue at most as many requests as it leaves free for the others
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_WAITING_PER_KEY",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    max_waiting_per_key: Option<usize>,

    /// Maximum number of tokens per minute of one key, of prompts and answers; requests over the
    /// limit get 429 with Retry-After [default: none]
    #[arg(
        long,
        value_name = "TOKENS",
        env = "MEDGEMMA_MAX_TOKENS_PER_MINUTE_PER_KEY",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    max_tokens_per_minute_per_key: Option<usize>,
}

impl KeyLimitArguments {
    pub(super) fn limits(&self) -> KeyLimits {
        KeyLimits {
            max_requests: self.max_requests_per_key,
            max_waiting: self.max_waiting_per_key,
            max_tokens_per_minute: self.max_tokens_per_minute_per_key,
        }
    }
}
