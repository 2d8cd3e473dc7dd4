//! MedGemma and Gemma 3 behind an OpenAI-compatible API: the map of the code.
//!
//! # The path of a request
//! ```text
//!  HTTP ──> api ──convert──> core::GenerateRequest ──> engine::EngineHandle
//!            │  text: template, tokens                     │ bounded, never blocks
//!            │  image: decode, resize                      v
//!            │                           engine thread: scheduler, requests in flight
//!            │                                             │       │ ^
//!            │                               model inputs: │       v │  :sampled tokens
//!            │                                             │  device thread: runner ─> model ─> backend
//!            │                                             │
//!  SSE  <── api <── text::Detokenizer <── TokenStream <────┘ one event per token
//! ```
//!
//! # Dependencies
//! ```text
//!  main ─> { api, batch, bench, selftest } ─> registry ─> { engine, text, image }
//!  main ─> { exit_code, probe, terminal } ─> { config, log }
//!          api ─> metrics ─> engine ─> { scheduler, model } ─> backend
//!          { registry, backend } ─> config
//!          { batch, metrics } ─> log
//!          api ─> web
//! ```
//! All modules may use [`core`] and [`error`]. The modules registry, model and text read files through
//! [`files`], and every outgoing HTTP request goes through [`http_client`]. Dependencies only point down;
//! a test (`tests/it/tidy.rs`) checks it, and that only the backend names a vendor's libraries.
//!
//! # Invariants
//! - Every accepted request ends in an answer or an error. Dropping its stream frees its place.
//! - One thread owns the scheduler, and one the model and its caches. No other thread touches them.
//! - A request's answer does not depend on the other requests of its batch.
//! - HTTP status codes exist in `api::http::error` only, device code in [`backend`] only.
//! - No prompt, image or answer is ever logged.
//! - A client's grammar is compiled and followed in a process that can be killed, and a chat
//!   template that the program does not know is rendered in one ([`text`]).
//!
//! # How to add …
//! | what | where |
//! |---|---|
//! | a sampling parameter | the list at the top of `api/generate/sampling.rs` |
//! | a tool format | `core/settings.rs`, `text/tool_prompt.rs`, `text/tool_calls/reader.rs`, `config/setting_names.rs`, `registry/catalog.rs` |
//! | an image format | the list at the top of `image/format.rs` |
//! | a kind of file that becomes several images | `File` in `image/source.rs` |
//! | a setting of images' preparation | `core/preparation.rs` |
//! | a weight format | `backend/host_tensor.rs`, `model/checkpoint.rs`, `model/weights.rs`, each backend's loading of weights |
//! | an option | the list at the top of `config/mod.rs` |
//! | an endpoint | its folder in `api`, `api/router.rs` (routes and `OPERATIONS`), `api/http/route_kind.rs` if it needs no key |
//! | a metric | `metrics/engine.rs` with `engine/stats.rs`, or `metrics/mod.rs`; latencies in `metrics/answers.rs`; `web/dashboard.json` |
//!
//! # Dictionary
//! | term | meaning here |
//! |---|---|
//! | sequence | one answer to one prompt: a request with `n` = 4 has four sequences |
//! | step | one pass of the model over a batch, then sampling |
//! | chunk | the tokens of one sequence that a step computes |
//! | prefill, decode | computing a prompt's tokens; computing one new token per step |
//! | image tokens | the 256 positions of a prompt that an image takes; their embeddings come from the vision encoder |
//! | block | keys and values of 32 positions in the KV cache; a block table lists a sequence's blocks |
//! | KV group | the layers that share block tables: global layers, or layers with a sliding window |
//! | prefix cache | blocks that are kept after their sequence ended, found by the hash of their tokens |
//! | salt | what keeps one key's cache entries apart from another's |
//! | preemption | taking a running sequence's blocks; it is computed again later |
//! | waiting queue | accepted sequences that do not run yet, by priority and tenant |
//! | tenant | the API key that a request came with |
//! | held sequence | one that sits out steps until its grammar mask is ready |
//! | grammar mask | one bit per token of the vocabulary: whether it may come next |
//! | model input | everything that the device thread needs to compute one step |
//! | reasoning | what a model writes before its answer (`thought` in Gemma's own markers) |
//! | control token | a token with a meaning of its own, such as `<start_of_turn>` |
//! | refusal | the answer to a request that is valid elsewhere but not supported here |

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
mod allocator;
