//! Progress of a batch: a bar on a terminal, elsewhere a log line from time to time.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::BatchSummary;
use crate::log::Log;

/// Between lines, where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(10);

/// Writes to stderr, so that results can go to stdout.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines { log: Log, last: Instant },
}

impl Progress {
    pub(super) fn new(summary: &BatchSummary, log: &Log) -> Self {
        let begun = Instant::now();
        if !io::stderr().is_terminal() {
            return Self {
                begun,
                display: Display::Lines {
                    log: log.clone(),
                    last: begun,
                },
            };
        }
        let bar = ProgressBar::new(summary.num_lines as u64);
        let style =
            ProgressStyle::with_template("{bar:32} {pos}/{len} {msg} {elapsed}, {eta} left");
        bar.set_style(style.expect("the template is sound"));
        bar.set_position(summary.num_present as u64);
        // What was there before says nothing of the pace.
        bar.reset_eta();
        Self {
            begun,
            display: Display::Bar(bar),
        }
    }

    pub(super) fn show(&mut self, summary: &BatchSummary) {
        let num_done = summary.num_present + summary.num_answered + summary.num_failed;
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        let pace = summary.output_tokens as f64 / seconds;
        let message = format!("{} failed, {pace:.0} tokens/s", summary.num_failed);
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_position(num_done as u64);
                bar.set_message(message);
            }
            Display::Lines { log, last } if last.elapsed() >= LINE_PAUSE => {
                *last = Instant::now();
                log.line(&format!("{num_done} of {}, {message}", summary.num_lines));
            }
            Display::Lines { .. } => {}
        }
    }

    pub(super) fn end(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}
