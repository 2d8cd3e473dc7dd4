//! The HTTP layer: OpenAI's API, with vLLM's extensions, and Anthropic's Messages API over an
//! engine.
//!
//! ```text
//! request ─ request_id ─ gate ─ auth ─▶ chat | completions | tokenize | …
//!                                  │ generate  the steps that the first two share
//!                                  │ extract   body, JSON → types, within request_memory
//!                                  │ refused_fields, convert   types → core
//!                                  │ workers   images, long texts: off the async threads
//!                                  ▼
//!                               generation ── engine
//!                                  │ answer    one body, or events
//! response ◀───────────────────────┘
//! ```
//!
//! Owns everything that a client sees. Only `error` sets error statuses. Knows no tensors and no
//! scheduler: the engine is a handle that takes requests and returns tokens.

mod answer;
mod anthropic;
mod auth;
mod auth_failures;
mod chat;
mod completions;
mod connections;
mod constraint;
mod convert;
mod detokenize;
mod dialect;
mod error;
mod exchange;
mod extract;
pub mod fields;
mod front;
mod gate;
mod generate;
mod generation;
mod health;
mod identity;
mod images;
mod json_census;
mod limits;
mod logprobs;
mod malformed;
mod metrics;
mod metrics_access;
mod models;
mod names;
mod openapi;
mod pages;
mod peer;
mod random;
mod refused_fields;
mod request_id;
mod request_log;
mod request_memory;
mod responses;
mod router;
mod serve;
mod site;
mod socket;
mod state;
mod tidy_path;
mod tokenize;
mod translation;
mod types;
mod version;
mod workers;

pub use auth::ApiKeys;
pub use connections::ConnectionLimits;
pub use extract::MAX_BODY;
pub use limits::KeyLimits;
pub use request_memory::RequestMemory;
pub use router::router;
pub use serve::{serve, serve_metrics};
pub use site::Site;
pub use state::{AppSettings, AppState};
