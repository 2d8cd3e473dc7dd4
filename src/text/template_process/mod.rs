//! Renders chat templates that the program does not know, in processes that can be killed.
//!
//! A template is a program that somebody wrote. Its fuel bounds how many steps it takes, but not
//! one step: `[x, x]` sixty times over makes a value that takes forever to print, and a million
//! nested `[x]` make one whose destructor overflows the stack. A thread in such a step cannot be
//! stopped, so each template gets processes of its own, with limits:
//!
//! ```text
//!  server ── socket ──> `medgemma template-worker`: one template, one rendering at a time
//!            template, then the variables of each rendering: JSON ──>
//!                          <── whether it is ready or compiled, then texts or failures: frames
//! ```
//!
//! - [`client`]: the server's side. It keeps a few processes ready, kills one that takes too long,
//!   and starts another when it needs one.
//! - [`worker`]: the process. It has limits on memory and CPU time, and a deep stack.
//!
//! A process that dies ends only the rendering that it worked on.

mod client;
mod protocol;
mod worker;

pub(super) use client::TemplateProcesses;
pub use worker::run_template_worker;
