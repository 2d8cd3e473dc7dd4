//! An engine, and a test in the place of its clients and its device.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use medgemma::backend::Sampled;
use medgemma::core::{
    BlockCount, GenerateRequest, KvGroups, PrefixCaching, SamplingParams, SchedulingParams,
    TokenEvent, TokenId,
};
use medgemma::engine::{
    DeviceCommand, DeviceInbox, DeviceShape, EncoderStats, Engine, EngineConfig, EngineExit,
    EngineHandle, EngineLimits, ModelInput, SampleInput, StepOutput, StepReport, Stepping,
    TokenStream, device_channel,
};
use medgemma::error::Result;
use medgemma::model::ImageShape;
use medgemma::scheduler::SchedulerConfig;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// What the device samples.
pub(super) const WORD: TokenId = TokenId(7);
pub(super) const STOP: TokenId = TokenId(1);
pub(super) const VOCAB: usize = 100;

pub(super) const STEPPINGS: [Stepping; 2] = [Stepping::Alternating, Stepping::Ahead];
/// Longer than any test: the clock is paused, so only something that never happens takes this long.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// An engine and what the test is to it: clients and device.
pub(super) struct Stage {
    pub(super) handle: EngineHandle,
    pub(super) device: DeviceInbox,
    pub(super) engine: JoinHandle<EngineExit>,
    /// Launched and not answered, by those tests that use [`Stage::see`].
    pub(super) steps: VecDeque<ModelInput>,
    /// Sampled and not answered, by those tests that use [`Stage::play_step`].
    pub(super) sampled_tokens: VecDeque<Vec<SampleInput>>,
    pub(super) is_asked: bool,
}

/// Two run, two wait; steps of 64 tokens.
pub(super) fn config() -> EngineConfig {
    EngineConfig {
        limits: EngineLimits {
            scheduler: SchedulerConfig {
                max_num_seqs: 2,
                max_num_batched_tokens: 64,
                max_model_len: 256,
                block_size: 32,
                groups: KvGroups::new(&[None, Some(64)]),
                num_blocks: BlockCount::new(&[20, 20]),
                prefix_caching: PrefixCaching::Off,
            },
            max_in_flight: 4,
            max_queued_tokens: 512,
            max_queued_per_tenant: None,
        },
        stepping: Stepping::Alternating,
        step_timeout: None,
        shutdown_timeout: Duration::from_secs(30),
    }
}

pub(super) fn stage(config: EngineConfig) -> Stage {
    let shape = DeviceShape {
        vocab_size: VOCAB,
        image: Some(ImageShape {
            size: 4,
            num_tokens: 16,
            hidden: 8,
        }),
    };
    stage_of(config, shape)
}

pub(super) fn stage_of(config: EngineConfig, shape: DeviceShape) -> Stage {
    let (device_handle, device) = device_channel(shape);
    let (handle, engine) = Engine::new(config, device_handle).expect("limits that work");
    Stage {
        handle,
        device,
        engine: tokio::spawn(engine.run()),
        steps: VecDeque::new(),
        sampled_tokens: VecDeque::new(),
        is_asked: false,
    }
}

pub(super) fn ask(prompt_len: usize, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: vec![WORD; prompt_len],
        images: Vec::new(),
        sampling: SamplingParams {
            stop_token_ids: vec![STOP],
            ..SamplingParams::greedy(max_tokens)
        },
        constraint: None,
        prompt_logprobs: None,
        scheduling: SchedulingParams::default(),
    }
}

pub(super) fn within(time: Duration, request: GenerateRequest) -> GenerateRequest {
    let deadline = Some((Instant::now() + time).into_std());
    let scheduling = SchedulingParams {
        deadline,
        ..request.scheduling
    };
    GenerateRequest {
        scheduling,
        ..request
    }
}

pub(super) fn sampled(token: TokenId) -> Sampled {
    Sampled {
        token,
        logprobs: None,
        is_finite: true,
    }
}

impl Stage {
    pub(super) fn submit(&self, request: GenerateRequest) -> TokenStream {
        self.handle.submit(request).expect("it is let in")
    }

    pub(super) async fn order(&mut self) -> DeviceCommand {
        let order = timeout(NEVER, self.device.recv()).await;
        order.expect("an order comes").expect("the engine lives")
    }

    /// The next order must be a step's.
    pub(super) async fn launched(&mut self) -> ModelInput {
        match self.order().await {
            DeviceCommand::Launch(order) => *order,
            other => panic!("{other:?}"),
        }
    }

    /// The next order must be a step's that is sampled later.
    pub(super) async fn begun(&mut self) -> ModelInput {
        match self.order().await {
            DeviceCommand::Forward(order) => *order,
            other => panic!("{other:?}"),
        }
    }

    /// The next order must be a sample.
    pub(super) async fn sampled_tokens(&mut self) -> Vec<SampleInput> {
        match self.order().await {
            DeviceCommand::Sample(samples) => samples,
            other => panic!("{other:?}"),
        }
    }

    /// The next order must ask for tokens.
    pub(super) async fn asked(&mut self) {
        match self.order().await {
            DeviceCommand::Collect => {}
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn report(&self, sampled: Vec<Sampled>) {
        self.report_all(sampled, Vec::new());
    }

    pub(super) fn report_all(&self, sampled: Vec<Sampled>, scores: Vec<Sampled>) {
        self.device.report(Ok(StepReport {
            output: StepOutput { sampled, scores },
            encoder: EncoderStats::default(),
            forward: Duration::ZERO,
        }));
    }

    /// A step that samples `WORD` for everyone.
    pub(super) async fn step(&mut self) -> ModelInput {
        let order = self.launched().await;
        self.asked().await;
        self.report(vec![sampled(WORD); order.samples.len()]);
        order
    }

    /// Lets the engine do what it can without the device, until it waits.
    pub(super) async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Takes in the orders that are there.
    pub(super) async fn see(&mut self) {
        self.settle().await;
        while let Some(order) = self.device.recv().now_or_never() {
            match order.expect("the engine lives") {
                DeviceCommand::Launch(order) => self.steps.push_back(*order),
                DeviceCommand::Forward(_) | DeviceCommand::Sample(_) => {
                    panic!("nobody is late here")
                }
                DeviceCommand::Forget(_) => {}
                DeviceCommand::Collect => {
                    assert!(!self.is_asked, "one report at a time");
                    self.is_asked = true;
                }
            }
        }
    }

    /// Samples `WORD` for everyone in the oldest step.
    pub(super) fn answer(&mut self) {
        assert!(self.is_asked, "nobody waits for tokens");
        self.is_asked = false;
        let order = self.steps.pop_front().expect("asked for what was launched");
        self.report(vec![sampled(WORD); order.samples.len()]);
    }

    /// Answers until nothing is asked any more.
    pub(super) async fn play(&mut self) {
        self.see().await;
        while self.is_asked {
            self.answer();
            self.see().await;
        }
    }

    /// Whether no order is there.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.device.recv().now_or_never().is_none()
    }

    /// Plays the device until nobody is left: `WORD` for everyone, and for those that are bound
    /// the first token that they are allowed.
    pub(super) async fn play_all(&mut self) {
        while self.handle.num_in_flight() > 0 {
            self.play_step().await;
        }
        self.settle().await;
    }

    /// The same until one step more is reported.
    pub(super) async fn play_step(&mut self) {
        loop {
            match self.order().await {
                DeviceCommand::Launch(order) => self.sampled_tokens.push_back(order.samples),
                DeviceCommand::Forward(_) | DeviceCommand::Forget(_) => {}
                DeviceCommand::Sample(samples) => self.sampled_tokens.push_back(samples),
                DeviceCommand::Collect => break,
            }
        }
        let samples = self
            .sampled_tokens
            .pop_front()
            .expect("asked for what was sampled");
        let first = |sample: &SampleInput| {
            let mask = sample.mask.as_ref()?;
            (0..VOCAB as u32).map(TokenId).find(|t| mask.contains(*t))
        };
        let tokens = samples.iter().map(|sample| first(sample).unwrap_or(WORD));
        self.report(tokens.map(sampled).collect());
        self.settle().await;
    }

    /// Nothing is held by anybody.
    pub(super) fn assert_empty(&self) {
        let stats = self.handle.stats();
        assert_eq!((stats.num_running, stats.num_waiting), (0, 0));
        assert_eq!(stats.pools[0].free, stats.pools[0].total);
        assert_eq!(stats.pools[1].free, stats.pools[1].total);
        assert_eq!(stats.kv_usage, 0.0);
        assert_eq!(self.handle.num_in_flight(), 0);
    }

    pub(super) async fn exit(&mut self) -> EngineExit {
        let exit = timeout(NEVER, &mut self.engine).await;
        exit.expect("it ends").expect("it does not panic")
    }
}

pub(super) async fn next(stream: &mut TokenStream) -> Result<TokenEvent> {
    let event = timeout(NEVER, stream.next()).await;
    event.expect("something comes").expect("the stream is open")
}

pub(super) async fn rest(mut stream: TokenStream) -> Vec<Result<TokenEvent>> {
    let mut events = Vec::new();
    while let Some(event) = timeout(NEVER, stream.next()).await.expect("it ends") {
        events.push(event);
    }
    events
}
