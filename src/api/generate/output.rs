//! The output format of an answer, and whether it may contain reasoning.

use serde::de::IgnoredAny;

use super::types::json_text::JsonText;
use super::types::output_format::{NamedSchema, ResponseFormat, StructuredOutputs};
use super::types::presence::Presence;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::text::GrammarSource;

/// A checked output format. Its grammar is not compiled yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputPlan {
    /// The grammar that constrains the answer after its reasoning.
    pub(crate) grammar: Option<AskedGrammar>,
    /// Whether the answer may begin with reasoning.
    pub(crate) reasoning: ReasoningPlan,
}

/// A grammar and the field that requests it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedGrammar {
    /// The field, for errors of the compilation.
    pub(crate) param: String,
    pub(crate) source: GrammarSource,
}

/// Whether an answer may begin with reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReasoningPlan {
    /// The model does not reason: its markers are plain text.
    #[default]
    Unknown,
    /// The model can reason, but must not in this answer.
    Banned,
    /// The model may reason. The reasoning is closed after `budget` tokens.
    Allowed {
        /// `None` means no limit.
        budget: Option<usize>,
    },
}

/// The fields that vLLM had before `structured_outputs`, and that older clients still send.
#[derive(Debug)]
pub(crate) struct GuidedFields {
    pub(crate) json: Option<JsonText>,
    pub(crate) regex: Option<String>,
    pub(crate) choice: Option<Vec<String>>,
    pub(crate) grammar: Option<String>,
}

/// Where fields of [`StructuredOutputs`] stand in a request.
const STRUCTURED: &str = "structured_outputs.";
const GUIDED: &str = "guided_";

/// Returns the grammar that constrains the answer's text.
///
/// # Errors
/// 400 for unknown or unsupported formats, and for two at a time.
pub(crate) fn asked_grammar(
    format: Option<JsonObject<ResponseFormat>>,
    structured: Option<JsonObject<StructuredOutputs>>,
    guided: GuidedFields,
) -> Result<Option<AskedGrammar>, ApiError> {
    let format = match format {
        Some(JsonObject(format)) => of_format(format)?,
        None => None,
    };
    let structured = match structured {
        Some(JsonObject(structured)) => of_structured(structured, STRUCTURED)?,
        None => None,
    };
    let GuidedFields {
        json,
        regex,
        choice,
        grammar,
    } = guided;
    let guided = StructuredOutputs {
        json,
        regex,
        choice,
        grammar,
        ..StructuredOutputs::default()
    };
    let guided = of_structured(guided, GUIDED)?;
    let mut asked = [format, structured, guided].into_iter().flatten();
    match (asked.next(), asked.next()) {
        (Some(first), Some(second)) => {
            let message = format!("Send either '{}' or '{}'.", first.param, second.param);
            Err(ApiError::contradiction(second.param, message))
        }
        (first, _) => Ok(first),
    }
}

fn of_format(format: ResponseFormat) -> Result<Option<AskedGrammar>, ApiError> {
    let asked = |param: &str, source| {
        Ok(Some(AskedGrammar {
            param: param.to_owned(),
            source,
        }))
    };
    if format.schema.is_some() && format.kind != "json_object" {
        return Err(ApiError::contradiction(
            "response_format.schema",
            "'response_format.schema' needs \"type\": \"json_object\". With \"json_schema\" the schema \
             is 'response_format.json_schema.schema'.",
        ));
    }
    match (format.kind.as_str(), format.json_schema) {
        ("json_schema", Some(JsonObject(named))) => {
            check_name(&named)?;
            match named.schema {
                Some(JsonText(schema)) => asked(
                    "response_format.json_schema.schema",
                    GrammarSource::JsonSchema(schema),
                ),
                None => asked("response_format.json_schema", GrammarSource::JsonObject),
            }
        }
        ("json_schema", None) => Err(ApiError::missing("response_format.json_schema".to_owned())),
        ("text" | "json_object", Some(_)) => Err(ApiError::contradiction(
            "response_format.json_schema",
            "'response_format.json_schema' needs \"type\": \"json_schema\".",
        )),
        ("text", None) => Ok(None),
        ("json_object", None) => match format.schema {
            Some(JsonText(schema)) => {
                asked("response_format.schema", GrammarSource::JsonSchema(schema))
            }
            None => asked("response_format", GrammarSource::JsonObject),
        },
        (kind, _) => Err(ApiError::invalid_value(
            "response_format.type",
            format!(
                "A response format's type must be text, json_object or json_schema, got '{}'.",
                kind.chars().take(32).collect::<String>()
            ),
        )),
    }
}

fn check_name(named: &NamedSchema) -> Result<(), ApiError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=64).contains(&named.name.len()) && named.name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        "response_format.json_schema.name",
        "A schema's name must have 1–64 letters, digits, underscores and dashes.",
    ))
}

/// Converts the fields, whose names in the request begin with `prefix`.
fn of_structured(
    structured: StructuredOutputs,
    prefix: &str,
) -> Result<Option<AskedGrammar>, ApiError> {
    let refused = [
        ("structural_tag", structured.structural_tag),
        ("whitespace_pattern", structured.whitespace_pattern),
        ("disable_any_whitespace", structured.disable_any_whitespace),
        (
            "disable_additional_properties",
            structured.disable_additional_properties,
        ),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, set)| *set == Presence::Set) {
        let param = format!("{prefix}{name}");
        let message = format!("The parameter '{param}' is not supported by this server.");
        return Err(ApiError::unsupported(param, message));
    }
    let json = structured.json.map(|JsonText(schema)| {
        // Clients such as Pydantic's `model_dump_json` send the schema as a string.
        let Ok(schema) = serde_json::from_str::<String>(&schema) else {
            return Ok(schema);
        };
        match serde_json::from_str::<IgnoredAny>(&schema) {
            Ok(_) => Ok(schema),
            Err(error) => Err(ApiError::invalid_value(
                format!("{prefix}json"),
                format!("'{prefix}json' is a string that is not JSON: {error}."),
            )),
        }
    });
    let json = json.transpose()?.map(GrammarSource::JsonSchema);
    let object = structured.json_object.unwrap_or(false);
    let sources = [
        ("json", json),
        ("regex", structured.regex.map(GrammarSource::Regex)),
        ("choice", structured.choice.map(GrammarSource::Choice)),
        ("grammar", structured.grammar.map(GrammarSource::of_grammar)),
        ("json_object", object.then_some(GrammarSource::JsonObject)),
    ];
    let mut asked = sources
        .into_iter()
        .filter_map(|(name, source)| source.map(|source| (name, source)));
    let Some((name, source)) = asked.next() else {
        return Ok(None);
    };
    if let Some((second, _)) = asked.next() {
        return Err(ApiError::contradiction(
            format!("{prefix}{second}"),
            format!("Send either '{prefix}{name}' or '{prefix}{second}'."),
        ));
    }
    Ok(Some(AskedGrammar {
        param: format!("{prefix}{name}"),
        source,
    }))
}
