//! The engine: one thread that owns scheduler, KV cache and device.

mod handle;

pub use handle::{
    Command, EngineHandle, EngineInbox, EngineLimits, EngineState, EventSender, Submission,
    TokenStream, channel,
};
