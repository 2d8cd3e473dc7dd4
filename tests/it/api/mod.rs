//! The HTTP side over a scripted engine: what a client notices, byte by byte.

mod auth;
mod bad_input;
mod beside;
mod choices;
mod disconnect;
mod images;
mod lifecycle;
mod log;
mod memory;
mod messages;
mod metrics;
mod openapi;
mod pages;
mod refused;
mod requests;
mod responses;
mod roles;
mod routes;
mod scheduling;
mod server;
mod streams;
mod structured;
mod thinking;
mod tokens;
mod tools;
