//! Models on the Hugging Face hub, and the cache for them.
//!
//! ```text
//! id, revision ─ endpoint ─▶ commit, names ─ needed_files ─▶ files ─ endpoint ─▶ sizes, hashes
//!                                                                       │
//!   cache/models--owner--name/                                          ▼
//!     refs/main                     the commit's name   ◀── last ── download, some at a time
//!     snapshots/COMMIT/FILE ──▶ ../../blobs/HASH         ◀─ whole ─ blobs/HASH.incomplete
//! ```
//!
//! The layout is huggingface_hub's, including its lock files, so both programs find what the other
//! one has downloaded. A file gets its name in `blobs` only after its hash was checked, a snapshot
//! gets its weights only after everything else, and a revision its commit only after all files are
//! there. So at whatever time a process ends, the next one finds complete files, or continues
//! partial ones.
//!
//! # What the tests cover, and what the real hub may do differently
//! The tests use an imitation on loopback, written after the requests that huggingface_hub sends
//! and the responses that it accepts. It redirects to a second host, ends connections at random
//! bytes, stalls, and sends too much, too little, or wrong bytes; it ignores ranges and asks
//! clients to wait. This program and huggingface_hub were tested with each other's caches. The real
//! hub was not tested, for lack of a network. It stores large files in chunks ("Xet") and says so
//! in headers that are ignored here: the address that it redirects to serves the whole file over
//! plain HTTP, up to 50 GB per file, with ranges. That address expires after about an hour, so each
//! attempt requests a new one. If the hub ever stops serving whole files, downloads fail with its
//! response.
//!
//! Why not the crate hf-hub: from 1.0 on it needs the 280 crates of the chunked transfer and a TLS
//! library that needs cmake, and it neither resumes downloads nor checks hashes. Its last version
//! without these dependencies reads our caches in the tests.
//!
//! All requests to the hub and all access to its cache are in this module. It knows nothing of
//! models except which files one needs.

mod blob;
mod cache;
mod digest;
mod disk;
mod download;
mod endpoint;
mod inventory;
mod needed_files;
mod progress;
mod proxy;
mod removal;
mod repository;
mod response_error;
mod retry_policy;
mod token;

pub(super) use cache::HubCache;
pub(super) use download::{Snapshot, cached, fetch};
pub(super) use inventory::{CachedModel, Completeness, inventory};
pub use removal::{Removal, find_removal};
pub use repository::RepoId;
