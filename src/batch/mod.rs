//! Many requests from a file, their answers into another: OpenAI's batch format, line by line.
//!
//! ```text
//! in.jsonl ─ input ─▶ requests ─▶ router (as many at a time as the engine takes) ─▶ output ─ out.jsonl
//!            └ which are there already? ◀────────────────────────────────────────── output
//! ```
//! Owns the two files and the pace. The server is a function from request to response, handed in;
//! nothing here knows models. A run that was killed goes on where it was: the output is the only
//! state, each of its lines is written whole, and a last line that was cut off is dropped.

mod answer;
mod error;
mod input;
mod output;
mod progress;
mod result_line;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::stream::{self, StreamExt};
use tokio::task::spawn_blocking;

use self::answer::answer;
pub use self::error::BatchError;
use self::input::{Input, InputLine};
use self::output::Output;
use self::progress::Progress;
use crate::config::Place;
use crate::log::Log;

/// What to do.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// Requests, one on a line.
    pub input: Place,
    /// Results, one on a line, in the order in which they came.
    pub output: Place,
    /// Requests that run at a time.
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

/// Both files, read and checked; nothing has been asked yet.
#[derive(Debug)]
pub struct Batch {
    input: Arc<Input>,
    output: Output,
    todo: Vec<InputLine>,
    summary: BatchSummary,
    num_at_a_time: NonZeroUsize,
}

impl Batch {
    /// Reads the input once and looks up what is done.
    ///
    /// # Errors
    /// Files that cannot be used, ids that stand twice, and an output of another input.
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

    /// Asks `router` for everything that is left, and tells `log` how far it is.
    ///
    /// Dropped on the way, it leaves an output that [`Batch::open`] goes on with.
    ///
    /// # Errors
    /// A file that fails, or a server that takes no more requests. What was written stays.
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
