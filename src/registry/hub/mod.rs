//! Models on the hub, and the cache that keeps them.
//!
//! ```text
//! id, revision ─ endpoint ─▶ commit, names ─ needed_files ─▶ files ─ endpoint ─▶ sizes, hashes
//!                                                                       │
//!   cache/models--owner--name/                                          ▼
//!     refs/main                     the commit's name   ◀── last ── download, some at a time
//!     snapshots/COMMIT/FILE ──▶ ../../blobs/HASH         ◀─ whole ─ blobs/HASH.incomplete
//! ```
//!
//! The layout is huggingface_hub's, down to its lock files: what one downloads, the other finds.
//! A file has its name in `blobs` only once its hash was checked, a snapshot its weights only once
//! it has all else, and a revision its commit only once all is there: whatever moment a process
//! ends at, what the next one finds is whole, or goes on from where it was.
//!
//! # What the tests show, and what the hub may do otherwise
//! They run against an imitation on loopback that was written from how huggingface_hub asks and
//! what it takes for an answer. It redirects to a second host, ends connections at random bytes,
//! stalls, sends too much, too little, and other bytes; it ignores ranges and asks for patience.
//! Two programs were tried on each other's caches: this and huggingface_hub. Not tried, for want of
//! a network: the hub itself. It keeps large files in chunks ("Xet") and says so in headers that
//! are ignored here: the address that it redirects to hands out the whole file over plain HTTP, up
//! to 50 GB a file, with ranges. That address expires after about an hour, so each attempt asks for
//! a new one. If the hub ever stops handing out whole files, downloads end with what it answers.
//!
//! Why not the crate hf-hub: from 1.0 on it needs the chunked transfer's 280 crates and a TLS
//! library that needs cmake, and it neither resumes nor checks hashes. Its last version without
//! them reads caches in the tests.
//!
//! Owns everything that is asked of the hub and kept of it. Knows nothing of models but which files
//! one needs.

mod blob;
mod cache;
mod digest;
mod disk;
mod download;
mod endpoint;
mod inventory;
mod needed_files;
mod progress;
mod refusal;
mod removal;
mod repository;
mod retry_policy;
mod token;

pub(super) use cache::HubCache;
pub(super) use download::{Snapshot, cached, fetch};
pub(super) use inventory::{CachedModel, Completeness, inventory};
pub use removal::{Removal, find_removal};
pub use repository::RepoId;
