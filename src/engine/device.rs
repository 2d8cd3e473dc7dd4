//! The device thread, and the command queue between it and the engine.
//!
//! ```text
//!  engine   launch 1, launch 2, collect          launch 3, collect          …
//!  device   ├─ step 1 ─┤─────── step 2 ───────┤─────── step 3 ───────┤
//!                      └> tokens of 1                └> tokens of 2
//! ```
//!
//! If the sample of a step depends on the tokens of the step before, the step is ordered in two
//! parts, so that the masks for the sample are computed while the device computes. The other
//! sequences in the batch are sampled at the same time: the next step could not begin without all
//! tokens of this one anyway.
//!
//! ```text
//!  engine   …, forward 2, collect     sample 2, launch 3, collect      …
//!                                  └masks┘
//!  device   ├── sample 1 ──┤──────── forward 2 ────────┤─ sample 2 ─┤─── step 3 ───┤
//!                        └> tokens of 1
//! ```
//!
//! The cost: the device idles if masks take longer than the step, and a step is launched ahead only
//! when the one before has its sample.
//!
//! Commands are executed one after another, so the device never waits for anything but its next
//! command. This module knows nothing of sequences; a test may act as the device and answer as it
//! likes.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::encoder_cache::{EmbeddingKey, EncoderStats};
use super::model_input::{ModelInput, SampleInput};
use super::runner::{Runner, StepOutput};
use crate::backend::Backend;
use crate::core::GenerateRequest;
use crate::error::{Error, Result};
use crate::model::{Forward, ImageShape, Model};

/// A command to the device.
#[derive(Debug)]
pub enum DeviceCommand {
    /// Begins a step.
    Launch(Box<ModelInput>),
    /// Begins a step whose sample is submitted separately, before any other step begins.
    Forward(Box<ModelInput>),
    /// Samples for the step begun by `Forward`: one per `input.logit_rows`, in their order.
    Sample(Vec<SampleInput>),
    /// Waits for the oldest sampled step and reports it.
    Collect,
    /// Drops the cached embeddings of these images.
    Forget(Vec<EmbeddingKey>),
}

/// The device's report of a step.
#[derive(Debug)]
pub struct StepReport {
    /// One entry per sample of the step, and one per scored row.
    pub output: StepOutput,
    /// Counters over all steps so far.
    pub encoder: EncoderStats,
    /// Time that the step occupied the device thread before its sample, if that was ordered
    /// separately.
    pub forward: Duration,
}

/// The inputs that the device can compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceShape {
    /// Size of the vocabulary; token ids must be smaller.
    pub vocab_size: usize,
    /// `None` for a model that takes no images.
    pub image: Option<ImageShape>,
}

impl DeviceShape {
    /// Returns the shape of a model's inputs.
    pub fn of<B: Backend, F: Forward<B>>(model: &Model<B, F>) -> Self {
        Self {
            vocab_size: model.vocab_size(),
            image: model.image_shape(),
        }
    }

    /// Whether a step with a request's inputs can be computed.
    pub(super) fn takes(&self, request: &GenerateRequest) -> bool {
        let knows = |token: &crate::core::TokenId| (token.0 as usize) < self.vocab_size;
        request.prompt.iter().all(knows)
            && request.images.iter().all(|span| {
                self.image.is_some_and(|shape| {
                    let size = span.pixels.size;
                    span.len == shape.num_tokens
                        && size == shape.size
                        && span.pixels.rgb.len() == 3 * size * size
                        && span.start + span.len <= request.prompt.len()
                })
            })
    }
}

/// The engine's end of the device queue.
#[derive(Debug)]
pub struct DeviceHandle {
    commands: mpsc::UnboundedSender<DeviceCommand>,
    reports: mpsc::UnboundedReceiver<Result<StepReport>>,
    shape: DeviceShape,
}

impl DeviceHandle {
    pub(super) fn shape(&self) -> DeviceShape {
        self.shape
    }

    /// Sends a command. If the device is gone, that is noticed when its report does not come.
    pub(super) fn send(&self, command: DeviceCommand) {
        let _ = self.commands.send(command);
    }

    /// Waits for the next report; returns an error when the step failed or the device is gone.
    pub(super) async fn report(&mut self) -> Result<StepReport> {
        let report = self.reports.recv().await;
        report.unwrap_or_else(|| Err(Error::Backend("the device's thread is gone".to_owned())))
    }
}

/// The device's end: receives commands and sends reports.
#[derive(Debug)]
pub struct DeviceInbox {
    commands: mpsc::UnboundedReceiver<DeviceCommand>,
    reports: mpsc::UnboundedSender<Result<StepReport>>,
}

impl DeviceInbox {
    /// Waits for a command; `None` when the engine is gone.
    pub async fn recv(&mut self) -> Option<DeviceCommand> {
        self.commands.recv().await
    }

    /// Sends a report to the engine. If the engine is gone, that is noticed when no command comes.
    pub fn report(&self, report: Result<StepReport>) {
        let _ = self.reports.send(report);
    }
}

/// Creates both ends of the queue for a device of this shape.
pub fn device_channel(shape: DeviceShape) -> (DeviceHandle, DeviceInbox) {
    let (command_sender, commands) = mpsc::unbounded_channel();
    let (reports, report_receiver) = mpsc::unbounded_channel();
    let handle = DeviceHandle {
        commands: command_sender,
        reports: report_receiver,
        shape,
    };
    (handle, DeviceInbox { commands, reports })
}

/// Starts the thread that executes commands with `runner`. It ends when the handle is dropped, or
/// with the first step that fails.
///
/// # Errors
/// Fails when the thread cannot be started.
pub(super) fn start_device<B, F>(mut runner: Runner<B, F>) -> Result<DeviceHandle>
where
    B: Backend + 'static,
    F: Forward<B> + 'static,
    Runner<B, F>: Send,
{
    let (handle, inbox) = device_channel(DeviceShape::of(runner.model()));
    std::thread::Builder::new()
        .name("device".to_owned())
        .spawn(move || {
            let mut forwards = VecDeque::new();
            work(inbox, |order| execute(&mut runner, &mut forwards, order));
        })
        .map_err(|error| Error::Config(format!("the device's thread cannot start: {error}")))?;
    Ok(handle)
}

fn work(
    mut inbox: DeviceInbox,
    mut execute: impl FnMut(DeviceCommand) -> Result<Option<StepReport>>,
) {
    while let Some(order) = inbox.commands.blocking_recv() {
        // A panic in a kernel must not leave clients waiting, so it is treated like any other
        // error.
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| execute(order)));
        match done.unwrap_or_else(|_| Err(Error::Backend("a step panicked".to_owned()))) {
            Ok(None) => {}
            Ok(Some(report)) => inbox.report(Ok(report)),
            Err(error) => {
                inbox.report(Err(error));
                return;
            }
        }
    }
}

/// Executes one command. `forwards` holds the time that each uncollected step took before its
/// sample, oldest first.
fn execute<B: Backend, F: Forward<B>>(
    runner: &mut Runner<B, F>,
    forwards: &mut VecDeque<Duration>,
    order: DeviceCommand,
) -> Result<Option<StepReport>> {
    match order {
        DeviceCommand::Launch(order) => {
            forwards.push_back(Duration::ZERO);
            runner.launch(&order).map(|()| None)
        }
        DeviceCommand::Forward(order) => {
            let begun = Instant::now();
            runner.forward(&order)?;
            forwards.push_back(begun.elapsed());
            Ok(None)
        }
        DeviceCommand::Sample(samples) => runner.sample(&samples).map(|()| None),
        DeviceCommand::Forget(images) => {
            runner.forget(&images);
            Ok(None)
        }
        DeviceCommand::Collect => {
            let output = runner.collect()?;
            let encoder = runner.encoder_stats();
            let forward = forwards.pop_front().unwrap_or_default();
            Ok(Some(StepReport {
                output,
                encoder,
                forward,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: DeviceShape = DeviceShape {
        vocab_size: 10,
        image: None,
    };

    #[tokio::test]
    async fn a_panic_is_reported_and_is_the_last_word() {
        let (mut handle, inbox) = device_channel(SHAPE);
        handle.send(DeviceCommand::Collect);
        handle.send(DeviceCommand::Collect);
        let device = std::thread::spawn(|| {
            let mut num_orders = 0;
            work(inbox, |_| {
                num_orders += 1;
                panic!("a kernel went wrong");
            });
            num_orders
        });
        assert_eq!(device.join().expect("it ends well"), 1);
        for said in ["a step panicked", "the device's thread is gone"] {
            let error = handle.report().await.expect_err("no report");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
