//! Starts and supervises grammar processes: one worker per grammar; requests for masks; limits,
//! pauses and kills.

mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use self::supervisor::Supervisor;
use super::fork_server::Request;
use super::protocol::{Order, Reply, read_greeting, write_vocabulary};
use crate::core::{Constraint, ConstraintState, NextMask, TokenId, TokenMask, Urgency};
use crate::error::{Error, Result};
use crate::text::child_process::spawn;
use crate::text::grammar::compiler::{GrammarError, GrammarErrorKind};
use crate::text::grammar::source::GrammarSource;
use crate::text::grammar::vocabulary::GrammarVocabulary;

/// Work that takes longer than this is long: it shares the turns with other long work.
const SHORT: Duration = Duration::from_millis(30);
/// How long a client waits for its grammar, including others' turns.
pub(in crate::text::grammar) const COMPILE_TIME: Duration = Duration::from_secs(20);
/// How long an answer waits for one mask, including others' turns.
const MASK_TIME: Duration = Duration::from_secs(10);
/// CPU time that an answer's masks may take: an initial amount, and an amount for each token.
const FIRST_CPU: Duration = Duration::from_secs(2);
const CPU_PER_TOKEN: Duration = Duration::from_millis(20);
/// An answer whose last mask took at most this much CPU time does not slow down others. It may have
/// missed a step because the machine was busy, so it must not wait for a turn behind the work that
/// caused this.
const LIGHT: Duration = Duration::from_micros(500);
/// Timeout for sending. A worker reads its messages at once, so one that does not is broken.
const SEND_TIME: Duration = Duration::from_secs(5);

const TOO_COSTLY: &str = "its rule takes too much time or memory";
/// Reason for a grammar that was ended to make room for another.
const DISPLACED: &str = "it takes long, and the server has no more room for other requests' rules";

/// The prepared process that forks workers, and its settings.
#[derive(Debug)]
pub(in crate::text::grammar) struct ForkServer {
    program: PathBuf,
    vocabulary: GrammarVocabulary,
    running: Mutex<Option<Running>>,
    /// Permits of workers with long computations.
    turns: Arc<Semaphore>,
    /// Workers that may be alive.
    workers: Mutex<Vec<Weak<Link>>>,
}

#[derive(Debug)]
struct Running {
    control: UnixStream,
    child: Child,
}

impl ForkServer {
    /// Starts `program` as the fork server and waits until it is ready. At most `num_turns` workers
    /// may do long computations at a time.
    ///
    /// # Errors
    /// If the process cannot be started, or no grammar works with the vocabulary.
    pub(in crate::text::grammar) fn start(
        program: PathBuf,
        vocabulary: GrammarVocabulary,
        num_turns: usize,
    ) -> Result<Self> {
        let running = Running::start(&program, &vocabulary)?;
        Ok(Self {
            program,
            vocabulary,
            running: Mutex::new(Some(running)),
            turns: Arc::new(Semaphore::new(num_turns)),
            workers: Mutex::default(),
        })
    }

    /// Ends the worker that has computed longest, among those with a long computation now, to free
    /// its place for another.
    pub(in crate::text::grammar) fn displace_slowest(&self) {
        let workers = locked(&self.workers);
        let links = workers.iter().filter_map(Weak::upgrade);
        let slow = links.filter(|link| link.is_alive() && link.is_slow.load(Ordering::Acquire));
        let Some(slowest) = slow.max_by_key(|link| *locked(&link.used)) else {
            return;
        };
        drop(workers);
        slowest.is_displaced.store(true, Ordering::Release);
        slowest.close();
        self.request(Request::Kill(slowest.pid));
    }

    fn know(&self, worker: &Arc<Link>) {
        let mut workers = locked(&self.workers);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
    }

    /// Forks a new worker and returns its process id and the socket to it. If the fork server is
    /// gone, starts another one first, which takes up to seconds.
    fn fork(&self) -> Result<(i32, UnixStream)> {
        let mut running = locked(&self.running);
        let mut forked = running.as_mut().map(Running::fork);
        if let None | Some(Err(_)) = forked {
            tracing::warn!("the process for grammars is started again");
            *running = None;
            let server = running.insert(Running::start(&self.program, &self.vocabulary)?);
            forked = Some(server.fork());
        }
        let worker = forked
            .expect("there is one now")
            .map_err(|error| cannot_fork(&error))?;
        worker.ok_or_else(|| cannot_fork(&io::ErrorKind::WouldBlock.into()))
    }

    fn request(&self, request: Request) {
        if let Some(server) = &mut *locked(&self.running) {
            // If this fails, the fork server is gone, and its workers with it.
            let _ = server.control.write_all(&request.to_bytes());
        }
    }
}

fn cannot_fork(error: &io::Error) -> Error {
    Error::Config(format!("no process for grammars can be had: {error}"))
}

impl Running {
    fn start(program: &Path, vocabulary: &GrammarVocabulary) -> Result<Self> {
        Self::try_start(program, vocabulary)
            .map_err(|error| cannot_fork(&error))?
            .map_err(Error::Config)
    }

    fn try_start(
        program: &Path,
        vocabulary: &GrammarVocabulary,
    ) -> io::Result<std::result::Result<Self, String>> {
        let (control, child) = spawn(program, "grammar-worker")?;
        // If anything fails from here on, the child ends when its socket closes.
        let mut server = Self { control, child };
        write_vocabulary(&mut server.control, vocabulary)?;
        let greeting = read_greeting(&mut server.control)?;
        Ok(greeting.map(|()| server))
    }

    /// Forks a worker; `None` if the system cannot create a process.
    fn fork(&mut self) -> io::Result<Option<(i32, UnixStream)>> {
        let (ours, theirs) = UnixStream::pair()?;
        let request = Request::Fork.to_bytes();
        let sockets = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
        assert!(fits, "the space is for one socket");
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(
            &self.control,
            &[IoSlice::new(&request)],
            &mut ancillary,
            flags,
        )?;
        if sent < request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut pid = [0; 4];
        self.control.read_exact(&mut pid)?;
        ours.set_write_timeout(Some(SEND_TIME))?;
        Ok(match i32::from_le_bytes(pid) {
            0 => None,
            pid => Some((pid, ours)),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process and its workers end when the socket closes.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// A worker with a compiled grammar. It ends when the last clone of this is dropped.
#[derive(Clone)]
pub(in crate::text::grammar) struct GrammarProcess {
    worker: Arc<Worker>,
    private_bytes: u64,
    /// Number of tokens of the shortest answer, as far as it is known.
    least_tokens: usize,
}

impl fmt::Debug for GrammarProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarProcess")
            .field("pid", &self.worker.link.pid)
            .finish_non_exhaustive()
    }
}

impl GrammarProcess {
    /// Compiles `source`, which must have passed the checks, in a new process. Dropping the future
    /// stops it.
    ///
    /// # Errors
    /// What is wrong with the source, or that it takes too much time or memory.
    pub(in crate::text::grammar) async fn compile(
        server: &Arc<ForkServer>,
        source: GrammarSource,
        place: OwnedSemaphorePermit,
    ) -> std::result::Result<Self, GrammarError> {
        let forking = Arc::clone(server);
        // Takes a few milliseconds, and a source may be larger than the socket's buffer.
        let started = tokio::task::spawn_blocking(move || {
            let forked = forking.fork()?;
            let worker = Worker::start(forking, forked, place)?;
            let compiled = worker.order(COMPILE_JOB, None, &Order::Compile(source), COMPILE_TIME);
            Ok::<_, Error>((worker, compiled))
        });
        let failed = |reason: &dyn fmt::Display| {
            GrammarError::of_kind(GrammarErrorKind::Failed, reason.to_string())
        };
        let started = started.await.map_err(|error| failed(&error))?;
        let (worker, compiled) = started.map_err(|error| failed(&error))?;
        let process = Self {
            worker,
            private_bytes: 0,
            least_tokens: 0,
        };
        // From here on the compilation takes turns with other slow ones.
        tokio::spawn(process.worker.watch().supervise());
        match compiled.await {
            Ok(Reply::Compiled {
                private_bytes,
                least_tokens,
            }) => Ok(Self {
                private_bytes,
                least_tokens: usize::try_from(least_tokens).unwrap_or(usize::MAX),
                ..process
            }),
            Ok(Reply::Refused(error)) => Err(error),
            Ok(_) => Err(failed(&"the process for grammars said something else")),
            Err(_) if process.worker.link.is_displaced() => Err(GrammarError::of_kind(
                GrammarErrorKind::Busy,
                format!("{DISPLACED}: send a simpler one, or try again later"),
            )),
            Err(_) => Err(GrammarError::new(
                "it takes too much time or memory to compile: send a simpler one".to_owned(),
            )),
        }
    }

    /// Whether new answers can still use it.
    pub(in crate::text::grammar) fn is_alive(&self) -> bool {
        self.worker.link.is_alive()
    }

    /// Whether no answer uses it, and no caller is about to create one.
    pub(in crate::text::grammar) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.worker) == 1
    }

    /// Returns the memory that only the worker used once the grammar was compiled.
    pub(in crate::text::grammar) fn private_bytes(&self) -> u64 {
        self.private_bytes
    }
}

impl Constraint for GrammarProcess {
    fn start(&self) -> Result<Box<dyn ConstraintState>> {
        let answer = self.worker.next_answer.fetch_add(1, Ordering::Relaxed);
        self.worker.link.num_answers.fetch_add(1, Ordering::AcqRel);
        Ok(Box::new(Answer {
            worker: Arc::clone(&self.worker),
            answer,
            num_tokens: 0,
            cpu_left: FIRST_CPU,
            last_cpu: Duration::ZERO,
        }))
    }

    fn least_tokens(&self) -> usize {
        self.least_tokens
    }
}

/// Job id of the compilation. Other jobs have the id of their answer.
const COMPILE_JOB: u64 = 0;

/// The server's end of a worker's socket. It closes when the last reference is dropped.
struct Worker {
    server: Arc<ForkServer>,
    link: Arc<Link>,
    next_answer: AtomicU64,
}

/// State shared by the worker's handles, its reader and its supervisor.
#[derive(Debug)]
struct Link {
    pid: i32,
    socket: UnixStream,
    /// Its place among the allowed workers, while it is alive.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    jobs: Mutex<HashMap<u64, Job>>,
    is_alive: AtomicBool,
    /// Number of answers that have not ended.
    num_answers: AtomicUsize,
    /// Notified when a job arrives or the worker is gone.
    changed: Notify,
    /// Whether it is in a long computation.
    is_slow: AtomicBool,
    /// How long it has computed in turns.
    used: Mutex<Duration>,
    /// Whether it was ended to free its place for another.
    is_displaced: AtomicBool,
}

#[derive(Debug)]
struct Job {
    ordered: Instant,
    /// Deadline.
    until: Instant,
    /// The permit for a long computation, if the job began with one.
    turn: Option<OwnedSemaphorePermit>,
    reply: oneshot::Sender<Reply>,
}

impl Worker {
    fn start(
        server: Arc<ForkServer>,
        (pid, socket): (i32, UnixStream),
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Self>> {
        let read = socket.try_clone().map_err(|error| cannot_fork(&error))?;
        let link = Arc::new(Link::new(pid, socket, Some(place)));
        server.know(&link);
        let vocab_size = server.vocabulary.vocab_size;
        let reader = Arc::clone(&link);
        thread::Builder::new()
            .name("grammar".to_owned())
            .stack_size(256 << 10)
            .spawn(move || reader.read_replies(read, vocab_size))
            .map_err(|error| cannot_fork(&error))?;
        Ok(Arc::new(Self {
            server,
            link,
            next_answer: AtomicU64::new(COMPILE_JOB + 1),
        }))
    }

    /// Sends an order. The reply never arrives if the worker is gone, or is ended for the order.
    fn order(
        &self,
        job: u64,
        turn: Option<OwnedSemaphorePermit>,
        order: &Order,
        time: Duration,
    ) -> oneshot::Receiver<Reply> {
        let (reply, replied) = oneshot::channel();
        let ordered = Instant::now();
        let job_before = locked(&self.link.jobs).insert(
            job,
            Job {
                ordered,
                until: ordered + time,
                turn,
                reply,
            },
        );
        debug_assert!(job_before.is_none(), "one at a time for each answer");
        self.link.changed.notify_one();
        self.link.send(order);
        replied
    }

    fn watch(&self) -> Supervisor {
        Supervisor {
            server: Arc::clone(&self.server),
            link: Arc::clone(&self.link),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An idle worker ends when its socket closes; a computing one has to be killed.
        let is_idle = locked(&self.link.jobs).is_empty();
        self.link.close();
        if !is_idle {
            self.server.request(Request::Kill(self.link.pid));
        }
    }
}

impl Link {
    fn new(pid: i32, socket: UnixStream, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            pid,
            socket,
            place: Mutex::new(place),
            jobs: Mutex::default(),
            is_alive: AtomicBool::new(true),
            num_answers: AtomicUsize::new(0),
            changed: Notify::new(),
            is_slow: AtomicBool::new(false),
            used: Mutex::default(),
            is_displaced: AtomicBool::new(false),
        }
    }

    fn send(&self, order: &Order) {
        if (&self.socket).write_all(&order.to_bytes()).is_err() {
            self.close();
        }
    }

    fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Acquire)
    }

    fn is_displaced(&self) -> bool {
        self.is_displaced.load(Ordering::Acquire)
    }

    /// Marks the worker as gone. All who wait for a reply get an error.
    fn close(&self) {
        self.is_alive.store(false, Ordering::Release);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        locked(&self.jobs).clear();
        drop(locked(&self.place).take());
        self.changed.notify_one();
    }

    fn read_replies(&self, socket: UnixStream, vocab_size: usize) {
        let mut replies = BufReader::with_capacity(64 << 10, socket);
        while let Ok(reply) = Reply::read(&mut replies, vocab_size) {
            let job = match reply {
                Reply::Compiled { .. } | Reply::Refused(_) => COMPILE_JOB,
                Reply::Mask { answer, .. } | Reply::Ended { answer, .. } => answer,
            };
            if let Some(job) = locked(&self.jobs).remove(&job) {
                // If the receiver is gone, the reply is not needed.
                let _ = job.reply.send(reply);
            }
        }
        self.close();
    }
}

/// The state of one answer's grammar.
struct Answer {
    worker: Arc<Worker>,
    answer: u64,
    num_tokens: usize,
    /// CPU time that its masks may still take.
    cpu_left: Duration,
    /// CPU time that the last mask took.
    last_cpu: Duration,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("answer", &self.answer)
            .field("num_tokens", &self.num_tokens)
            .finish_non_exhaustive()
    }
}

impl Answer {
    async fn mask(
        &mut self,
        sampled: &[TokenId],
        num_left: usize,
        urgency: Urgency,
    ) -> Result<TokenMask> {
        self.num_tokens += sampled.len();
        self.cpu_left += CPU_PER_TOKEN * u32::try_from(sampled.len()).unwrap_or(u32::MAX);
        let is_light = self.last_cpu <= LIGHT;
        let (urgency, turn) = match urgency {
            Urgency::Background if !is_light => (urgency, Some(self.turn().await?)),
            Urgency::Background | Urgency::Now => (Urgency::Now, None),
        };
        let order = Order::Mask {
            answer: self.answer,
            num_left: num_left as u64,
            urgency,
            sampled: sampled.to_vec(),
        };
        let reply = self.worker.order(self.answer, turn, &order, MASK_TIME);
        match reply.await {
            Ok(Reply::Mask { cpu, mask, .. }) => {
                self.last_cpu = cpu;
                self.cpu_left = self
                    .cpu_left
                    .checked_sub(cpu)
                    .ok_or_else(|| self.ended(TOO_COSTLY))?;
                Ok(mask)
            }
            Ok(Reply::Ended {
                num_tokens, reason, ..
            }) => Err(Error::Constraint { num_tokens, reason }),
            Err(_) if self.worker.link.is_displaced() => Err(self.ended(DISPLACED)),
            Ok(_) | Err(_) => Err(self.ended(TOO_COSTLY)),
        }
    }

    /// Waits for a permit for long computations.
    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turns = Arc::clone(&self.worker.server.turns);
        let turn = timeout(MASK_TIME, turns.acquire_owned()).await;
        let turn = turn.ok().and_then(|turn| turn.ok());
        turn.ok_or_else(|| self.ended("the server works on as many slow rules as it can"))
    }

    fn ended(&self, reason: &str) -> Error {
        Error::Constraint {
            num_tokens: self.num_tokens,
            reason: reason.to_owned(),
        }
    }
}

impl ConstraintState for Answer {
    fn next_mask<'a>(
        &'a mut self,
        sampled: &'a [TokenId],
        num_left: usize,
        urgency: Urgency,
    ) -> NextMask<'a> {
        Box::pin(async move { self.mask(sampled, num_left, urgency).await.map(Some) })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let answer = self.answer;
        self.worker.link.num_answers.fetch_sub(1, Ordering::AcqRel);
        self.worker.link.send(&Order::Forget { answer });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
