//! Progress of a download: on a terminal a bar per file and one for the total, elsewhere a log line
//! from time to time.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::repository::RepoId;
use crate::config::{ByteSize, ProgressOutput};

/// Minimum size of files with a bar; smaller ones finish before a bar could be read.
const LEAST_BAR_BYTES: u64 = 8 << 20;
/// Maximum length of a name in a bar, so that the line fits in 80 columns.
const NAME_COLUMNS: usize = 32;
/// Time between lines: SHORT_PAUSE if also a hundredth more was downloaded, else LONG_PAUSE.
const SHORT_PAUSE: Duration = Duration::from_secs(5);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// Reports the progress of a download.
pub(super) struct Progress {
    repo: RepoId,
    display: Display,
    begun: Instant,
    num_files: AtomicUsize,
    num_done: AtomicUsize,
    total: AtomicU64,
    here: AtomicU64,
    /// Part of `here` that was in the cache already.
    found: AtomicU64,
}

enum Display {
    Bars {
        all: MultiProgress,
        sum: ProgressBar,
    },
    Lines {
        line: Line,
        last: Mutex<(Instant, u64)>,
    },
}

/// Destination of lines.
#[derive(Clone, Copy)]
enum Line {
    Stderr,
    Log,
}

/// Progress of one file.
pub(super) struct FileProgress<'a> {
    of: &'a Progress,
    bar: Option<ProgressBar>,
    name: &'a str,
    size: u64,
    here: u64,
}

impl Progress {
    pub(super) fn new(output: ProgressOutput, repo: &RepoId) -> Self {
        let line = match output {
            ProgressOutput::Stderr | ProgressOutput::PlainLines => Line::Stderr,
            ProgressOutput::Log | ProgressOutput::LogOnly => Line::Log,
        };
        let may_draw = matches!(output, ProgressOutput::Stderr | ProgressOutput::Log);
        let begun = Instant::now();
        let display = if may_draw && io::stderr().is_terminal() {
            let all = MultiProgress::new();
            let sum = all.add(ProgressBar::new(0));
            sum.set_style(style(
                "{msg:12!} {bar:16} {percent:>3} % of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
            ));
            Display::Bars { all, sum }
        } else {
            Display::Lines {
                line,
                last: Mutex::new((begun, 0)),
            }
        };
        Self {
            repo: repo.clone(),
            display,
            begun,
            num_files: AtomicUsize::new(0),
            num_done: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            here: AtomicU64::new(0),
            found: AtomicU64::new(0),
        }
    }

    /// Reports the size of the download: `here` of `total` bytes are in the cache already.
    pub(super) fn begin(&self, num_files: usize, total: u64, here: u64) {
        self.num_files.store(num_files, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        // An index that was read already is not worth mentioning.
        let resumed = match here * 100 >= total {
            true => format!(", of which {} are here", ByteSize(here)),
            false => String::new(),
        };
        self.say(&format!(
            "{}: {num_files} files, {}{resumed}",
            self.repo,
            ByteSize(total)
        ));
        if let Display::Bars { sum, .. } = &self.display {
            sum.set_length(total);
            sum.set_message(format!("0 of {num_files}"));
            sum.reset_eta();
        }
    }

    /// Writes a message, between bars or lines.
    pub(super) fn say(&self, text: &str) {
        match &self.display {
            // Ignored if it cannot be shown.
            Display::Bars { all, .. } => drop(all.println(text)),
            Display::Lines { line, .. } => line.write(text),
        }
    }

    /// Like [`Self::say`], for messages that may need attention.
    pub(super) fn warn(&self, text: &str) {
        match &self.display {
            Display::Lines {
                line: Line::Log, ..
            } => tracing::warn!("{text}"),
            _ => self.say(text),
        }
    }

    /// Starts reporting a file.
    pub(super) fn file<'a>(&'a self, name: &'a str, size: u64) -> FileProgress<'a> {
        let bar = match &self.display {
            Display::Bars { all, sum } if size >= LEAST_BAR_BYTES => {
                let bar = all.insert_before(sum, ProgressBar::new(size));
                bar.set_style(style("{msg:32!} {bar:16} {percent:>3} % of {total_bytes}"));
                bar.set_message(shortened(name));
                Some(bar)
            }
            _ => None,
        };
        FileProgress {
            of: self,
            bar,
            name,
            size,
            here: 0,
        }
    }

    /// Reports the end. Says nothing if everything was in the cache already.
    pub(super) fn end(&self) {
        if let Display::Bars { sum, .. } = &self.display {
            sum.finish_and_clear();
        }
        let came = self.came();
        if came > 0 {
            let seconds = self.begun.elapsed().as_secs_f64();
            self.say(&format!(
                "{}: {} files are here, {} came in {} ({}/s)",
                self.repo,
                self.num_files.load(Ordering::Relaxed),
                ByteSize(came),
                time(self.begun.elapsed()),
                ByteSize((came as f64 / seconds.max(1e-3)) as u64)
            ));
        }
    }

    /// Number of useful bytes that came over the network.
    fn came(&self) -> u64 {
        let found = self.found.load(Ordering::Relaxed);
        self.here.load(Ordering::Relaxed).saturating_sub(found)
    }

    fn show(&self) {
        let here = self.here.load(Ordering::Relaxed);
        match &self.display {
            Display::Bars { sum, .. } => sum.set_position(here),
            Display::Lines { line, last } => {
                let total = self.total.load(Ordering::Relaxed);
                // If another thread is writing a line, that one is enough.
                let Ok(mut last) = last.try_lock() else {
                    return;
                };
                let (when, then) = *last;
                let pause = when.elapsed();
                let is_due = pause >= LONG_PAUSE
                    || (pause >= SHORT_PAUSE && here.saturating_sub(then) * 100 >= total);
                if is_due && here < total {
                    *last = (Instant::now(), here);
                    let pace = here.saturating_sub(then) as f64 / pause.as_secs_f64();
                    line.write(&self.line(here, total, pace));
                }
            }
        }
    }

    fn line(&self, here: u64, total: u64, pace: f64) -> String {
        let left = match pace {
            pace if pace >= 1.0 => {
                let seconds = total.saturating_sub(here) as f64 / pace;
                format!(", {} left", time(Duration::from_secs_f64(seconds.min(1e9))))
            }
            _ => String::new(),
        };
        format!(
            "{}: {} % of {}, {} of {} files, {}/s{left}",
            self.repo,
            here * 100 / total.max(1),
            ByteSize(total),
            self.num_done.load(Ordering::Relaxed),
            self.num_files.load(Ordering::Relaxed),
            ByteSize(pace as u64)
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The bars are removed, since an error message follows.
        if let Display::Bars { all, .. } = &self.display {
            drop(all.clear());
        }
    }
}

impl FileProgress<'_> {
    /// Records the number of bytes that were in the cache already.
    pub(super) fn found(&mut self, here: u64) {
        self.of.found.fetch_add(here, Ordering::Relaxed);
        self.at(here);
        if let Display::Bars { sum, .. } = &self.of.display {
            // Cached bytes say nothing about the speed.
            sum.reset_eta();
        }
    }

    /// Records the number of bytes that are present now.
    pub(super) fn at(&mut self, here: u64) {
        if here >= self.here {
            self.of.here.fetch_add(here - self.here, Ordering::Relaxed);
        } else {
            self.of.here.fetch_sub(self.here - here, Ordering::Relaxed);
        }
        self.here = here;
        if let Some(bar) = &self.bar {
            bar.set_position(here);
        }
        self.of.show();
    }

    /// Records that the file is complete.
    pub(super) fn done(mut self) {
        self.at(self.size);
        let num_done = self.of.num_done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Display::Bars { all, sum } = &self.of.display {
            sum.set_message(format!(
                "{num_done} of {}",
                self.of.num_files.load(Ordering::Relaxed)
            ));
            if let Some(bar) = &self.bar {
                bar.finish_and_clear();
                all.remove(bar);
                drop(all.println(format!("{} {}", self.name, ByteSize(self.size))));
            }
        }
    }
}

impl Drop for FileProgress<'_> {
    fn drop(&mut self) {
        if let (Some(bar), Display::Bars { all, .. }) = (&self.bar, &self.of.display) {
            all.remove(bar);
        }
    }
}

impl Line {
    fn write(self, text: &str) {
        match self {
            // Ignored if it cannot be shown.
            Self::Stderr => drop(writeln!(io::stderr(), "{text}")),
            Self::Log => tracing::info!("{text}"),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is sound")
        .progress_chars("━╸ ")
}

/// Returns the end of a long name, which distinguishes shards.
fn shortened(name: &str) -> String {
    match name.len().checked_sub(NAME_COLUMNS) {
        None | Some(0) => name.to_owned(),
        Some(_) => format!("…{}", &name[name.len() - (NAME_COLUMNS - 1)..]),
    }
}

/// Formats a duration: 75 s as 1 min 15 s.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (75, "1 min 15 s"),
            (3599, "59 min 59 s"),
            (7320, "2 h 2 min"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn lines_fit_a_terminal() {
        let repo = RepoId::parse("google/medgemma-27b-text-it").unwrap();
        let progress = Progress::new(ProgressOutput::LogOnly, &repo);
        progress.begin(23, 55 << 30, 0);
        progress.num_done.store(21, Ordering::Relaxed);
        let line = progress.line(50 << 30, 55 << 30, 123_456_789.0);
        assert_eq!(
            line,
            "google/medgemma-27b-text-it: 90 % of 55.0 GiB, 21 of 23 files, 118 MiB/s, 43 s left"
        );
        assert!(shortened("model-00001-of-00002.safetensors").len() <= 32);
        let long = shortened("a-very-long-prefix-model-00001-of-00002.safetensors");
        assert_eq!(long, "…odel-00001-of-00002.safetensors");
    }

    #[test]
    fn bytes_are_counted_once() {
        let repo = RepoId::parse("a/b").unwrap();
        let progress = Progress::new(ProgressOutput::LogOnly, &repo);
        progress.begin(2, 30, 0);
        let mut file = progress.file("x", 20);
        file.found(5);
        file.at(15);
        // The server started again from the beginning.
        file.at(0);
        file.at(10);
        file.done();
        let mut other = progress.file("y", 10);
        other.found(10);
        other.done();
        assert_eq!(progress.here.load(Ordering::Relaxed), 30);
        assert_eq!(progress.came(), 15);
        assert_eq!(progress.num_done.load(Ordering::Relaxed), 2);
    }
}
