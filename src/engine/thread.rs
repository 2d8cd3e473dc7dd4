//! The engine's two threads: one plans, one computes.

use std::thread::JoinHandle;

use super::device::start_device;
use super::handle::EngineHandle;
use super::runner::Runner;
use super::{Engine, EngineConfig, EngineExit};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::model::Forward;

/// The engine's planning thread; joined at the end of the process.
#[derive(Debug)]
pub struct EngineThread(JoinHandle<EngineExit>);

impl EngineThread {
    /// Waits for the thread to end, but not for a step that still computes, so a stuck device does
    /// not block. A panic counts as a fault.
    pub fn join(self) -> EngineExit {
        self.0.join().unwrap_or(EngineExit::Fault)
    }
}

/// Starts an engine that computes with `runner`.
///
/// # Errors
/// Fails when the scheduler cannot work within the limits, or a thread cannot be started.
pub fn start<B, F>(
    runner: Runner<B, F>,
    config: EngineConfig,
) -> Result<(EngineHandle, EngineThread)>
where
    B: Backend + 'static,
    F: Forward<B> + 'static,
    Runner<B, F>: Send,
{
    let (handle, engine) = Engine::new(config, start_device(runner)?)?;
    // A small runtime of its own for timers, channels and masks.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(cannot_start)?;
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || runtime.block_on(engine.run()))
        .map_err(cannot_start)?;
    Ok((handle, EngineThread(thread)))
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::Config(format!("the engine's thread cannot start: {error}"))
}
