//! Processes of this program that can be killed: how they are started, what they may use, and the
//! frame of the messages to and from them.
//!
//! What a person outside wrote as a program (a grammar, a template) runs in one. Knows nothing of
//! either.

mod frame;
mod limits;
mod spawn;

pub(super) use frame::{malformed, message, read_message};
pub(super) use limits::{die_first, limit_cpu, limit_memory, name_process};
pub(super) use spawn::spawn;
