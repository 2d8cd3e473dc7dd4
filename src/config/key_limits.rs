//! What one key may ask, and which keys may go first.

use clap::Args;

use super::ApiKey;
use super::api_key::api_key;
use super::counts::at_least_one;

/// What one key may ask; `None` is without limit. Where no keys are, all clients together.
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
    /// Key whose requests may have a priority below 0, which goes before everybody else's; repeat it
    /// for several. It opens the server as --api-key does
    #[arg(
        long,
        value_name = "KEY",
        env = "MEDGEMMA_PRIORITY_API_KEY",
        value_parser = api_key,
        help_heading = "Network"
    )]
    pub(super) priority_api_key: Vec<ApiKey>,

    /// Most requests at a time of one key, or of all clients where no keys are; with n answers to a
    /// prompt a request counts n times. More are answered with 429 [default: none]
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_REQUESTS_PER_KEY",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    max_requests_per_key: Option<usize>,

    /// Most requests of one key that wait, counted alike. Without it, where several keys are, one may
    /// have as many places as it leaves free for others
    #[arg(
        long,
        value_name = "COUNT",
        env = "MEDGEMMA_MAX_WAITING_PER_KEY",
        value_parser = at_least_one,
        help_heading = "Requests"
    )]
    max_waiting_per_key: Option<usize>,

    /// Most tokens a minute of one key, of prompts and answers; more are answered with 429 and when
    /// to come again [default: none]
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
