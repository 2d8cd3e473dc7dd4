//! One line of the output, in OpenAI's form.

use serde::Serialize;
use serde_json::value::RawValue;

/// A result as it is written.
#[derive(Clone, Debug)]
pub(super) struct ResultLine {
    /// One line.
    pub(super) json: String,
    /// Whether the request succeeded.
    pub(super) is_answer: bool,
    pub(super) output_tokens: u64,
}

#[derive(Serialize)]
struct Wire<'a> {
    id: String,
    custom_id: Option<&'a str>,
    response: Option<ResponseWire<'a>>,
    error: Option<ErrorWire<'a>>,
}

#[derive(Serialize)]
struct ResponseWire<'a> {
    status_code: u16,
    request_id: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct ErrorWire<'a> {
    code: &'a str,
    message: &'a str,
    /// Line number in the input, given where the line has no `custom_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

/// The server's response to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Responded<'a> {
    pub(super) status: u16,
    pub(super) request_id: &'a str,
    pub(super) body: &'a RawValue,
    pub(super) output_tokens: u64,
}

impl ResultLine {
    /// The result of a request that the server has answered, with success or an error.
    pub(super) fn responded(custom_id: &str, responded: Responded<'_>) -> Self {
        let json = json(&Wire {
            id: id(),
            custom_id: Some(custom_id),
            response: Some(ResponseWire {
                status_code: responded.status,
                request_id: responded.request_id,
                body: responded.body,
            }),
            error: None,
        });
        Self {
            json,
            is_answer: (200..300).contains(&responded.status),
            output_tokens: responded.output_tokens,
        }
    }

    /// The result of a line that is not a request, or cannot be sent.
    pub(super) fn failed(line: (usize, Option<&str>), code: &'static str, message: &str) -> Self {
        let (number, custom_id) = line;
        let json = json(&Wire {
            id: id(),
            custom_id,
            response: None,
            error: Some(ErrorWire {
                code,
                message,
                line: custom_id.is_none().then_some(number),
            }),
        });
        Self {
            json,
            is_answer: false,
            output_tokens: 0,
        }
    }
}

fn id() -> String {
    format!("batch_req_{:032x}", fastrand::u128(..))
}

fn json(line: &Wire<'_>) -> String {
    serde_json::to_string(line).expect("all keys are strings")
}
