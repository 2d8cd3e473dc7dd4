//! One operation of the API.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::examples;
use super::schemas::{Body, Schemas};
use crate::api::http::dialect::Dialect;
use crate::api::http::error::{AnthropicEnvelope, ErrorEnvelope};

/// Error statuses of generating operations.
pub(crate) const GENERATION_ERRORS: &[u16] = &[400, 403, 404, 408, 413, 415, 429, 500, 503, 504];

/// Error statuses of operations that process a body without generating.
pub(crate) const BODY_ERRORS: &[u16] = &[400, 404, 408, 413, 415, 500, 503];

/// The HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Clients with a key, if the server has keys.
    Key,
}

/// Returns a reference to the schema of a response type.
pub(crate) type Written = fn(&mut Schemas) -> Value;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// With the data `[DONE]`.
    Done,
    /// With an event whose type says so.
    Typed,
}

/// The content of a response with status 200.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// JSON.
    Json(Written),
    /// JSON, or events if the request sets `stream`.
    JsonOrEvents {
        whole: Written,
        event: Written,
        end: StreamEnd,
    },
    /// Prometheus' text format.
    Metrics,
    /// A JSON object without a Rust type.
    JsonObject(&'static str),
}

/// A route with its method.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// The second path, if there is one, is the first without `/v1`.
    pub(crate) paths: &'static [&'static str],
    /// The operation's name in generated clients.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) body: Option<Body>,
    pub(crate) answer: Answer,
    /// The other possible statuses.
    pub(crate) errors: &'static [u16],
    pub(crate) access: Access,
}

/// Returns a reference to the schema of `T` as a response.
pub(crate) fn written<T: JsonSchema>(schemas: &mut Schemas) -> Value {
    schemas.answer::<T>()
}

impl Method {
    /// Returns the name used in the document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

impl Operation {
    /// Returns its Operation Object for one of its paths.
    pub(crate) fn at(&self, path_idx: usize, schemas: &mut Schemas) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        let id = match path_idx {
            0 => self.id.to_owned(),
            _ => format!("{}WithoutV1", self.id),
        };
        put("operationId", json!(id));
        put("summary", json!(self.summary));
        let parameters = parameters(self.paths[path_idx]);
        if !parameters.is_empty() {
            put("parameters", Value::Array(parameters));
        }
        if let Some(body) = &self.body {
            let examples = examples::described(body.examples);
            let media = json!({ "schema": schemas.body(body), "examples": examples });
            let content = json!({ "application/json": media });
            put(
                "requestBody",
                json!({ "required": true, "content": content }),
            );
        }
        put("responses", self.responses(schemas));
        let anthropic_s = self.dialect() == Dialect::Anthropic;
        match self.access {
            Access::Open => put("security", json!([])),
            Access::Key if anthropic_s => put("security", json!([{ "bearer": [] }, { "key": [] }])),
            // The document's default applies.
            Access::Key => None,
        };
        Value::Object(object)
    }

    fn dialect(&self) -> Dialect {
        Dialect::of_route(self.paths[0])
    }

    /// Returns a reference to the schema of its errors.
    fn error(&self, schemas: &mut Schemas) -> Value {
        match self.dialect() {
            Dialect::OpenAi => schemas.answer::<ErrorEnvelope<'static>>(),
            Dialect::Anthropic => schemas.answer::<AnthropicEnvelope<'static>>(),
        }
    }

    fn responses(&self, schemas: &mut Schemas) -> Value {
        let mut responses = Map::new();
        let headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } });
        let error = self.error(schemas);
        let ok = json!({
            "description": "The answer.",
            "headers": headers,
            "content": self.answer.content(error, schemas),
        });
        responses.insert("200".to_owned(), ok);
        let of_keys: &[u16] = match self.access {
            Access::Open => &[],
            Access::Key => &[401, 403, 429],
        };
        let mut statuses = [self.errors, of_keys].concat();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let mut headers = headers.clone();
            if matches!(status, 429 | 503) {
                headers["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
            }
            let schema = self.error(schemas);
            let error = json!({
                "description": describe(status),
                "headers": headers,
                "content": { "application/json": { "schema": schema } },
            });
            responses.insert(status.to_string(), error);
        }
        Value::Object(responses)
    }
}

impl Answer {
    fn content(self, error: Value, schemas: &mut Schemas) -> Value {
        match self {
            Self::Json(written) => {
                json!({ "application/json": { "schema": written(schemas) } })
            }
            Self::JsonOrEvents { whole, event, end } => {
                let data = json!({
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": { "anyOf": [event(schemas), error] },
                });
                let data = match end {
                    StreamEnd::Done => json!({ "anyOf": [{ "const": "[DONE]" }, data] }),
                    StreamEnd::Typed => data,
                };
                // The schema describes one event of the stream.
                let event = json!({
                    "type": "object",
                    "description": "With `stream`: events whose data are JSON.",
                    "properties": { "event": { "type": "string" }, "data": data },
                    "required": ["data"],
                });
                json!({
                    "application/json": { "schema": whole(schemas) },
                    "text/event-stream": { "schema": event },
                })
            }
            Self::Metrics => json!({ "text/plain": { "schema": { "type": "string" } } }),
            Self::JsonObject(description) => {
                let schema = json!({ "type": "object", "description": description });
                json!({ "application/json": { "schema": schema } })
            }
        }
    }
}

/// Returns one parameter for each `{name}` of a path.
fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        Some(name)
    });
    let parameter = |name| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        })
    };
    names.map(parameter).collect()
}

/// Describes when a status is sent.
fn describe(status: u16) -> &'static str {
    match status {
        400 => "The request is invalid or not supported; `param` names the field.",
        401 => "No key, or a wrong one.",
        403 => "The Host or Origin is not allowed, or the key lacks permission.",
        404 => "No such model.",
        408 => "The body arrived too slowly.",
        413 => "The body is too large.",
        415 => "The body is not declared as plain JSON.",
        429 => {
            "The queue is full, the key has reached its limit, or the same address sent too many \
             wrong keys."
        }
        500 => "A fault of the server.",
        503 => "The server is loading, shutting down or has lost its device.",
        504 => "The request timed out.",
        _ => "An error.",
    }
}
