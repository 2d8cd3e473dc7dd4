//! A request that the engine works on, as its response needs it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::logprobs::LogprobWriter;
use super::options::{AnswerOptions, ReturnedInputs};
use super::prompt::PreparedPrompt;
use super::sampling::SamplingPlan;
use super::types::inputs::InputReport;
use crate::api::http::random::random_id;
use crate::api::http::state::Ticket;
use crate::core::{Constraint, GenerateRequest, SchedulingParams};
use crate::registry::ServedModel;

/// A request that the engine works on: what its response needs besides the generated tokens.
pub(crate) struct Answering {
    pub(crate) identity: Identity,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) options: AnswerOptions,
    /// How many answers each prompt gets, what ends them, and which log-probabilities are returned.
    pub(crate) plan: Arc<SamplingPlan>,
    /// The prompts, without their images once the engine has these.
    pub(crate) prompts: Vec<PreparedPrompt>,
}

/// Metadata that is the same in every chunk of a response.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    /// Unix time in seconds.
    pub(crate) created: u64,
    /// The model name that the client sent.
    pub(crate) model: String,
    /// Changes when the same seed may give other tokens: with the server's version or the model.
    pub(crate) system_fingerprint: String,
}

impl Identity {
    /// Creates the identity of a response that begins now. `prefix` depends on the endpoint
    /// (`chatcmpl-`).
    pub(crate) fn new(prefix: &str, name: String, model: &ServedModel) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let backend = format!("{version} {} {}", model.names[0], model.max_model_len);
        let hash = blake3::hash(backend.as_bytes()).to_hex();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id: random_id(prefix),
            created: now.map_or(0, |since| since.as_secs()),
            model: name,
            system_fingerprint: format!("fp_{}", &hash[..10]),
        }
    }
}

impl Answering {
    /// Returns how the tokens of the answers are written in log-probabilities.
    pub(crate) fn logprob_writer(&self) -> LogprobWriter<'_> {
        LogprobWriter {
            tokenizer: &self.model.tokenizer,
            names: self.options.token_names,
            text: self.plan.text,
            chosen_first: self.plan.names_tokens(),
        }
    }

    /// Returns what became of the request's files, if it asks for that.
    pub(crate) fn inputs(&self) -> Option<Vec<InputReport<'_>>> {
        let inputs = self.prompts.iter().flat_map(|prompt| &prompt.inputs);
        (self.options.inputs == ReturnedInputs::Return)
            .then(|| inputs.map(InputReport::from).collect())
    }

    /// Returns the number of images that the model sees, crops included.
    pub(crate) fn num_images(&self) -> usize {
        self.prompts.iter().map(PreparedPrompt::num_images).sum()
    }

    /// Returns the engine's requests: each prompt once for each of its answers. The images go to
    /// them, and the memory charged for the images to the ticket.
    pub(super) fn requests(
        &mut self,
        constraint: Option<Arc<dyn Constraint>>,
        scheduling: SchedulingParams,
        ticket: &mut Ticket,
    ) -> Vec<GenerateRequest> {
        let plan = &self.plan;
        let mut requests = Vec::with_capacity(self.prompts.len() * plan.num_choices);
        for prompt in &mut self.prompts {
            ticket.hold(std::mem::take(&mut prompt.held));
            let images = std::mem::take(&mut prompt.images);
            let max_model_len = self.model.max_model_len;
            let room = max_model_len.saturating_sub(prompt.ids.len()).max(1);
            requests.extend((0..plan.num_choices).map(|choice| GenerateRequest {
                prompt: prompt.ids.clone(),
                images: images.clone(),
                sampling: plan.params(choice, room),
                constraint: constraint.clone(),
                prompt_logprobs: plan.prompt_logprobs.max(plan.echoed_logprobs),
                scheduling,
            }));
        }
        requests
    }
}
