//! The two threads of an engine: one plans, one computes.

use std::thread::JoinHandle;

use super::device::start_device;
use super::handle::EngineHandle;
use super::runner::Runner;
use super::{Engine, EngineConfig, EngineExit};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// The engine's thread; joined at the end of the process.
#[derive(Debug)]
pub struct EngineThread(JoinHandle<EngineExit>);

impl EngineThread {
    /// Waits for the end, though not for a step that still computes: a device that is stuck holds
    /// up nobody. A panic counts as a fault.
    pub fn join(self) -> EngineExit {
        self.0.join().unwrap_or(EngineExit::Fault)
    }
}

/// Starts an engine that computes with `runner`.
///
/// # Errors
/// When the scheduler cannot work within the limits, or no thread can be had.
pub fn start<B>(runner: Runner<B>, config: EngineConfig) -> Result<(EngineHandle, EngineThread)>
where
    B: Backend + 'static,
    Runner<B>: Send,
{
    let (handle, engine) = Engine::new(config, start_device(runner)?)?;
    // Its own small runtime, for timers beside channels, and to wait for masks.
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
