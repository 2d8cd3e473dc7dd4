//! `POST /v1/chat/completions/render`: what the prompt of a chat is, and how it would be continued,
//! in vLLM's format. Nothing is generated.
//!
//! Routers send a request to the server whose prefix cache has its tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::Span;

use super::operation::BODY;
use super::{Chats, ID_PREFIX};
use crate::api::docs::openapi::{Access, Answer, BODY_ERRORS, Method, Operation, written};
use crate::api::generate::options::Delivery;
use crate::api::generate::prompt::PreparedPrompt;
use crate::api::generate::sampling::SamplingPlan;
use crate::api::generate::{Endpoint, read};
use crate::api::http::error::ApiError;
use crate::api::http::extract::json_body;
use crate::api::http::json_response::{json_response, to_json};
use crate::api::http::random::random_id;
use crate::api::http::state::AppState;
use crate::core::TokenId;
use crate::registry::ServedModel;

/// The operation.
pub(crate) const OPERATION: Operation = Operation {
    method: Method::Post,
    paths: &["/v1/chat/completions/render", "/chat/completions/render"],
    id: "renderChatCompletion",
    summary: "The prompt of a conversation, without an answer.",
    body: Some(BODY),
    answer: Answer::Json(written::<RenderedChat>),
    errors: BODY_ERRORS,
    access: Access::Key,
};

/// A chat as the engine would get it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RenderedChat {
    /// An id that the answer might have had.
    pub(crate) request_id: String,
    /// Name of the model.
    pub(crate) model: String,
    /// The prompt's tokens, with images expanded.
    pub(crate) token_ids: Vec<TokenId>,
    /// The images' hashes and places; null without images.
    pub(crate) features: Option<ImageFeatures>,
    /// How tokens would be drawn.
    pub(crate) sampling_params: RenderedSampling,
    /// Whether the answer would be streamed.
    pub(crate) stream: bool,
    /// The request's own part of the prefix cache.
    pub(crate) cache_salt: Option<String>,
    /// The request's priority.
    pub(crate) priority: i32,
}

/// Where a prompt's images are, by kind of medium.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ImageFeatures {
    /// Hash of each image as the vision encoder gets it.
    pub(crate) mm_hashes: BTreeMap<&'static str, Vec<String>>,
    /// Where each image's tokens are in the prompt.
    pub(crate) mm_placeholders: BTreeMap<&'static str, Vec<Placeholder>>,
}

/// A run of image tokens.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Placeholder {
    /// Index of the first token.
    pub(crate) offset: usize,
    /// Number of tokens.
    pub(crate) length: usize,
}

/// Sampling parameters, with the server's defaults filled in. A seed that the server would draw is
/// not among them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RenderedSampling {
    pub(crate) n: usize,
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    /// 0 means off.
    pub(crate) top_k: u32,
    pub(crate) min_p: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) logit_bias: Option<BTreeMap<String, f32>>,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<TokenId>,
    pub(crate) ignore_eos: bool,
    /// Most tokens of the answer: what the request asks for, or what fits.
    pub(crate) max_tokens: usize,
    pub(crate) min_tokens: usize,
    /// Number of alternatives for each token.
    pub(crate) logprobs: Option<usize>,
    /// The same for the prompt's tokens.
    pub(crate) prompt_logprobs: Option<usize>,
}

/// Renders a chat.
///
/// # Errors
/// 400 for an invalid request, 404 for another model, 503 while the model loads.
pub(crate) async fn render_chat(
    State(app): State<AppState>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = json_body(&app, request).await?;
    let model = Arc::clone(app.model()?);
    let call = read::<Chats>(&app, body, &model).await?;
    Span::current().record("model", call.model_name.as_str());
    let (cache_salt, priority) = call.scheduling.for_the_cache();
    let mut prompts = Chats::prompts(&app, &model, call.content).await?;
    let prompt = prompts.pop().expect("a chat is one prompt");
    Ok(json_response(to_json(&RenderedChat {
        request_id: random_id(ID_PREFIX),
        model: call.model_name,
        features: features(&prompt),
        sampling_params: sampling(&call.plan, prompt.ids.len(), &model),
        token_ids: prompt.ids,
        stream: call.options.delivery != Delivery::Whole,
        cache_salt,
        priority,
    })))
}

fn features(prompt: &PreparedPrompt) -> Option<ImageFeatures> {
    let hex = |hash: &[u8; 32]| blake3::Hash::from_bytes(*hash).to_hex().to_string();
    let hashes = prompt.images.iter().map(|image| hex(&image.pixels.hash.0));
    let places = prompt.images.iter().map(|image| Placeholder {
        offset: image.start,
        length: image.len,
    });
    (!prompt.images.is_empty()).then(|| ImageFeatures {
        mm_hashes: BTreeMap::from([("image", hashes.collect())]),
        mm_placeholders: BTreeMap::from([("image", places.collect())]),
    })
}

fn sampling(plan: &SamplingPlan, prompt_len: usize, model: &ServedModel) -> RenderedSampling {
    let params = plan.params(0, model.max_model_len - prompt_len);
    let biases = params.logit_bias.iter();
    let biases: BTreeMap<_, _> = biases.map(|(id, bias)| (id.0.to_string(), *bias)).collect();
    let ends = |id: &TokenId| params.stop_token_ids.contains(id);
    RenderedSampling {
        n: plan.num_choices,
        temperature: params.temperature,
        top_p: params.top_p,
        top_k: params.top_k.map_or(0, |top_k| top_k.get()),
        min_p: params.min_p,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        repetition_penalty: params.repetition_penalty,
        logit_bias: Some(biases).filter(|biases| !biases.is_empty()),
        stop: plan.stop.clone(),
        stop_token_ids: plan.client_stop_ids.clone(),
        ignore_eos: !model.eos_token_ids.iter().any(ends),
        max_tokens: params.max_tokens,
        min_tokens: params.min_tokens,
        logprobs: params.top_logprobs,
        prompt_logprobs: plan.prompt_logprobs,
    }
}
