//! The HTTP side over a scripted engine: what a client notices, byte by byte.

mod auth;
mod bad_input;
mod choices;
mod disconnect;
mod images;
mod lifecycle;
mod log;
mod messages;
mod metrics;
mod refused;
mod requests;
mod responses;
mod routes;
mod server;
mod streams;
mod terms;
mod tokens;
