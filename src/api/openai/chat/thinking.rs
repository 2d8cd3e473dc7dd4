//! Converts the request fields for reasoning.

use super::request::ChatTemplateKwargs;
use crate::api::generate::output::ReasoningPlan;
use crate::api::http::error::ApiError;
use crate::api::http::object::JsonObject;
use crate::registry::{ServedModel, ThinkingSupport};
use crate::text::{ReasoningSyntax, ReasoningText};

/// Reasoning efforts and the maximum number of reasoning tokens; `None` means no limit. The effort
/// `none` turns reasoning off.
const EFFORTS: [(&str, Option<usize>); 5] = [
    ("minimal", Some(256)),
    ("low", Some(1024)),
    ("medium", Some(4096)),
    ("high", Some(16384)),
    ("xhigh", None),
];

/// The request fields for reasoning.
#[derive(Debug, Default)]
pub(crate) struct ThinkingFields {
    pub(crate) reasoning_effort: Option<String>,
    pub(crate) thinking_token_budget: Option<i64>,
    pub(crate) include_reasoning: Option<bool>,
    pub(crate) chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
}

/// Whether the prompt requests reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReasoningInstruction {
    /// The server adds no instruction; the client's system text may contain one.
    #[default]
    Omitted,
    /// The server adds the instruction to reason.
    Added,
}

/// The reasoning settings of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThinkingPlan {
    pub(crate) instruction: ReasoningInstruction,
    pub(crate) reasoning: ReasoningPlan,
    pub(crate) syntax: Option<ReasoningSyntax>,
}

/// A setting, and the field that contains it.
#[derive(Clone, Copy)]
enum FieldSetting {
    Off(&'static str),
    On(&'static str),
}

/// Checks the fields against what the model of this name supports. Without any field, a model that
/// reasons by default may do so, and a model that reasons on request may if the client's own system
/// text requests it.
///
/// # Errors
/// 400 that names the field: for unknown values, for fields that contradict each other, and for
/// settings that the model does not support.
pub(crate) fn convert_thinking(
    fields: ThinkingFields,
    model: &str,
    thinking: Option<ThinkingSupport>,
) -> Result<ThinkingPlan, ApiError> {
    let effort = effort(fields.reasoning_effort.as_deref())?;
    let switch = enable_thinking(fields.chat_template_kwargs)?;
    let budget = budget(fields.thinking_token_budget)?;
    let settings = [
        effort.map(|(setting, _)| setting),
        switch,
        budget.map(|_| BUDGET),
    ];
    let settings: Vec<FieldSetting> = settings.into_iter().flatten().collect();
    let off = settings.iter().find_map(|setting| match setting {
        FieldSetting::Off(field) => Some(*field),
        FieldSetting::On(_) => None,
    });
    let on = settings.iter().find_map(|setting| match setting {
        FieldSetting::On(field) => Some(*field),
        FieldSetting::Off(_) => None,
    });
    if let (Some(off), Some(on)) = (off, on) {
        let message = format!("'{on}' enables reasoning, but '{off}' disables it.");
        return Err(ApiError::contradiction(on, message));
    }
    let Some(thinking) = thinking else {
        return match on {
            None => Ok(ThinkingPlan {
                instruction: ReasoningInstruction::Omitted,
                reasoning: ReasoningPlan::Unknown,
                syntax: None,
            }),
            Some(field) => Err(ApiError::unsupported(
                field,
                format!(
                    "The model '{model}' does not support reasoning, so '{field}' is not \
                     supported. Leave it out, or use a model that supports it, such as \
                     medgemma-27b-text-it or medgemma-1.5-4b-it."
                ),
            )),
        };
    };
    let shown = match fields.include_reasoning.unwrap_or(true) {
        true => ReasoningText::Shown,
        false => ReasoningText::Hidden,
    };
    Ok(ThinkingPlan {
        instruction: on.map_or(ReasoningInstruction::Omitted, |_| {
            ReasoningInstruction::Added
        }),
        reasoning: match off {
            Some(_) => ReasoningPlan::Banned,
            None => ReasoningPlan::Allowed {
                budget: match budget {
                    Some(tokens) => Some(tokens),
                    None => effort.and_then(|(_, budget)| budget),
                },
            },
        },
        syntax: Some(ReasoningSyntax {
            markers: thinking.markers,
            shown,
        }),
    })
}

/// Returns whether a prompt that is only tokenized requests reasoning.
///
/// # Errors
/// The errors of [`convert_thinking`].
pub(crate) fn reasoning_instruction(
    chat_template_kwargs: Option<JsonObject<ChatTemplateKwargs>>,
    model: &ServedModel,
) -> Result<ReasoningInstruction, ApiError> {
    let fields = ThinkingFields {
        chat_template_kwargs,
        ..ThinkingFields::default()
    };
    Ok(convert_thinking(fields, &model.names[0], model.thinking)?.instruction)
}

const BUDGET: FieldSetting = FieldSetting::On("thinking_token_budget");

fn effort(effort: Option<&str>) -> Result<Option<(FieldSetting, Option<usize>)>, ApiError> {
    const FIELD: &str = "reasoning_effort";
    let Some(effort) = effort else {
        return Ok(None);
    };
    if effort == "none" {
        return Ok(Some((FieldSetting::Off(FIELD), None)));
    }
    match EFFORTS.iter().find(|(name, _)| *name == effort) {
        Some((_, budget)) => Ok(Some((FieldSetting::On(FIELD), *budget))),
        None => Err(ApiError::invalid_value(
            FIELD,
            "'reasoning_effort' must be none, minimal, low, medium, high or xhigh.",
        )),
    }
}

/// Returns the setting of `enable_thinking`.
///
/// # Errors
/// 400 for any other setting: clients may not choose template settings.
fn enable_thinking(
    kwargs: Option<JsonObject<ChatTemplateKwargs>>,
) -> Result<Option<FieldSetting>, ApiError> {
    const FIELD: &str = "chat_template_kwargs.enable_thinking";
    let Some(JsonObject(kwargs)) = kwargs else {
        return Ok(None);
    };
    if let Some(name) = kwargs.other {
        let param = format!("chat_template_kwargs.{name}");
        let message = format!(
            "The parameter '{param}' is not supported by this server; 'enable_thinking' is."
        );
        return Err(ApiError::unsupported(param, message));
    }
    Ok(kwargs.enable_thinking.map(|enabled| match enabled {
        true => FieldSetting::On(FIELD),
        false => FieldSetting::Off(FIELD),
    }))
}

fn budget(tokens: Option<i64>) -> Result<Option<usize>, ApiError> {
    match tokens {
        None | Some(-1) => Ok(None),
        Some(tokens) if tokens >= 1 => Ok(Some(usize::try_from(tokens).unwrap_or(usize::MAX))),
        Some(tokens) => Err(ApiError::invalid_value(
            "thinking_token_budget",
            format!(
                "'thinking_token_budget' must be at least 1, or -1 for no limit, got {tokens}. To \
                 switch thinking off, send 'reasoning_effort': \"none\"."
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::http::extract::parse;
    use crate::api::openai::chat::request::ChatRequest;
    use crate::core::{Thinking, TokenId};
    use crate::text::ReasoningMarkers;

    fn planned(mut body: Value) -> ThinkingPlan {
        body["messages"] = json!([]);
        let request: ChatRequest = parse(&body.to_string()).expect("valid");
        let fields = ThinkingFields {
            reasoning_effort: request.reasoning_effort,
            thinking_token_budget: request.thinking_token_budget,
            include_reasoning: request.include_reasoning,
            chat_template_kwargs: request.chat_template_kwargs,
        };
        let thinking = ThinkingSupport {
            when: Thinking::OnRequest,
            markers: ReasoningMarkers {
                open: TokenId(5),
                close: TokenId(6),
            },
        };
        convert_thinking(fields, "tiny", Some(thinking)).expect("valid")
    }

    #[test]
    fn efforts_and_budgets_bound_a_reasoning() {
        use ReasoningInstruction::{Added, Omitted};
        let allowed = |budget| ReasoningPlan::Allowed { budget };
        let switch = |enabled: bool| json!({"chat_template_kwargs": {"enable_thinking": enabled}});
        for (body, instruction, reasoning) in [
            (json!({}), Omitted, allowed(None)),
            (json!({"thinking_token_budget": -1}), Omitted, allowed(None)),
            (switch(true), Added, allowed(None)),
            (switch(false), Omitted, ReasoningPlan::Banned),
            (
                json!({"reasoning_effort": "none"}),
                Omitted,
                ReasoningPlan::Banned,
            ),
            (
                json!({"reasoning_effort": "minimal"}),
                Added,
                allowed(Some(256)),
            ),
            (
                json!({"reasoning_effort": "low"}),
                Added,
                allowed(Some(1024)),
            ),
            (
                json!({"reasoning_effort": "medium"}),
                Added,
                allowed(Some(4096)),
            ),
            (
                json!({"reasoning_effort": "high"}),
                Added,
                allowed(Some(16384)),
            ),
            (json!({"reasoning_effort": "xhigh"}), Added, allowed(None)),
            (json!({"thinking_token_budget": 7}), Added, allowed(Some(7))),
            (
                json!({"reasoning_effort": "high", "thinking_token_budget": 7}),
                Added,
                allowed(Some(7)),
            ),
        ] {
            let plan = planned(body.clone());
            assert_eq!(
                (plan.instruction, plan.reasoning),
                (instruction, reasoning),
                "{body}"
            );
        }
    }
}
