//! The steps that chats and text completions share, from a request's arrival to its generation.

pub(crate) mod answer;
pub(crate) mod answering;
pub(crate) mod constraint;
pub(crate) mod field_names;
pub(crate) mod generation;
pub(crate) mod images;
pub(crate) mod logprobs;
pub(crate) mod media;
pub(crate) mod metadata;
pub(crate) mod model_name;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod prompt;
pub(crate) mod prompt_limit;
pub(crate) mod refused;
pub(crate) mod request_log;
pub(crate) mod sampling;
pub(crate) mod scheduling;
pub(crate) mod truncation;
pub(crate) mod types;

use std::future::Future;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use self::answer::{AnswerFormat, respond};
use self::answering::{Answering, Identity};
use self::constraint::constraint;
use self::generation::Generation;
use self::images::warnings;
use self::metadata::check_labels;
use self::model_name::check_model;
use self::options::{AnswerOptions, Delivery, ReturnedInputs, TokenIds, TokenNames, delivery};
use self::output::OutputPlan;
use self::prompt::PreparedPrompt;
use self::request_log::RequestLog;
use self::sampling::SamplingPlan;
use self::scheduling::RequestedScheduling;
use self::types::label_fields::LabelFields;
use self::types::media_fields::MediaFields;
use self::types::sampling_fields::{SamplingFields, StreamFields};
use self::types::scheduling_fields::SchedulingFields;
use crate::api::http::body_fields::{BodyFields, names_of};
use crate::api::http::error::ApiError;
use crate::api::http::extract::{JsonBody, json_body};
use crate::api::http::keys::Caller;
use crate::api::http::limits::Need;
use crate::api::http::state::AppState;
use crate::error::Error;
use crate::image::Warning;
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
    pub(crate) media: MediaFields,
}

impl SharedFields {
    /// Returns the names of the fields, to look for in a body.
    pub(crate) fn names() -> [&'static [&'static str]; 5] {
        [
            names_of::<SamplingFields>(),
            names_of::<SchedulingFields>(),
            names_of::<StreamFields>(),
            names_of::<LabelFields>(),
            names_of::<MediaFields>(),
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
            media: body.read()?,
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
    let log = RequestLog::begin(Arc::clone(app.metrics()));
    let arrived = log.arrived();
    let mut log = Some(log);
    let response = answer::<E>(&app, request, arrived, &mut log).await;
    // Once a generation has begun, the log is its own.
    if let (Some(log), Err(_)) = (&mut log, &response) {
        log.refused();
    }
    response
}

/// Reads, checks and prepares a request, hands it to the engine together with its log, and returns
/// the response.
async fn answer<E: Endpoint>(
    app: &AppState,
    request: Request,
    arrived: Instant,
    log: &mut Option<RequestLog>,
) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().copied();
    let caller = caller.expect("a request that passed the key check has a caller");
    let body = json_body(app, request).await?;
    // The memory for the body stays charged until the engine has the request.
    let held = Arc::clone(&body.held);
    let (model, mut ticket) = app.admit()?;
    let call = read::<E>(app, body, &model).await?;
    Span::current().record("model", call.model_name.as_str());

    let limit = app.request_timeout();
    let scheduling = call
        .scheduling
        .scheduling(&caller, arrived.into_std(), limit)?;
    let prepared = try_join(
        E::prompts(app, &model, call.content),
        constraint(
            &model,
            call.output,
            &call.plan.limits,
            scheduling.cache_salt,
        ),
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
    let limits = permit.headers();
    let warning = warning(&prompts);
    let mut answering = Answering {
        identity: Identity::new(E::ID_PREFIX, call.model_name, &model),
        model,
        options: call.options,
        plan: Arc::new(call.plan),
        prompts,
    };
    let requests = answering.requests(constraint, scheduling, &mut ticket);
    let syntax = &call.syntax;
    let generation = Generation::start(&answering, requests, syntax, permit, ticket, log)?;
    drop(held);
    let format = E::format(answering, call.echo);
    let mut response = respond(generation, format, call.options.delivery).await?;
    response.headers_mut().extend(limits);
    response.headers_mut().extend(warning);
    Ok(response)
}

/// Returns the header that names what a reader of the answer should know about the files.
fn warning(prompts: &[PreparedPrompt]) -> Option<(HeaderName, HeaderValue)> {
    let codes = warnings(prompts.iter().flat_map(|prompt| &prompt.inputs));
    let codes: Vec<&str> = codes.into_iter().map(Warning::as_str).collect();
    let value = HeaderValue::from_str(&codes.join(",")).ok()?;
    (!codes.is_empty()).then_some((HeaderName::from_static("x-medgemma-warning"), value))
}

/// Deserializes and checks a body off the async threads.
///
/// # Errors
/// The errors of [`Endpoint::read`].
pub(crate) async fn read<E: Endpoint>(
    app: &AppState,
    body: JsonBody,
    model: &Arc<ServedModel>,
) -> Result<Call<E::Content, E::Echo>, ApiError> {
    let JsonBody { text: body, held } = body;
    let num_bytes = body.len();
    let model = Arc::clone(model);
    // The work continues after its client has disconnected, so it must keep its memory charged.
    let work = move || {
        let call = E::read(&body, &model);
        drop(held);
        call
    };
    app.blocking_pool().run_sized(num_bytes, work).await?
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
            media,
        } = shared;
        let model_name = check_model(own.model, model)?;
        let token_ids = TokenIds::from_field(sampling.return_token_ids);
        let token_names = TokenNames::from_field(sampling.return_tokens_as_token_ids);
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
                token_names,
                inputs: ReturnedInputs::from_field(media.return_inputs),
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
