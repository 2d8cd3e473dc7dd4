//! Routes of OpenAI's API or vLLM that this server does not have. The error names the route, and
//! what to use instead.

use axum::http::Method;

use crate::api::http::error::ApiError;

const GENERATES: &str = "this server only generates text. Use another server for embeddings or \
                         scores";
const NOTHING_KEPT: &str = "nothing is stored between requests. Send all data with each request";
const NO_SOUND: &str = "audio is not supported; prompts contain text and images";
const NO_IMAGES: &str = "images are supported as input only";
const ONE_MODEL: &str = "the model cannot be changed while the server runs";
const WHOLE: &str = "rendering and computation are not separate services here. The prompt of a \
                     chat is at /v1/chat/completions/render";
const BATCHES: &str = "use `medgemma run-batch` for files of requests";

/// Path prefixes, without `/v1`, and their messages.
const ROUTES: &[(&str, &str)] = &[
    ("/embeddings", GENERATES),
    ("/embed", GENERATES),
    ("/pooling", GENERATES),
    ("/classify", GENERATES),
    ("/score", GENERATES),
    ("/rerank", GENERATES),
    ("/moderations", GENERATES),
    ("/audio", NO_SOUND),
    ("/realtime", NO_SOUND),
    ("/images", NO_IMAGES),
    ("/videos", NO_IMAGES),
    ("/files", NOTHING_KEPT),
    ("/uploads", NOTHING_KEPT),
    ("/conversations", NOTHING_KEPT),
    ("/assistants", NOTHING_KEPT),
    ("/threads", NOTHING_KEPT),
    ("/vector_stores", NOTHING_KEPT),
    ("/batches", BATCHES),
    ("/messages/batches", BATCHES),
    ("/fine_tuning", ONE_MODEL),
    ("/load_lora_adapter", ONE_MODEL),
    ("/unload_lora_adapter", ONE_MODEL),
    ("/sleep", ONE_MODEL),
    ("/wake_up", ONE_MODEL),
    ("/completions/render", WHOLE),
    ("/responses/render", WHOLE),
    ("/messages/render", WHOLE),
    ("/completions/derender", WHOLE),
    ("/chat/completions/derender", WHOLE),
    ("/inference", WHOLE),
];

/// Returns the error for a route that this server does not have.
pub(crate) fn unknown_route(method: &Method, path: &str) -> ApiError {
    let inside = ["/v1", "/v2"].iter().find_map(|prefix| {
        let rest = path.strip_prefix(prefix)?;
        rest.starts_with('/').then_some(rest)
    });
    let inside = inside.unwrap_or(path);
    let known = ROUTES.iter().find(|(route, _)| {
        let rest = inside.strip_prefix(route);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    match known {
        Some((_, instead)) => ApiError::route_not_served(method, path, instead),
        None => ApiError::unknown_route(method, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_others_is_named_with_what_there_is() {
        let said = |path: &str| unknown_route(&Method::POST, path).to_json();
        for path in [
            "/v1/embeddings",
            "/embeddings",
            "/v2/rerank",
            "/v1/audio/transcriptions",
            "/v1/files/file-1/content",
            "/inference/v1/generate",
        ] {
            let said = said(path);
            assert!(said.contains("route_not_served"), "{said}");
            assert!(
                said.contains(&format!("POST {path} is not served: ")),
                "{said}"
            );
        }
        for path in ["/v1/embeddingsx", "/v1", "/v3/score", "/nope", "/"] {
            assert!(said(path).contains("Unknown route"), "{path}");
        }
    }
}
