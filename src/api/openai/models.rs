//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::docs::openapi::{Access, Answer, Method, Operation, written};
use crate::api::http::error::ApiError;
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::state::AppState;
use crate::registry::ServedModel;

/// The list of all served names.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelList<'a> {
    #[schemars(extend("const" = "list"))]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<ModelCard<'a>>,
}

/// One served name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelCard<'a> {
    pub(crate) id: &'a str,
    #[schemars(extend("const" = "model"))]
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) owned_by: &'static str,
    /// The model's main name; `id` may be another of its names.
    pub(crate) root: &'a str,
    /// vLLM's: maximum length of prompt and output together, in tokens.
    pub(crate) max_model_len: usize,
}

/// `GET /v1/models` in the description of the API.
pub(crate) const LIST_MODELS: Operation = Operation {
    method: Method::Get,
    paths: &["/v1/models", "/models"],
    id: "listModels",
    summary: "All names that requests may use.",
    body: None,
    answer: Answer::Json(written::<ModelList<'static>>),
    errors: &[503],
    access: Access::Key,
};

/// `GET /v1/models/{id}` in the description of the API.
pub(crate) const RETRIEVE_MODEL: Operation = Operation {
    method: Method::Get,
    paths: &["/v1/models/{id}", "/models/{id}"],
    id: "retrieveModel",
    summary: "One name; it may contain slashes.",
    body: None,
    answer: Answer::Json(written::<ModelCard<'static>>),
    errors: &[400, 404, 503],
    access: Access::Key,
};

/// Lists all names that requests may use.
///
/// # Errors
/// 503 while the model loads.
pub(crate) async fn list_models(State(app): State<AppState>) -> Result<Response, ApiError> {
    let model = app.model()?;
    let entries = model.names.iter().map(|name| entry(name, model));
    Ok(json_response(to_json(&ModelList {
        object: "list",
        data: entries.collect(),
    })))
}

/// Returns the entry of one name, which may contain slashes.
///
/// # Errors
/// 404 for another model, 503 while the model loads.
pub(crate) async fn retrieve_model(
    State(app): State<AppState>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let model = app.model()?;
    let Ok(Path(name)) = name else {
        return Err(ApiError::invalid_value(
            "model",
            "The model's name is not UTF-8.",
        ));
    };
    if !model.names.contains(&name) {
        return Err(ApiError::unknown_model(&name, &model.names));
    }
    Ok(json_response(to_json(&entry(&name, model))))
}

fn entry<'a>(name: &'a str, model: &'a ServedModel) -> ModelCard<'a> {
    ModelCard {
        id: name,
        object: "model",
        created: model.created,
        owned_by: "medgemma-server",
        root: &model.names[0],
        max_model_len: model.max_model_len,
    }
}
