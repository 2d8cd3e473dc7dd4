//! Asynchronous log writer: a bounded queue and a thread that writes to stderr. Lines are dropped
//! rather than blocking.
//!
//! ```text
//!  tracing, panics, errors ───── line ─▶ queue (bounded) ─▶ thread "log" ─▶ stderr
//!                                 │ full                      │ cannot be written
//!                                 └────── dropped, counted ───┘
//! ```
//! Logging never blocks and never fails: a pipe whose reader is gone or stalls, a full
//! disk or a closed stderr costs lines, not answers. Knows nothing of what is written.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum bytes in the queue: seconds of a busy server's log, and little beside a model.
const MAX_QUEUED_BYTES: usize = 256 << 10;

/// Pause between two attempts to write to an output that would block and cannot be polled.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A handle to the log. Cheap to clone; all clones share one queue.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A line came, or one was written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Box<[u8]>>,
    num_bytes: usize,
    /// Whether a line has left the queue and is being written.
    is_writing: bool,
    num_dropped: u64,
}

impl Log {
    /// A log that is written to stderr.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn to_stderr() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    /// A log that is written to `out`.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || queue.write_all(out))?;
        Ok(Self { shared })
    }

    /// Queues a line, given without its line break.
    pub fn line(&self, text: &str) {
        self.shared.push(format!("{text}\n").into_bytes().into());
    }

    /// Lines that were lost: the queue was full, or they could not be written.
    pub fn num_dropped(&self) -> u64 {
        self.shared.lock().num_dropped
    }

    /// Waits until all queued lines are written or lost, at most this long.
    pub fn flush(&self, at_most: Duration) {
        let end = Instant::now() + at_most;
        let mut queue = self.shared.lock();
        while queue.is_writing || !queue.lines.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return;
            };
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// A panic cannot leave the data inside inconsistent.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Box<[u8]>) {
        let mut queue = self.lock();
        if queue.num_bytes + line.len() > MAX_QUEUED_BYTES {
            queue.num_dropped += 1;
            return;
        }
        queue.num_bytes += line.len();
        queue.lines.push_back(line);
        self.changed.notify_all();
    }

    /// The loop of the writing thread.
    fn write_all(&self, mut out: impl Write) {
        let mut is_cut = false;
        let mut queue = self.lock();
        loop {
            let Some(line) = queue.lines.pop_front() else {
                let waited = self.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.num_bytes -= line.len();
            queue.is_writing = true;
            drop(queue);
            let written = write_line(&mut out, &line, &mut is_cut);
            queue = self.lock();
            queue.is_writing = false;
            queue.num_dropped += u64::from(written.is_err());
            self.changed.notify_all();
        }
    }
}

/// Writes a line; `is_cut` says whether the last one broke off, which this one must not continue.
fn write_line(out: &mut impl Write, line: &[u8], is_cut: &mut bool) -> io::Result<()> {
    let end = usize::from(*is_cut);
    let parts = [&b"\n"[..end], line];
    for part in parts {
        let mut rest = part;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => {
                    *is_cut = true;
                    rest = &rest[len..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody else who has this terminal or pipe made it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
    }
    *is_cut = false;
    out.flush()
}

/// One event of the log. The subscriber writes each with one call.
#[derive(Debug)]
pub struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.shared.push(bytes.into());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An output that responds to each write as the test says, and records what was written.
    struct Scripted {
        answers: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = self.answers.recv().unwrap_or(Ok(usize::MAX))?;
            let len = len.min(bytes.len());
            let _ = self.written.send(bytes[..len].to_vec());
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (Log, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let (answer, answers) = channel();
        let (written, told) = channel();
        let log = Log::to(Scripted { answers, written }).expect("a thread");
        (log, answer, told)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_stalled_end_costs_lines_and_no_time() {
        let (log, answer, told) = scripted();
        let line = "x".repeat(1023);
        // The first is with the thread or in the queue: it has room for it either way.
        for _ in 0..1000 {
            log.line(&line);
        }
        let num_dropped = log.num_dropped();
        assert!((743..=744).contains(&num_dropped), "{num_dropped}");
        log.flush(Duration::from_millis(1));
        drop(answer);
        log.flush(LONG);
        assert_eq!(told.try_iter().count() as u64, 1000 - num_dropped);
        assert_eq!(log.num_dropped(), num_dropped);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_are_whole() {
        let (log, answer, told) = scripted();
        for reply in [
            Ok(3),
            Err(ErrorKind::StorageFull.into()),
            Err(ErrorKind::BrokenPipe.into()),
            Err(ErrorKind::WouldBlock.into()),
        ] {
            answer.send(reply).expect("the log goes on");
        }
        drop(answer);
        for line in ["first", "second", "third"] {
            log.line(line);
        }
        log.flush(LONG);
        let text = told.try_iter().collect::<Vec<_>>().concat();
        assert_eq!(String::from_utf8(text).unwrap(), "fir\nthird\n");
        assert_eq!(log.num_dropped(), 2);
    }
}
