//! Runs grammars in processes of their own, which can be killed.
//!
//! A grammar is a program that a client wrote. Whatever the checks, some grammars will need
//! minutes, all memory, or a deeper stack than there is. A thread in such a computation cannot be
//! stopped, and a stack overflow or an abort ends its whole process. So each grammar gets a
//! process:
//!
//! ```text
//!  server ── control socket ──> fork server: vocabulary, ready for grammars, one thread
//!    │                            │ fork, a copy that shares its memory
//!    │                            v
//!    └──── one socket each ─────> worker: one grammar, its answers' states; time and memory limits
//! ```
//!
//! - [`fork_server`]: what `medgemma grammar-worker` runs. It is prepared in advance, and forks in
//!   milliseconds.
//! - [`worker`]: the forked process. It compiles one grammar, and computes the masks of all answers
//!   that use it.
//! - [`client`]: the server's side. A supervisor makes slow grammars take turns in the background,
//!   and kills those that exceed their time or that no request waits for.
//!
//! A worker that dies ends only the answers with its own grammar.

mod client;
mod fork_server;
mod protocol;
mod worker;

pub use fork_server::run_fork_server;

pub(super) use client::{COMPILE_TIME, ForkServer, GrammarProcess};
