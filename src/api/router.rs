//! All routes and the middleware around them.

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

/// Every route exists with and without `/v1`: clients differ in whether their base URL includes it.
const PREFIXES: [&str; 2] = ["/v1", ""];

/// Returns the whole server as a service from request to response. It needs no socket.
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
        // `extract` has its own limit, with an error in our format.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), auth::require_key))
        .layer(from_fn_with_state(app.clone(), gate::guard))
        .layer(from_fn_with_state(app.clone(), request_id::identify))
        .with_state(app)
}

/// Returns the routes of the separate metrics address: metrics and probes.
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
