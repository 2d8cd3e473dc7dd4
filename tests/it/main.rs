//! The integration tests: one binary, one module per part of the house.

mod api;

mod candle_transformers;
mod catalog;
mod checkpoint;
mod cli;
mod config_dialects;
mod cuda;
mod damaged_checkpoints;
mod engine;
mod engine_script;
mod films;
mod forward_seam;
mod generation;
mod golden;
mod grammar;
mod hostile_images;
mod hub;
mod image;
mod linear_roles;
mod memory_plan;
mod model;
mod not_finite;
mod prompt_scores;
mod schema_keywords;
mod selftest;
mod served;
mod study;
mod templates;
mod text;
mod tidy;
mod tidy_graph;
