//! The device's thread, and the queue of orders between it and the engine.
//!
//! ```text
//!  engine   launch 1, launch 2, collect          launch 3, collect          …
//!  device   ├─ step 1 ─┤─────── step 2 ───────┤─────── step 3 ───────┤
//!                      └> tokens of 1                └> tokens of 2
//! ```
//!
//! A step whose sample depends on the tokens of the step before is ordered in two parts, so that what
//! the sample needs is made while the device computes. Whoever else is in the batch is sampled with it:
//! the next step could not begin without all of their tokens anyway.
//!
//! ```text
//!  engine   …, forward 2, collect     sample 2, launch 3, collect      …
//!                                  └masks┘
//!  device   ├── sample 1 ──┤──────── forward 2 ────────┤─ sample 2 ─┤─── step 3 ───┤
//!                        └> tokens of 1
//! ```
//!
//! What it costs: the device idles where masks take longer than the step, and a step is launched
//! ahead only when the one before has its sample.
//!
//! Orders are carried out one after another, so the device never waits for more than it was told
//! to. Knows nothing of sequences; a test may play the device and answer as it likes.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::encoder_cache::{EncoderStats, FeatureKey};
use super::model_input::{ModelInput, SampleInput};
use super::runner::{Runner, StepOutput};
use crate::backend::Backend;
use crate::core::GenerateRequest;
use crate::error::{Error, Result};
use crate::model::{ImageShape, Model};

/// What the device is told.
#[derive(Debug)]
pub enum DeviceCommand {
    /// Begin a step.
    Launch(Box<ModelInput>),
    /// Begin a step whose sample is ordered apart, before anything else is begun.
    Forward(Box<ModelInput>),
    /// The sample of the step that was begun so: one per `input.logit_rows`, in their order.
    Sample(Vec<SampleInput>),
    /// Wait for the oldest step that was sampled, and report it.
    Collect,
    /// Keep nothing of what these images became.
    Forget(Vec<FeatureKey>),
}

/// What the device says of a step.
#[derive(Debug)]
pub struct StepReport {
    /// One per sample of the step's order, and one per row that it scored.
    pub output: StepOutput,
    /// Of all steps so far.
    pub encoder: EncoderStats,
    /// How long the step held up the device's thread before its sample, if that was ordered apart.
    pub forward: Duration,
}

/// What the device can compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceShape {
    /// Tokens from here on do not exist.
    pub vocab_size: usize,
    /// `None` for a model that takes no images.
    pub image: Option<ImageShape>,
}

impl DeviceShape {
    /// That of a model.
    pub fn of<B: Backend>(model: &Model<B>) -> Self {
        Self {
            vocab_size: model.vocab_size(),
            image: model.image_shape(),
        }
    }

    /// Whether a request's inputs are such that a step with them can be computed.
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

/// The engine's end of a device.
#[derive(Debug)]
pub struct DeviceHandle {
    orders: mpsc::UnboundedSender<DeviceCommand>,
    reports: mpsc::UnboundedReceiver<Result<StepReport>>,
    shape: DeviceShape,
}

impl DeviceHandle {
    pub(super) fn shape(&self) -> DeviceShape {
        self.shape
    }

    /// Gives an order. A device that is gone is noticed when its report does not come.
    pub(super) fn order(&self, order: DeviceCommand) {
        let _ = self.orders.send(order);
    }

    /// The next report; an error when the step failed or the device is gone.
    pub(super) async fn report(&mut self) -> Result<StepReport> {
        let report = self.reports.recv().await;
        report.unwrap_or_else(|| Err(Error::Backend("the device's thread is gone".to_owned())))
    }
}

/// The device's end: orders come in here, reports go out.
#[derive(Debug)]
pub struct DeviceInbox {
    orders: mpsc::UnboundedReceiver<DeviceCommand>,
    reports: mpsc::UnboundedSender<Result<StepReport>>,
}

impl DeviceInbox {
    /// Waits for an order; `None` when the engine is gone.
    pub async fn recv(&mut self) -> Option<DeviceCommand> {
        self.orders.recv().await
    }

    /// Tells the engine. That it is gone is found out when no order comes.
    pub fn report(&self, report: Result<StepReport>) {
        let _ = self.reports.send(report);
    }
}

/// Both ends of a device of this shape.
pub fn device_channel(shape: DeviceShape) -> (DeviceHandle, DeviceInbox) {
    let (order_sender, orders) = mpsc::unbounded_channel();
    let (reports, report_receiver) = mpsc::unbounded_channel();
    let handle = DeviceHandle {
        orders: order_sender,
        reports: report_receiver,
        shape,
    };
    (handle, DeviceInbox { orders, reports })
}

/// Starts the thread that carries out orders with `runner`. It ends when the handle is dropped, or
/// with the first step that fails.
///
/// # Errors
/// When no thread can be had.
pub(super) fn start_device<B>(mut runner: Runner<B>) -> Result<DeviceHandle>
where
    B: Backend + 'static,
    Runner<B>: Send,
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
    while let Some(order) = inbox.orders.blocking_recv() {
        // A panic in a kernel must not leave clients waiting, so it is an error like any other.
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

/// `forwards` is how long each uncollected step took before its sample, oldest first.
fn execute<B: Backend>(
    runner: &mut Runner<B>,
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
        handle.order(DeviceCommand::Collect);
        handle.order(DeviceCommand::Collect);
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
