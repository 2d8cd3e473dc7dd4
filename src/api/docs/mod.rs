//! The web pages and the description of the API.

pub mod fields;
pub(crate) mod openapi;
pub(crate) mod pages;
