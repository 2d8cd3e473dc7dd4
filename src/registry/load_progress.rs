//! Progress of loading: a bar on a terminal, elsewhere a log line from time to time.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::ByteSize;

/// Time between lines; a faster load has none.
const LINE_PAUSE: Duration = Duration::from_secs(2);
/// Percentage between lines.
const LINE_STEP: u64 = 10;

/// Reports the progress of loading weights.
pub(super) struct LoadProgress {
    total: u64,
    begun: Instant,
    face: Mutex<Face>,
}

enum Face {
    Bar(ProgressBar),
    Lines(Lines),
}

/// Determines when the next line is due.
#[derive(Debug, Default)]
struct Lines {
    done: u64,
    told_percent: u64,
    told_at: Duration,
}

impl LoadProgress {
    /// Creates the progress for weights of `total` bytes.
    pub(super) fn new(total: u64) -> Self {
        let face = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            let style = "loading {bar:32} {bytes}/{total_bytes} {eta} left";
            let style = ProgressStyle::with_template(style).expect("the template is sound");
            bar.set_style(style);
            Face::Bar(bar)
        } else {
            Face::Lines(Lines::default())
        };
        Self {
            total,
            begun: Instant::now(),
            face: Mutex::new(face),
        }
    }

    /// Records that `bytes` more bytes were requested.
    pub(super) fn advance(&self, bytes: u64) {
        let mut face = self.face.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *face {
            Face::Bar(bar) => bar.inc(bytes),
            Face::Lines(lines) => {
                if let Some(percent) = lines.advance(bytes, self.total, self.begun.elapsed()) {
                    tracing::info!("loading: {percent} % of {}", ByteSize(self.total));
                }
            }
        }
    }
}

impl Drop for LoadProgress {
    fn drop(&mut self) {
        let face = self.face.get_mut();
        if let Face::Bar(bar) = face.unwrap_or_else(PoisonError::into_inner) {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    /// Returns the percentage to report, if a line is due.
    fn advance(&mut self, bytes: u64, total: u64, elapsed: Duration) -> Option<u64> {
        self.done = self.done.saturating_add(bytes);
        let percent = self.done.min(total) * 100 / total.max(1);
        let is_due = percent >= self.told_percent + LINE_STEP
            && elapsed.saturating_sub(self.told_at) >= LINE_PAUSE;
        if !is_due {
            return None;
        }
        self.told_percent = percent - percent % LINE_STEP;
        self.told_at = elapsed;
        Some(self.told_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lines for a load of `seconds` in a thousand parts.
    fn told(seconds: u64) -> Vec<u64> {
        let mut lines = Lines::default();
        let at = |part: u64| Duration::from_millis(seconds * part);
        (1..=1000)
            .filter_map(|part| lines.advance(7, 7000, at(part)))
            .collect()
    }

    #[test]
    fn a_long_load_has_a_line_each_tenth() {
        assert_eq!(told(600), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(told(20), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    }

    #[test]
    fn a_short_one_has_few_or_none() {
        assert_eq!(told(1), [0; 0]);
        assert_eq!(told(5), [40, 80]);
    }

    #[test]
    fn nothing_and_more_than_all_are_no_trouble() {
        let mut lines = Lines::default();
        let long = Duration::from_secs(60);
        assert_eq!(lines.advance(0, 0, long), None);
        assert_eq!(lines.advance(u64::MAX, 10, long), Some(100));
        assert_eq!(lines.advance(5, 10, long * 2), None);
    }
}
