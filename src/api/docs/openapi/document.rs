//! Builds the OpenAPI document.

use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::schemas::Schemas;

const DESCRIPTION: &str = "MedGemma and Gemma 3 behind OpenAI's API, with vLLM's extensions. \
     Errors have OpenAI's shape, those of /v1/messages Anthropic's. Every answer has the header X-Request-Id: the client's own, if \
     it sends one.";

/// Returns the OpenAPI Object.
pub(super) fn document(operations: &[Operation]) -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in operations {
        for (path_idx, path) in operation.paths.iter().enumerate() {
            let object = operation.at(path_idx, &mut schemas);
            let item = paths.entry(*path).or_insert_with(|| json!({}));
            item[operation.method.name()] = object;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "medgemma-server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "headers": {
                "X-Request-Id": {
                    "description": "Names the request in the server's log.",
                    "required": true,
                    "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
                },
                "Retry-After": {
                    "description": "Seconds to wait before a retry.",
                    "schema": { "type": "string", "pattern": "^[0-9]+$" },
                },
            },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    })
}
