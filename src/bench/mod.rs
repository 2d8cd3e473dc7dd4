//! `medgemma bench`: measures the speed of a model on this machine, or of any server of this API.
//!
//! Owns the load, the clock and the report. Knows nothing of how an answer is computed: in process
//! it uses the engine as the HTTP side does, over HTTP it is one more client, so that other servers
//! are measured by the same tool.

mod bandwidth;
mod in_process;
mod percentiles;
mod report;
mod serve;

pub use in_process::{decode, load, prefill};
pub use percentiles::Percentiles;
pub use report::{Report, Row};
pub use serve::serve;
