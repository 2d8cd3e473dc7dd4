//! All routes, and what stands around them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::error::ApiError;
use super::state::AppState;
use super::{
    anthropic, auth, chat, completions, detokenize, extract, gate, health, metrics, metrics_access,
    models, openapi, pages, request_id, responses, tokenize, version,
};

/// Clients differ in whether the base URL that they are given ends in `/v1`.
const PREFIXES: [&str; 2] = ["/v1", ""];

/// The whole server as a function from request to response; it needs no socket.
pub fn router(app: AppState) -> Router {
    let router = PREFIXES.iter().fold(Router::new(), |router, prefix| {
        let at = |path: &str| format!("{prefix}{path}");
        router
            .route(&at("/chat/completions"), post(chat::chat_completions))
            .route(&at("/completions"), post(completions::completions))
            .route(&at("/messages"), post(anthropic::messages))
            .route(&at("/messages/count_tokens"), post(anthropic::count_tokens))
            .route(&at("/responses"), post(responses::responses))
            .route(&at("/models"), get(models::list_models))
            .route(&at("/models/{*id}"), get(models::retrieve_model))
    });
    router
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(detokenize::detokenize))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/version", get(version::version))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .merge(pages::pages())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        // `extract` has its own limit, with an answer in our shape.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), auth::require_key))
        .layer(from_fn_with_state(app.clone(), gate::guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify))
        .with_state(app)
}

/// The metrics and the probes alone, for an address of their own.
pub(super) fn metrics_router(app: AppState) -> Router {
    let router = Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    router
        .layer(from_fn_with_state(
            app.clone(),
            metrics_access::require_key_beside,
        ))
        .layer(from_fn_with_state(app.clone(), gate::guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify))
        .with_state(app)
}

async fn unknown_route(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    ApiError::unknown_route(&head.method, head.uri.path())
}

async fn wrong_method(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    extract::discard(&head.headers, body).await;
    ApiError::wrong_method(&head.method, head.uri.path())
}
