//! The integration tests: one binary, one module per part of the house.

mod api;
mod catalog;
mod checkpoint;
mod cli;
mod config_dialects;
mod engine;
mod generation;
mod golden;
mod hostile_images;
mod image;
mod memory_plan;
mod model;
mod text;
mod tidy;
