//! Converts API types to core types: requests are checked once, and become the types that the
//! engine takes.
//!
//! Owns ranges, defaults and contradictions. Consists of pure functions without HTTP, threads or
//! clocks. Later code does not check ranges again.

mod labels;
mod messages;
mod model_name;
mod options;
mod output;
mod past_calls;
mod prompt;
mod prompting;
mod sampling;
mod scheduling;
mod size;
mod thinking;
mod tools;
mod turns;

pub(super) use labels::{ServiceTier, check_labels};
pub(super) use messages::{Chat, WireImage};
pub(super) use model_name::check_model;
pub(super) use options::{
    AnswerOptions, Delivery, StreamUsage, TokenIds, chat_logprobs, completion_logprobs, delivery,
};
pub(super) use output::{OutputPlan, ThoughtPlan, asked_grammar};
pub(super) use prompt::{
    Echo, EchoedPrompt, PreparedPrompt, check_ids, check_length, convert_prompts, encode_chat,
};
pub(super) use prompting::Prompting;
pub(super) use sampling::SamplingPlan;
pub(super) use scheduling::RequestedScheduling;
pub(super) use size::{MAX_TOKENIZED, check_size, least_tokens};
pub(super) use thinking::{ThinkingFields, convert_thinking, thinking_wish};
pub(super) use tools::{ToolFields, ToolPlan, convert_tools};
