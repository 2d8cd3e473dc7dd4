//! A server whose engine is a script: it answers with tokens that the test chose and tells the
//! test what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use medgemma::api::{ApiKeys, AppState, RequestMemory, router};
use medgemma::core::{
    BlockCount, FinishReason, GenerateRequest, ImageFit, KvGroups, PrefixCaching,
    PreparationFields, RolePolicy, SeqId, Thinking, TokenEvent, TokenId, TokenLogprobs, ToolFormat,
};
use medgemma::engine::{Command, EngineHandle, EngineInbox, EngineLimits, channel};
use medgemma::error::Error;
use medgemma::image::{ImageLimits, ImageProcessor};
use medgemma::registry::{
    ImageSupport, RequestSeeds, SamplingDefaults, ServedModel, ThinkingSupport,
};
use medgemma::scheduler::SchedulerConfig;
use medgemma::text::{
    AddSpecialTokens, ChatTemplate, GrammarCompiler, GrammarVocabulary, Grammars, ImageTokens,
    NamedTokens, ReasoningMarkers, Tokenizer,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;

/// `<end_of_turn>` of the tiny tokenizer.
pub(super) const END_OF_TURN: TokenId = TokenId(8);

/// How long each request has waited, the engine says.
pub(super) const QUEUED: Duration = Duration::from_millis(700);

/// What the engine was told.
#[derive(Debug)]
pub(super) enum Seen {
    Request(Box<GenerateRequest>),
    Aborted(SeqId),
}

/// What the engine does with a request.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) tokens: Vec<TokenId>,
    pub(super) end: End,
}

/// How a script ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// `<end_of_turn>` after the tokens.
    TurnMarker,
    /// At the last of the tokens.
    Length,
    /// The last of the tokens is a stop token.
    StopToken,
    /// Nothing more comes until the client leaves.
    Hang,
    /// The step fails.
    Fail,
    /// The request's time is up.
    Late,
    /// The engine forgets the request.
    Vanish,
}

/// Chooses a script by the request.
pub(super) type Scripted = Arc<dyn Fn(&GenerateRequest) -> Script + Send + Sync>;

/// A server to be.
pub(super) struct Plan {
    pub(super) keys: Vec<&'static str>,
    pub(super) names: Vec<&'static str>,
    pub(super) max_in_flight: usize,
    pub(super) request_timeout: Option<Duration>,
    /// Bytes; without, there is no limit.
    pub(super) request_memory: Option<u64>,
    pub(super) max_model_len: usize,
    /// How many tokens of a request's prompt the engine reports as cached.
    pub(super) cached: fn(&GenerateRequest) -> usize,
    pub(super) takes_images: bool,
    /// Most images in a prompt.
    pub(super) max_images: Option<usize>,
    pub(super) has_template: bool,
    pub(super) sampling_defaults: SamplingDefaults,
    pub(super) thinking: Thinking,
    pub(super) tool_format: ToolFormat,
    pub(super) roles: RolePolicy,
    pub(super) script: Scripted,
}

impl Plan {
    /// A multimodal model named `tiny` of 256 tokens that says `The heart is normal.`
    pub(super) fn for_test() -> Self {
        Self {
            keys: Vec::new(),
            names: vec!["tiny", "org/tiny"],
            max_in_flight: 64,
            request_timeout: None,
            request_memory: None,
            max_model_len: 256,
            cached: |_| 0,
            takes_images: true,
            max_images: None,
            has_template: true,
            sampling_defaults: SamplingDefaults {
                temperature: 1.0,
                top_p: 0.95,
                top_k: NonZeroU32::new(64),
                ..SamplingDefaults::NEUTRAL
            },
            thinking: Thinking::Never,
            tool_format: ToolFormat::Pythonic,
            roles: RolePolicy::Merge,
            script: says("The heart is normal."),
        }
    }

    pub(super) fn start(self) -> TestServer {
        let memory = self.request_memory.map(RequestMemory::new);
        let memory = memory.unwrap_or_else(RequestMemory::unbounded);
        let app = AppState::within(memory, ApiKeys::new(&self.keys), self.request_timeout);
        let (engine, inbox) = channel(EngineLimits {
            scheduler: limits(self.max_model_len),
            max_in_flight: self.max_in_flight,
            max_queued_tokens: 1_000_000,
            max_queued_per_tenant: None,
        });
        let (told, seen) = mpsc::unbounded_channel();
        let engine_task = tokio::spawn(play(inbox, self.script.clone(), self.cached, told));
        app.set_model(self.model(engine.clone()));
        TestServer {
            router: router(app.clone()),
            app,
            engine,
            seen,
            engine_task,
        }
    }

    fn model(&self, engine: EngineHandle) -> ServedModel {
        let tokenizer = tokenizer();
        let images = self.takes_images.then(|| ImageSupport {
            processor: ImageProcessor {
                size: 56,
                resize: ImageFit::Squash,
                limits: ImageLimits::default(),
            },
            preparation: PreparationFields::default(),
            tokens: ImageTokens::new(&tokenizer, 4).expect("it has image tokens"),
            max_per_prompt: self.max_images,
        });
        // A text-only model has no row for the last token, <image_soft_token>.
        let vocab_size = tokenizer.vocab_size() - usize::from(!self.takes_images);
        let eos_token_ids = vec![TokenId(1), END_OF_TURN];
        let vocabulary = GrammarVocabulary::new(&tokenizer, vocab_size, eos_token_ids.clone());
        let grammars = Grammars::here(GrammarCompiler::new(vocabulary));
        ServedModel {
            grammars: Arc::new(grammars),
            names: self.names.iter().map(|name| (*name).to_owned()).collect(),
            created: 1_700_000_000,
            engine,
            template: self.has_template.then(|| template(&tokenizer)),
            named_tokens: NamedTokens::default(),
            images,
            max_model_len: self.max_model_len,
            vocab_size,
            sampling_defaults: self.sampling_defaults,
            seeds: RequestSeeds::new(None),
            thinking: match self.thinking {
                Thinking::Never => None,
                when => Some(ThinkingSupport {
                    when,
                    markers: ReasoningMarkers::new(&tokenizer).expect("it has them"),
                }),
            },
            tool_format: self.tool_format,
            roles: self.roles,
            eos_token_ids,
            tokenizer,
        }
    }
}

fn limits(max_model_len: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 16,
        max_num_batched_tokens: 512,
        max_model_len,
        block_size: 32,
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[10_000]),
        prefix_caching: PrefixCaching::On,
    }
}

pub(super) fn golden(path: &str) -> PathBuf {
    crate::golden::path(path)
}

pub(super) fn tokenizer() -> Arc<Tokenizer> {
    let file = golden("tokenizer/tokenizer.json");
    Arc::new(Tokenizer::from_file(&file).expect("the tiny tokenizer is in the repository"))
}

fn template(tokenizer: &Tokenizer) -> ChatTemplate {
    let source = std::fs::read_to_string(golden("make/chat_template.jinja"));
    let named = [("bos_token", "<bos>"), ("eos_token", "<eos>")];
    let named = named.map(|(name, token)| (name.to_owned(), token.to_owned()));
    let source = source.expect("the template is in the repository");
    let named = NamedTokens(BTreeMap::from(named));
    // A stock template is rendered without another process, so this program is never started.
    let program = Path::new("medgemma");
    ChatTemplate::new(&source, &named, tokenizer, program).expect("the template is sound")
}

/// The tokens of `text`.
pub(super) fn tokens(text: &str) -> Vec<TokenId> {
    let ids = tokenizer().encode_raw(text, AddSpecialTokens::No);
    ids.expect("any text has tokens")
}

/// Always the same words, then `<end_of_turn>`.
pub(super) fn says(text: &str) -> Scripted {
    always(tokens(text), End::TurnMarker)
}

/// Always the same tokens.
pub(super) fn always(tokens: Vec<TokenId>, end: End) -> Scripted {
    Arc::new(move |_| Script {
        tokens: tokens.clone(),
        end,
    })
}

/// The engine's thread, without an engine.
async fn play(
    mut inbox: EngineInbox,
    script: Scripted,
    cached: fn(&GenerateRequest) -> usize,
    told: mpsc::UnboundedSender<Seen>,
) {
    let mut hanging = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Submit(submission) => {
                let Script { mut tokens, end } = script(&submission.request);
                let mut finish = None;
                match end {
                    End::TurnMarker => {
                        tokens.push(END_OF_TURN);
                        finish = Some(FinishReason::Stop);
                    }
                    End::Length => finish = Some(FinishReason::Length),
                    End::StopToken => finish = Some(FinishReason::Stop),
                    End::Hang | End::Fail | End::Late | End::Vanish => {}
                }
                let num_tokens = tokens.len();
                for (token_idx, token) in tokens.into_iter().enumerate() {
                    let is_last = token_idx + 1 == num_tokens;
                    submission.events.send(Ok(TokenEvent {
                        token,
                        logprobs: logprobs(token, token_idx, &submission.request),
                        prompt_logprobs: (token_idx == 0)
                            .then(|| prompt_logprobs(&submission.request))
                            .flatten(),
                        finish: finish.filter(|_| is_last),
                        num_cached_tokens: cached(&submission.request),
                        queued: QUEUED,
                        num_preemptions: 1,
                    }));
                }
                match end {
                    End::Fail => submission.events.send(Err(Error::StepFailed)),
                    End::Late => {
                        let late = Error::DeadlineExceeded { after_ms: 50 };
                        submission.events.send(Err(late));
                    }
                    End::Hang => {
                        hanging.insert(submission.id, submission.events);
                    }
                    _ => {}
                }
                let _ = told.send(Seen::Request(Box::new(submission.request)));
            }
            Command::Abort(id) => {
                hanging.remove(&id);
                let _ = told.send(Seen::Aborted(id));
            }
            Command::Drain => {}
        }
    }
}

/// −0.25 for the first token, −0.5 for the second …; the runners-up are `!`, `"`, `#` …. A token that
/// the request names has its own id, negative.
fn logprobs(token: TokenId, token_idx: usize, request: &GenerateRequest) -> Option<TokenLogprobs> {
    let num_top = request.sampling.top_logprobs?;
    let logprob = -0.25 * (token_idx as f32 + 1.0);
    let named = &request.sampling.logprob_token_ids;
    if !named.is_empty() {
        return Some(TokenLogprobs {
            logprob,
            rank: 1,
            top: named.iter().map(|id| (*id, -(id.0 as f32))).collect(),
        });
    }
    let others = (0..).map(|rank| (TokenId(283 + rank), logprob - 1.0 - rank as f32));
    Some(TokenLogprobs {
        logprob,
        rank: 1,
        top: [(token, logprob)]
            .into_iter()
            .chain(others)
            .take(num_top)
            .collect(),
    })
}

/// −0.5 for the second token of the prompt, −1 for the third …; each is the third best, behind `!`
/// and `"`.
fn prompt_logprobs(request: &GenerateRequest) -> Option<Arc<[TokenLogprobs]>> {
    let num_top = request.prompt_logprobs?;
    let entries = request.prompt.iter().skip(1).zip(1..);
    let entries = entries.map(|(token, place)| {
        let logprob = -0.5 * place as f32;
        let better = [
            (TokenId(283), logprob + 0.25),
            (TokenId(284), logprob + 0.125),
        ];
        TokenLogprobs {
            logprob,
            rank: 3,
            top: better
                .into_iter()
                .chain([(*token, logprob)])
                .take(num_top)
                .collect(),
        }
    });
    Some(entries.collect())
}

/// A running server without a socket.
pub(super) struct TestServer {
    pub(super) app: AppState,
    pub(super) router: Router,
    pub(super) engine: EngineHandle,
    pub(super) seen: mpsc::UnboundedReceiver<Seen>,
    engine_task: JoinHandle<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl TestServer {
    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await;
        let response = response.expect("the router answers everything");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("bodies do not break");
        let body = String::from_utf8(body.to_bytes().to_vec());
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.expect("all answers are UTF-8"),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        let request = Request::get(path).body(Body::empty());
        self.send(request.expect("a plain request")).await
    }

    /// Posts JSON, well-formed or not.
    pub(super) async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.into());
        self.send(request.expect("a plain request")).await
    }

    /// Posts JSON with a key.
    pub(super) async fn post_as(&self, key: &str, path: &str, body: Value) -> Reply {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .body(Body::from(body.to_string()));
        self.send(request.expect("a plain request")).await
    }

    /// A metric's value, labels and all as they stand in the text.
    /// A series' value, without the label that all of vLLM's have.
    pub(super) async fn metric(&self, series: &str) -> f64 {
        let mut text = self.get("/metrics").await;
        assert_eq!(text.status, 200, "{}", text.body);
        text.body = text.body.replace(",engine=\"0\"", "");
        let value = text.body.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            value.parse().ok()
        });
        value.unwrap_or_else(|| panic!("no {series} in {}", text.body))
    }

    pub(super) async fn chat(&self, extra: Value) -> Reply {
        let body = chat_body(extra).to_string();
        self.post("/v1/chat/completions", body).await
    }

    /// A chat's stream, begun; dropping it is leaving.
    pub(super) async fn stream(&self, extra: Value) -> Response {
        let mut body = chat_body(extra);
        body["stream"] = json!(true);
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a plain request");
        let response = self.router.clone().oneshot(request).await;
        let response = response.expect("the router answers everything");
        assert_eq!(response.status().as_u16(), 200);
        response
    }

    pub(super) async fn complete(&self, extra: Value) -> Reply {
        let body = merged(json!({"prompt": "The heart"}), extra).to_string();
        self.post("/v1/completions", body).await
    }

    /// The next thing that the engine is told; a test fails rather than hangs.
    async fn told(&mut self) -> Option<Seen> {
        let told = timeout(Duration::from_secs(60), self.seen.recv()).await;
        told.expect("the engine was told nothing for a minute")
    }

    /// What the engine was asked to generate, in order.
    pub(super) async fn request(&mut self) -> GenerateRequest {
        match self.told().await {
            Some(Seen::Request(request)) => *request,
            other => panic!("the engine was told {other:?}"),
        }
    }

    pub(super) async fn aborted(&mut self) -> SeqId {
        loop {
            match self.told().await {
                Some(Seen::Aborted(id)) => return id,
                Some(Seen::Request(_)) => {}
                None => panic!("the engine is gone"),
            }
        }
    }

    /// The engine's thread dies.
    pub(super) async fn kill_engine(&mut self) {
        self.engine_task.abort();
        let _ = (&mut self.engine_task).await;
    }
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The answer's JSON; panics with what it is, if it is not 200.
    pub(super) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// A stream's events, `[DONE]` among them.
    pub(super) fn events(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.body);
        events_of(&self.body)
    }

    /// A stream's chunks; it must end with `[DONE]`.
    pub(super) fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{}", self.body);
        let parse = |event: &String| serde_json::from_str(event).expect("chunks are JSON");
        events.iter().map(parse).collect()
    }

    /// The error's status, code and param, in OpenAI's shape.
    pub(super) fn error(&self) -> (u16, Option<String>, Option<String>) {
        let body = self.json();
        let error = body["error"]
            .as_object()
            .unwrap_or_else(|| panic!("no error: {body}"));
        let fields: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(fields, ["message", "type", "param", "code"]);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        assert!(error["type"].is_string());
        let text = |field: &str| {
            assert!(error[field].is_string() || error[field].is_null());
            error[field].as_str().map(str::to_owned)
        };
        assert_eq!(self.headers["content-type"], "application/json");
        (self.status, text("code"), text("param"))
    }
}

fn events_of(body: &str) -> Vec<String> {
    let events = body.split_terminator("\n\n");
    let data = events.map(|event| event.strip_prefix("data: ").expect("an event is data"));
    data.map(str::to_owned).collect()
}

/// A short question, with `extra` fields in place or besides; null takes a field away.
pub(super) fn chat_body(extra: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Is the heart normal?"}]);
    merged(json!({"messages": messages}), extra)
}

fn merged(mut body: Value, extra: Value) -> Value {
    let fields = body.as_object_mut().expect("a body is an object");
    for (name, value) in extra.as_object().expect("extra fields are an object") {
        fields.insert(name.clone(), value.clone());
    }
    body
}
