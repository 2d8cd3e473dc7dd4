//! Grammars in processes of their own, which can be killed.
//!
//! A grammar is a program that a client wrote. However it is checked, some will need minutes, all
//! memory, or a deeper stack than there is; a thread that is caught in that cannot be stopped, and an
//! overflow or an abort takes its whole process along. So each grammar gets a process:
//!
//! ```text
//!  server ── control socket ──> fork server: vocabulary, ready for grammars, one thread
//!    │                            │ fork, a copy that shares its memory
//!    │                            v
//!    └───── a socket each ──────> worker: one grammar, its answers' states; limits on time and memory
//! ```
//!
//! - [`fork_server`]: what `medgemma grammar-worker` runs. It is kept warm, and forks in milliseconds.
//! - [`worker`]: what the fork does: compiles one grammar, and makes masks for every answer to it.
//! - [`client`]: the server's side. A supervisor lets grammars that take long run by turns and in the
//!   background, and kills what goes on for too long or for nobody.
//!
//! A worker that dies ends the answers to its own grammar, and nothing else.

mod client;
mod fork_server;
mod protocol;
mod worker;

pub use fork_server::run_fork_server;

pub(super) use client::{COMPILE_TIME, ForkServer, GrammarProcess};
