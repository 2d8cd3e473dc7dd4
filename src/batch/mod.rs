//! Runs a JSONL file of requests (OpenAI batch format) and appends results to the output. An
//! interrupted run resumes: requests that already have a result are skipped.
//!
//! ```text
//! in.jsonl ─ input ─▶ requests ─▶ router (as many at a time as the engine takes) ─▶ output ─ out.jsonl
//!            └ which have a result? ◀────────────────────────────────────────────── output
//! ```
//! Owns both files and the concurrency. The server is passed in as a function from request to
//! response; nothing here knows models. The output is the only state of a run: each line is written
//! whole, and an incomplete last line is dropped.

mod error;
mod input;
mod output;
mod progress;
mod request;
mod result_line;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::stream::{self, StreamExt};
use tokio::task::spawn_blocking;

pub use self::error::BatchError;
use self::input::{Input, InputLine};
use self::output::Output;
use self::progress::Progress;
use self::request::answer;
use crate::config::Place;
use crate::log::Log;

/// The files and the concurrency of a run.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// Requests, one a line.
    pub input: Place,
    /// Results, one a line, in order of completion.
    pub output: Place,
    /// Number of concurrent requests.
    pub num_at_a_time: NonZeroUsize,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSummary {
    /// Lines of the input.
    pub num_lines: usize,
    /// Lines whose result was in the output before the run.
    pub num_present: usize,
    /// Lines that were answered in this run.
    pub num_answered: usize,
    /// Lines that ended with an error in this run.
    pub num_failed: usize,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Both files, read and checked; no request has been sent yet.
#[derive(Debug)]
pub struct BatchRun {
    input: Arc<Input>,
    output: Output,
    todo: Vec<InputLine>,
    summary: BatchSummary,
    num_at_a_time: NonZeroUsize,
}

impl BatchRun {
    /// Reads the input once and finds the requests that already have results.
    ///
    /// # Errors
    /// For unusable files, duplicate ids, and an output of another input.
    pub fn open(plan: &BatchPlan) -> Result<Self, BatchError> {
        if let (Place::File(input), Place::File(output)) = (&plan.input, &plan.output)
            && let (Ok(input), Ok(output)) = (input.canonicalize(), output.canonicalize())
            && input == output
        {
            return Err(BatchError::SameFile { path: input });
        }
        let (input, mut lines) = Input::open(&plan.input)?;
        let (output, present) = Output::open(&plan.output)?;
        let num_lines = lines.len();
        lines.retain(|line| !present.has(line));
        if num_lines - lines.len() != present.len() {
            return Err(BatchError::OtherInput {
                path: plan.output.to_string(),
                num_unknown: present.len() - (num_lines - lines.len()),
            });
        }
        Ok(Self {
            input: Arc::new(input),
            output,
            summary: BatchSummary {
                num_lines,
                num_present: num_lines - lines.len(),
                ..BatchSummary::default()
            },
            todo: lines,
            num_at_a_time: plan.num_at_a_time,
        })
    }

    /// Lines that have no result yet.
    pub fn num_left(&self) -> usize {
        self.todo.len()
    }

    /// Sends the remaining requests to `router`, and reports progress to `log`.
    ///
    /// If dropped before the end, it leaves an output that [`BatchRun::open`] resumes.
    ///
    /// # Errors
    /// For a file that fails, or a server that stopped. Results that were written stay.
    pub async fn run(self, router: Router, log: &Log) -> Result<BatchSummary, BatchError> {
        let Self {
            input,
            mut output,
            todo,
            mut summary,
            num_at_a_time,
        } = self;
        let begun = Instant::now();
        let mut progress = Progress::new(&summary, log);
        let results = stream::iter(todo).map(|line| {
            let (input, router) = (Arc::clone(&input), router.clone());
            async move {
                let read = spawn_blocking(move || input.read(&line).map(|text| (line, text)));
                let (line, text) = read.await.expect("reading a line does not panic")?;
                answer(router, &line, &text).await
            }
        });
        let mut results = std::pin::pin!(results.buffer_unordered(num_at_a_time.get()));
        while let Some(result) = results.next().await {
            let result = result?;
            // A line is short beside the answer's computation, and its order in the file is all
            // that keeps it whole.
            output.write(&result.json)?;
            if result.is_answer {
                summary.num_answered += 1;
            } else {
                summary.num_failed += 1;
            }
            summary.output_tokens += result.output_tokens;
            progress.show(&summary);
        }
        output.finish()?;
        progress.end();
        summary.elapsed = begun.elapsed();
        Ok(summary)
    }
}
