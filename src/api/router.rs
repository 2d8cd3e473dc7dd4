//! All routes and the middleware around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tower::util::MapRequest;

use crate::api::anthropic;
use crate::api::docs::openapi::{self, Operation};
use crate::api::docs::pages;
use crate::api::elsewhere;
use crate::api::http::error::ApiError;
use crate::api::http::normalize_path::normalize_path;
use crate::api::http::route_kind::RouteKind;
use crate::api::http::state::AppState;
use crate::api::http::{auth, extract, request_guard, request_id};
use crate::api::openai::chat::{self, render};
use crate::api::openai::tokenize::{self, detokenize, info};
use crate::api::openai::{completions, models, responses};
use crate::api::status::{dashboard, health, load, metrics, version};

/// Every route exists with and without `/v1`: clients differ in whether their base URL includes it.
const PREFIXES: [&str; 2] = ["/v1", ""];

/// Exactly the operations that the router serves, for the description of the API; a test compares
/// them.
pub(crate) const OPERATIONS: &[Operation] = &[
    chat::OPERATION,
    render::OPERATION,
    completions::OPERATION,
    responses::OPERATION,
    anthropic::MESSAGES,
    anthropic::COUNT_TOKENS,
    models::LIST_MODELS,
    models::RETRIEVE_MODEL,
    tokenize::TOKENIZE,
    tokenize::DETOKENIZE,
    info::TOKENIZER_INFO,
    health::HEALTH,
    health::LIVE,
    health::READY,
    version::OPERATION,
    load::OPERATION,
    metrics::OPERATION,
    dashboard::OPERATION,
    openapi::OPERATION,
];

/// Returns the whole server as a service from request to response. It needs no socket.
pub fn router(app: AppState) -> Router {
    let routes = PREFIXES.iter().fold(Router::new(), |router, prefix| {
        let at = |path: &str| format!("{prefix}{path}");
        router
            .route(&at("/chat/completions"), post(chat::chat_completions))
            .route(&at("/chat/completions/render"), post(render::render_chat))
            .route(&at("/completions"), post(completions::completions))
            .route(&at("/messages"), post(anthropic::messages))
            .route(&at("/messages/count_tokens"), post(anthropic::count_tokens))
            .route(&at("/responses"), post(responses::responses))
            .route(&at("/models"), get(models::list_models))
            .route(&at("/models/{*id}"), get(models::retrieve_model))
    });
    let routes = routes
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(detokenize::detokenize))
        .merge(probes())
        .route("/tokenizer_info", get(info::tokenizer_info))
        .route("/version", get(version::version))
        .route("/load", get(load::load))
        .route("/metrics", get(metrics::metrics))
        .route("/dashboard.json", get(dashboard::dashboard))
        .route("/openapi.json", get(|| openapi::openapi(OPERATIONS)))
        .merge(pages::pages(OPERATIONS))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        // `extract` has its own limit, with an error in our format.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), auth::require_key))
        .layer(from_fn_with_state(app.clone(), request_guard::guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify))
        .layer(from_fn_with_state(
            app.clone(),
            request_guard::tell_browsers,
        ))
        .with_state(app);
    with_tidy_paths(routes)
}

/// Returns the routes of an orchestrator's probes.
fn probes() -> Router<AppState> {
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::live))
        .route("/ready", get(health::ready))
        .route("/readyz", get(health::ready))
}

/// Tidies the path of a request and names the kind of its route before any middleware sees it.
fn with_tidy_paths(routes: Router) -> Router {
    Router::new().fallback_service(MapRequest::new(routes, |request| {
        let mut request = normalize_path(request);
        let kind = route_kind(request.uri().path());
        request.extensions_mut().insert(kind);
        request
    }))
}

fn route_kind(path: &str) -> RouteKind {
    match path {
        "/metrics" | "/dashboard.json" => RouteKind::Metrics,
        "/health" | "/livez" | "/ready" | "/readyz" => RouteKind::Probe,
        path if pages::is_page(path) => RouteKind::Page,
        _ => RouteKind::Keyed,
    }
}

/// Returns the routes of the separate metrics address: metrics, their dashboard, and probes.
pub(crate) fn metrics_router(app: AppState) -> Router {
    let routes = Router::new()
        .merge(probes())
        .route("/metrics", get(metrics::metrics))
        .route("/dashboard.json", get(dashboard::dashboard))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    let routes = routes
        .layer(from_fn_with_state(app.clone(), auth::require_metrics_key))
        .layer(from_fn_with_state(app.clone(), request_guard::guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify))
        .layer(from_fn_with_state(
            app.clone(),
            request_guard::tell_browsers,
        ))
        .with_state(app);
    with_tidy_paths(routes)
}

async fn unknown_route(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    elsewhere::unknown_route(&head.method, head.uri.path())
}

async fn wrong_method(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    ApiError::wrong_method(&head.method, head.uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::body_fields::BodyFields;
    use crate::api::http::refused_fields::RefusedField;

    /// Fields that chat and text completions support.
    const SERVED: &[&str] = &[
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "stop_token_ids",
        "allowed_token_ids",
        "bad_words",
        "include_stop_str_in_output",
        "skip_special_tokens",
        "return_tokens_as_token_ids",
        "logprob_token_ids",
        "truncate_prompt_tokens",
        "truncation_side",
        "echo",
        "min_tokens",
        "ignore_eos",
        "n",
        "logprobs",
        "stream",
        "stream_options",
        "return_token_ids",
        "user",
        "priority",
        "cache_salt",
        "timeout",
        "response_format",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "guided_decoding_backend",
        "prompt_logprobs",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "service_tier",
        "metadata",
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
    ];

    #[test]
    fn a_field_is_refused_once_or_served() {
        for operation in [chat::OPERATION, completions::OPERATION] {
            let body = operation.body.expect("it has one");
            let names: Vec<_> = body
                .refused
                .concat()
                .iter()
                .map(|field| field.name)
                .collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "{name} stands twice");
                assert!(!SERVED.contains(name), "{name} is served");
            }
        }
    }

    fn refused(body: &str, tables: &[&'static [RefusedField]]) -> Result<(), ApiError> {
        BodyFields::find(body, &[], tables).check_refused()
    }

    #[test]
    fn each_field_is_refused_and_its_neutral_values_are_not() {
        for body in OPERATIONS.iter().filter_map(|operation| operation.body) {
            for field in body.refused.concat() {
                let with = |value: &str| format!("{{\"{}\": {value}}}", field.name);
                let error = refused(&with("{\"some\": [\"value\"]}"), body.refused);
                let message = error.expect_err(field.name).to_json();
                assert!(
                    message.contains(&format!("\"param\":\"{}\"", field.name)),
                    "{message}"
                );
                for value in field.neutral.iter().chain(&["null"]) {
                    let neutral = refused(&with(value), body.refused);
                    assert!(neutral.is_ok(), "{}: {value}", field.name);
                }
            }
        }
    }
}
