//! The steps that chats and text completions share, from a request's arrival to its generation.

pub(crate) mod answer;
pub(crate) mod constraint;
pub(crate) mod generation;
pub(crate) mod identity;
pub(crate) mod images;
pub(crate) mod labels;
pub(crate) mod logprobs;
pub(crate) mod model_name;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod prompt;
pub(crate) mod refused;
pub(crate) mod request_log;
pub(crate) mod sampling;
pub(crate) mod scheduling;
pub(crate) mod size;
pub(crate) mod types;

use std::future::Future;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use self::answer::AnswerFormat;
use self::constraint::constraint;
use self::generation::{Generation, Task};
use self::identity::Identity;
use self::labels::check_labels;
use self::model_name::check_model;
use self::options::{AnswerOptions, Delivery, TokenIds, delivery};
use self::output::OutputPlan;
use self::prompt::{EchoedPrompt, PreparedPrompt};
use self::request_log::RequestLog;
use self::sampling::SamplingPlan;
use self::scheduling::RequestedScheduling;
use self::types::label_fields::LabelFields;
use self::types::sampling_fields::{SamplingFields, StreamFields};
use self::types::scheduling_fields::SchedulingFields;
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::extract::{JsonBody, json_body};
use crate::api::http::keys::Caller;
use crate::api::http::limits::{Need, Permit};
use crate::api::http::request_memory::Charge;
use crate::api::http::state::{AppState, Ticket};
use crate::core::{Constraint, SchedulingParams, TokenId};
use crate::error::Error;
use crate::registry::ServedModel;
use crate::text::AnswerSyntax;

/// The endpoint-specific steps.
pub(crate) trait Endpoint {
    /// Prefix of response ids.
    const ID_PREFIX: &'static str;

    /// The checked content to continue.
    type Content: Send + 'static;

    /// Endpoint-specific request data that the response needs.
    type Echo: Send + 'static;

    /// Deserializes and checks a body.
    ///
    /// # Errors
    /// 400 for an invalid request, 404 for another model.
    fn read(body: &str, model: &ServedModel) -> Result<Call<Self::Content, Self::Echo>, ApiError>;

    /// Builds the tokenized prompts, with their images.
    ///
    /// # Errors
    /// 400 for a prompt that does not fit the model and for invalid images.
    fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        content: Self::Content,
    ) -> impl Future<Output = Result<Vec<PreparedPrompt>, ApiError>> + Send;

    /// Returns the formatter of the response.
    fn format(answering: Answering, echo: Self::Echo) -> impl AnswerFormat;
}

/// A checked request. `C` is the content to continue, `E` is endpoint-specific data for the
/// response.
pub(crate) struct Call<C, E = ()> {
    pub(crate) model_name: String,
    pub(crate) content: C,
    pub(crate) echo: E,
    pub(crate) plan: SamplingPlan,
    pub(crate) output: OutputPlan,
    pub(crate) syntax: AnswerSyntax,
    pub(crate) scheduling: RequestedScheduling,
    pub(crate) options: AnswerOptions,
}

/// What a response needs besides the generated tokens.
pub(crate) struct Answering {
    pub(crate) identity: Identity,
    pub(crate) model: Arc<ServedModel>,
    pub(crate) options: AnswerOptions,
    /// Number of answers to each prompt.
    pub(crate) num_choices: usize,
    /// Token ids of each prompt.
    pub(crate) prompts: Vec<Vec<TokenId>>,
    /// The text that the answers to each prompt begin with, if requested.
    pub(crate) echoes: Vec<Option<EchoedPrompt>>,
    /// Number of alternatives for each prompt token, if `prompt_logprobs` was requested.
    pub(crate) prompt_logprobs: Option<usize>,
    /// Number of alternatives for each echoed prompt token, if the prompt's log-probabilities are
    /// returned together with the answer's.
    pub(crate) echoed_logprobs: Option<usize>,
}

/// Values of shared options that each endpoint reads from its own fields.
pub(crate) struct OwnFields {
    pub(crate) model: Option<String>,
    /// Number of alternatives for each token; `None` requests no log-probabilities.
    pub(crate) top_logprobs: Option<usize>,
    pub(crate) output: OutputPlan,
    /// Which parts of the output are parsed as reasoning or tool calls.
    pub(crate) syntax: AnswerSyntax,
}

/// The request fields that all generating endpoints share.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedFields {
    pub(crate) sampling: SamplingFields,
    pub(crate) scheduling: SchedulingFields,
    pub(crate) stream: StreamFields,
    pub(crate) labels: LabelFields,
}

impl SharedFields {
    /// Returns the names of the fields, to look for in a body.
    pub(crate) fn names() -> [&'static [&'static str]; 4] {
        [
            names_of::<SamplingFields>(),
            names_of::<SchedulingFields>(),
            names_of::<StreamFields>(),
            names_of::<LabelFields>(),
        ]
    }

    /// Reads the fields of an API that uses their standard names.
    ///
    /// # Errors
    /// 400 for values of the wrong type.
    pub(crate) fn read(body: &BodyFields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            sampling: body.read()?,
            scheduling: body.read()?,
            stream: body.read()?,
            labels: body.read()?,
        })
    }
}

/// Handles one request.
///
/// # Errors
/// 400 for an invalid request, 404 for another model, 429 and 503 for the engine's state, 504 for
/// an exceeded deadline.
pub(crate) async fn generate<E: Endpoint>(
    app: AppState,
    request: Request,
) -> Result<Response, ApiError> {
    // If this is dropped without a result, the client has disconnected.
    let mut log = RequestLog::begin(Arc::clone(app.metrics()));
    match prepare::<E>(&app, request, log.arrived()).await {
        Ok(prepared) => prepared.answer::<E>(log).await,
        Err(error) => {
            log.refused();
            Err(error)
        }
    }
}

/// A request that is ready for the engine.
struct Prepared<T> {
    model: Arc<ServedModel>,
    echo: T,
    model_name: String,
    prompts: Vec<PreparedPrompt>,
    plan: SamplingPlan,
    constraint: Option<Arc<dyn Constraint>>,
    syntax: AnswerSyntax,
    scheduling: SchedulingParams,
    options: AnswerOptions,
    ticket: Ticket,
    permit: Permit,
    /// Memory charged for the body, until the engine has the request.
    held: Arc<Charge>,
}

async fn prepare<E: Endpoint>(
    app: &AppState,
    request: Request,
    arrived: Instant,
) -> Result<Prepared<E::Echo>, ApiError> {
    let caller = request.extensions().get::<Caller>().copied();
    let caller = caller.expect("a request that passed the key check has a caller");
    let JsonBody { text: body, held } = json_body(app, request).await?;
    let (model, ticket) = app.admit()?;

    let call = {
        let num_bytes = body.len();
        let model = Arc::clone(&model);
        // The work continues after its client has disconnected, so it must keep its memory charged.
        let held = Arc::clone(&held);
        let work = move || {
            let call = E::read(&body, &model);
            drop(held);
            call
        };
        app.workers().run_sized(num_bytes, work).await??
    };
    Span::current().record("model", call.model_name.as_str());

    let limit = app.request_timeout();
    let scheduling = call
        .scheduling
        .scheduling(&caller, arrived.into_std(), limit)?;
    let prepared = try_join(
        E::prompts(app, &model, call.content),
        constraint(&model, call.output, scheduling.cache_salt),
    );
    let (prompts, constraint) = match scheduling.deadline {
        None => prepared.await?,
        Some(deadline) => match timeout_at(deadline.into(), prepared).await {
            Ok(prepared) => prepared?,
            Err(_) => {
                let after_ms = arrived.elapsed().as_millis() as u64;
                return Err(Error::DeadlineExceeded { after_ms }.into());
            }
        },
    };
    let need = Need {
        num_answers: prompts.len() * call.plan.num_choices,
        prompt_tokens: prompts.iter().map(|prompt| prompt.ids.len()).sum(),
        max_tokens: call.plan.asked_max_tokens(),
    };
    let permit = app.keys().quotas().admit(caller.tenant, need)?;
    Ok(Prepared {
        permit,
        model,
        echo: call.echo,
        model_name: call.model_name,
        prompts,
        plan: call.plan,
        constraint,
        syntax: call.syntax,
        scheduling,
        options: call.options,
        ticket,
        held,
    })
}

impl<T> Prepared<T> {
    async fn answer<E: Endpoint<Echo = T>>(
        mut self,
        log: RequestLog,
    ) -> Result<Response, ApiError> {
        let num_choices = self.plan.num_choices;
        let (prompt_logprobs, echoed_logprobs) =
            (self.plan.prompt_logprobs, self.plan.echoed_logprobs);
        let limits = self.permit.headers();
        let images = self
            .prompts
            .iter_mut()
            .filter_map(|prompt| prompt.held.take());
        self.ticket.hold(images);
        let task = Task {
            prompts: &self.prompts,
            plan: self.plan,
            constraint: self.constraint,
            syntax: self.syntax,
            scheduling: self.scheduling,
            permit: self.permit,
        };
        let generation = Generation::start(&self.model, task, log, self.ticket)?;
        drop(self.held);
        let prompts = self.prompts.into_iter();
        let (prompts, echoes) = prompts.map(|prompt| (prompt.ids, prompt.echo)).unzip();
        let answering = Answering {
            identity: Identity::new(E::ID_PREFIX, self.model_name, &self.model),
            model: self.model,
            options: self.options,
            num_choices,
            prompts,
            echoes,
            prompt_logprobs,
            echoed_logprobs,
        };
        let format = E::format(answering, self.echo);
        let mut response = answer::respond(generation, format, self.options.delivery).await?;
        response.headers_mut().extend(limits);
        Ok(response)
    }
}

impl Call<()> {
    /// Converts and checks the fields that all endpoints share.
    ///
    /// # Errors
    /// 400 for invalid fields, 404 for another model.
    pub(crate) fn new(
        shared: SharedFields,
        own: OwnFields,
        model: &ServedModel,
    ) -> Result<Self, ApiError> {
        let SharedFields {
            sampling,
            scheduling,
            stream,
            labels,
        } = shared;
        let model_name = check_model(own.model, model)?;
        let token_ids = TokenIds::from_field(sampling.return_token_ids);
        if own.output.grammar.is_some() {
            let never_ends = [
                ("ignore_eos", sampling.ignore_eos == Some(true)),
                (
                    "min_tokens",
                    sampling.min_tokens.is_some_and(|least| least > 0),
                ),
            ];
            if let Some((name, _)) = never_ends.iter().find(|(_, is_set)| *is_set) {
                let message = format!(
                    "'{name}' contradicts a format that says where the answer ends: leave it out."
                );
                return Err(ApiError::contradiction(*name, message));
            }
        }
        let plan = SamplingPlan::new(sampling, own.top_logprobs, model)?;
        let delivery = delivery(stream)?;
        if plan.prompt_logprobs.is_some() && delivery != Delivery::Whole {
            return Err(ApiError::contradiction(
                "prompt_logprobs",
                "'prompt_logprobs' come with the whole answer only: leave 'stream' out.",
            ));
        }
        Ok(Self {
            model_name,
            content: (),
            echo: (),
            plan,
            output: own.output,
            syntax: own.syntax,
            scheduling: RequestedScheduling::new(scheduling)?,
            options: AnswerOptions {
                delivery,
                service_tier: check_labels(labels)?,
                token_ids,
            },
        })
    }

    /// Adds the content.
    pub(crate) fn with<C>(self, content: C) -> Call<C> {
        Call {
            model_name: self.model_name,
            content,
            echo: (),
            plan: self.plan,
            output: self.output,
            syntax: self.syntax,
            scheduling: self.scheduling,
            options: self.options,
        }
    }
}

impl<C> Call<C> {
    /// Converts the content for another endpoint, and adds `echo` for its response.
    pub(crate) fn through<D, E>(self, wrap: impl FnOnce(C) -> D, echo: E) -> Call<D, E> {
        Call {
            model_name: self.model_name,
            content: wrap(self.content),
            echo,
            plan: self.plan,
            output: self.output,
            syntax: self.syntax,
            scheduling: self.scheduling,
            options: self.options,
        }
    }
}
