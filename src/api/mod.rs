//! The HTTP layer: OpenAI's API, with vLLM's extensions, and Anthropic's Messages API over an
//! engine.
//!
//! ```text
//! serve ─ router ─ http: request_id ─ request_guard ─ auth ─▶ an endpoint
//!                                                     │ http::extract   body, JSON → types
//!          openai:    chat, completions, responses, … │ request → convert → a checked call
//!          anthropic: messages                        ▼
//!                                                  generate   images, constraint ─▶ engine
//!                                                     │ answer    one body, or events
//! response ◀── response, format ──────────────────────┘
//! ```
//!
//! Owns everything that a client sees. Each endpoint has a folder with its `request`, its `response`
//! and what converts them; `generate` holds what all generating endpoints share, `http` what every
//! request needs, `docs` the pages and the description of the API, `status` the endpoints about the
//! server itself. Only `http::error` sets error statuses. Knows no tensors and no scheduler: the
//! engine is a handle that takes requests and returns tokens.

mod anthropic;
mod docs;
mod elsewhere;
mod generate;
mod http;
mod openai;
mod router;
mod serve;
mod status;

pub use docs::fields;
pub use http::connections::ConnectionLimits;
pub use http::cors::{Cors, Credentials};
pub use http::extract::MAX_BODY;
pub use http::keys::ApiKeys;
pub use http::limits::KeyLimits;
pub use http::request_memory::RequestMemory;
pub use http::site::Site;
pub use http::state::{AppSettings, AppState, TokenizerInfoAccess};
pub use router::router;
pub use serve::{serve, serve_metrics};
