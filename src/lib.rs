//! MedGemma and Gemma 3 behind an OpenAI-compatible API.

pub mod backend;
pub mod core;
pub mod engine;
pub mod error;
