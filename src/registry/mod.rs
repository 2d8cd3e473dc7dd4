//! From a name to a model that answers.

mod served_model;

pub use served_model::{ImageSupport, SamplingDefaults, ServedModel};
