//! The integration tests: one binary, one module per part of the house.

mod api;
mod checkpoint;
mod config_dialects;
mod engine;
mod generation;
mod golden;
mod model;
mod text;
mod tidy;
