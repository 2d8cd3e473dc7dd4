//! `GET /load`, as vLLM has it: for balancers that ask how much there is to do.

use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::state::AppState;

/// How much the server has to do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Load {
    /// Number of requests that generate or wait to, until their last byte is sent.
    pub(crate) server_load: usize,
}

/// `GET /load` in the description of the API.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Get,
    paths: &["/load"],
    id: "load",
    summary: "How many requests are being answered.",
    body: None,
    answer: Answer::Json(written::<Load>),
    errors: &[],
    access: Access::Key,
};

/// Returns the number of requests that are being answered.
pub(crate) async fn load(State(app): State<AppState>) -> Response {
    json_response(to_json(&Load {
        server_load: app.num_generating(),
    }))
}
