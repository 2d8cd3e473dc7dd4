//! The way that chats and text completions share, from a request's arrival to its generation.

use std::future::Future;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::answer::{self, AnswerFormat};
use super::auth::Caller;
use super::constraint::constraint;
use super::convert::{
    AnswerOptions, Delivery, EchoedPrompt, OutputPlan, PreparedPrompt, RequestedScheduling,
    SamplingPlan, TokenIds, check_labels, check_model, delivery,
};
use super::error::ApiError;
use super::extract::{JsonBody, json_body, parse};
use super::generation::{Generation, Task};
use super::identity::Identity;
use super::limits::{Need, Permit};
use super::request_log::RequestLog;
use super::request_memory::Charge;
use super::state::{AppState, Ticket};
use super::types::{LabelFields, SamplingFields, SchedulingFields, StreamFields};
use crate::core::{Constraint, SchedulingParams, TokenId};
use crate::error::Error;
use crate::registry::ServedModel;
use crate::text::AnswerSyntax;

/// What one endpoint does its own way.
pub(super) trait Endpoint {
    /// Of its answers' ids.
    const ID_PREFIX: &'static str;

    /// What is to be continued, checked.
    type Content: Send + 'static;

    /// What of the request its answer repeats or depends on, besides what all answers have.
    type Echo: Send + 'static;

    /// Reads and checks a body.
    ///
    /// # Errors
    /// 400 for what the request says, 404 for another model.
    fn read(body: &str, model: &ServedModel) -> Result<Call<Self::Content, Self::Echo>, ApiError>;

    /// The prompts in tokens, with their images.
    ///
    /// # Errors
    /// 400 for what does not fit the model and for images that cannot be taken.
    fn prompts(
        app: &AppState,
        model: &Arc<ServedModel>,
        content: Self::Content,
    ) -> impl Future<Output = Result<Vec<PreparedPrompt>, ApiError>> + Send;

    /// The JSON of an answer.
    fn format(answering: Answering, echo: Self::Echo) -> impl AnswerFormat;
}

/// A checked request to continue some `C`, whose answer also tells some `E`.
pub(super) struct Call<C, E = ()> {
    pub(super) model_name: String,
    pub(super) content: C,
    pub(super) echo: E,
    pub(super) plan: SamplingPlan,
    pub(super) output: OutputPlan,
    pub(super) syntax: AnswerSyntax,
    pub(super) scheduling: RequestedScheduling,
    pub(super) options: AnswerOptions,
}

/// What an answer's JSON speaks of besides its tokens.
pub(super) struct Answering {
    pub(super) identity: Identity,
    pub(super) model: Arc<ServedModel>,
    pub(super) options: AnswerOptions,
    /// Answers to each prompt.
    pub(super) num_choices: usize,
    /// Each prompt's tokens.
    pub(super) prompts: Vec<Vec<TokenId>>,
    /// What the answers to each prompt begin with.
    pub(super) echoes: Vec<Option<EchoedPrompt>>,
    /// Alternatives for each token of the prompt, where its log-probabilities are asked for.
    pub(super) prompt_logprobs: Option<usize>,
    /// The same, where they stand with the answer's own.
    pub(super) echoed_logprobs: Option<usize>,
}

/// What an endpoint's own fields say of those that both have.
pub(super) struct OwnFields {
    pub(super) model: Option<String>,
    /// Alternatives for each token; `None` asks for no log-probabilities.
    pub(super) top_logprobs: Option<usize>,
    pub(super) output: OutputPlan,
    /// What is told apart in each answer.
    pub(super) syntax: AnswerSyntax,
}

/// The fields that every way to ask for an answer has.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedFields {
    pub(super) sampling: SamplingFields,
    pub(super) scheduling: SchedulingFields,
    pub(super) stream: StreamFields,
    pub(super) labels: LabelFields,
}

impl SharedFields {
    /// Reads them where they go by their own names.
    ///
    /// # Errors
    /// 400 for values of the wrong type.
    pub(super) fn parse(body: &str) -> Result<Self, ApiError> {
        Ok(Self {
            sampling: parse(body)?,
            scheduling: parse(body)?,
            stream: parse(body)?,
            labels: parse(body)?,
        })
    }
}

/// Answers one request.
///
/// # Errors
/// 400 for what the request says, 404 for another model, 429 and 503 for the engine's state, 504
/// when its time is up.
pub(super) async fn generate<E: Endpoint>(
    app: AppState,
    request: Request,
) -> Result<Response, ApiError> {
    // Dropped on the way, the client has left.
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
    /// Of the body, until the engine has the request.
    held: Arc<Charge>,
}

async fn prepare<E: Endpoint>(
    app: &AppState,
    request: Request,
    arrived: Instant,
) -> Result<Prepared<E::Echo>, ApiError> {
    let caller = request.extensions().get::<Caller>().copied();
    let caller = caller.expect("whoever passes the keys is known");
    let JsonBody { text: body, held } = json_body(app, request).await?;
    let (model, ticket) = app.admit()?;

    let call = {
        let num_bytes = body.len();
        let model = Arc::clone(&model);
        // Work goes on when its client has left, and so does what it holds.
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
    /// Checks the fields that all endpoints have.
    ///
    /// # Errors
    /// 400 for what they say, 404 for another model.
    pub(super) fn new(
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

    /// The whole request, once it is known what is to be continued.
    pub(super) fn with<C>(self, content: C) -> Call<C> {
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
    /// The same for an endpoint that takes its content as some `D` and whose answer tells `echo`.
    pub(super) fn through<D, E>(self, wrap: impl FnOnce(C) -> D, echo: E) -> Call<D, E> {
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
