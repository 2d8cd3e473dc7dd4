//! MedGemma and Gemma 3 behind an OpenAI-compatible API: the map.
//!
//! # A request's path
//! ```text
//!  HTTP ──> api ──lower──> core::GenerateRequest ──> engine::EngineHandle
//!            │  text: template, tokens                     │ bounded, never blocks
//!            │  image: decode, resize                      v
//!            │                           engine thread: scheduler, open requests
//!            │                                             │       │ ^
//!            │                               work orders:  │       v │  :sampled tokens
//!            │                                             │  device thread: runner ─> model ─> backend
//!            │                                             │
//!  SSE  <── api <── text::Detokenizer <── TokenStream <────┘ one event per token
//! ```
//!
//! # Who may use whom
//! ```text
//!  main ─> { api, batch, bench, selftest } ─> registry ─> { engine, text, image }
//!  main ─> { exit_code, probe, terminal } ─> { config, log }
//!          api ─> metrics ─> engine ─> { scheduler, model } ─> backend
//!          { batch, metrics } ─> log
//!          api ─> web
//! ```
//! Everyone may use [`core`] and [`error`]; registry, model and text read through [`files`];
//! whoever asks others asks through an [`http_client`]. Nothing points sideways or back; a test
//! keeps it so.
//!
//! # What always holds
//! - Every accepted request ends in an answer or an error; dropping a stream frees its slot.
//! - One thread owns the scheduler, one the model and its caches; nobody else touches them.
//! - A request's answer does not depend on its neighbours.
//! - HTTP status codes exist in `api::error` only; device code in [`backend`] only.
//! - No prompt, image or answer is ever logged.
//! - What a client's grammar computes is computed in a process that can be killed ([`text`]).

pub mod api;
pub mod backend;
pub mod batch;
pub mod bench;
pub mod config;
pub mod core;
pub mod engine;
pub mod error;
pub mod exit_code;
pub mod files;
pub mod http_client;
pub mod image;
pub mod log;
pub mod metrics;
pub mod model;
pub mod probe;
pub mod registry;
pub mod scheduler;
pub mod selftest;
pub mod terminal;
pub mod text;
pub mod web;

/// Here rather than in the binary, so that tests and benches measure what is shipped.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
