//! The integration tests: one binary, one module per part of the house.

mod golden;
mod model;
mod tidy;
