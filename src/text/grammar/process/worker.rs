//! A worker process with one grammar. It compiles the grammar on a thread with a deep stack, and
//! computes masks on a few others.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, BufReader, Write};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};

use super::protocol::{Order, Reply};
use crate::core::{TokenId, Urgency};
use crate::error::Error;
use crate::text::child_process::{die_first, limit_cpu, limit_memory, name_process};
use crate::text::grammar::compiler::{GrammarCompiler, GrammarError};
use crate::text::grammar::source::GrammarSource;
use crate::text::grammar::state::{Grammar, GrammarState, shortened};

/// Stack sizes. The library processes grammars by recursion. The checks limit its depth to about
/// 500, for which a stack of 2 MB would be enough.
const COMPILE_STACK: usize = 64 << 20;
const MASK_STACK: usize = 16 << 20;
/// Maximum number of masks that are computed at a time.
const MAX_THREADS: usize = 8;

/// Maximum memory for the grammar and its answers, beyond what all workers share.
const MAX_HEAP: u64 = 128 << 20;
/// CPU time for compiling, and for any mask, after which the kernel ends the process. Whole
/// seconds.
const COMPILE_CPU_SECONDS: u64 = 12;
const MASK_CPU_SECONDS: u64 = 6;

/// Work that takes longer than this continues with a low priority.
const FOREGROUND: Duration = Duration::from_millis(20);
const BACKGROUND_NICENESS: i32 = 10;
const GUARD_EVERY: Duration = Duration::from_millis(10);

/// Serves the server at the other end of `socket` until it closes the socket, then ends the
/// process.
pub(super) fn run(socket: UnixStream, compiler: Arc<GrammarCompiler>) -> ! {
    // Standard input is the fork server's control socket, which a worker must not use.
    if let Ok(nothing) = fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(nothing);
    }
    name_process(c"grammar");
    let num_threads = available_parallelism().map_or(1, NonZeroUsize::get);
    let num_threads = num_threads.clamp(1, MAX_THREADS);
    let stacks = COMPILE_STACK + (num_threads + 2) * MASK_STACK;
    limit_memory(MAX_HEAP + stacks as u64);
    limit_cpu(COMPILE_CPU_SECONDS);
    die_first();
    let worked =
        Worker::start(&socket, compiler, num_threads).and_then(|worker| worker.work(socket));
    exit(i32::from(worked.is_err()));
}

/// State that the threads share.
struct Worker {
    compiler: Arc<GrammarCompiler>,
    num_threads: usize,
    queue: Mutex<VecDeque<MaskOrder>>,
    is_ordered: Condvar,
    answers: Mutex<HashMap<u64, GrammarState>>,
    /// The grammar, once it is compiled.
    grammar: OnceLock<Grammar>,
    replies: Mutex<UnixStream>,
    guard: Guard,
}

struct MaskOrder {
    answer: u64,
    num_left: usize,
    urgency: Urgency,
    sampled: Vec<TokenId>,
}

impl Worker {
    fn start(
        socket: &UnixStream,
        compiler: Arc<GrammarCompiler>,
        num_threads: usize,
    ) -> io::Result<Arc<Self>> {
        let worker = Arc::new(Self {
            compiler,
            num_threads,
            queue: Mutex::default(),
            is_ordered: Condvar::new(),
            answers: Mutex::default(),
            grammar: OnceLock::new(),
            replies: Mutex::new(socket.try_clone()?),
            guard: Guard::default(),
        });
        let guarded = Arc::clone(&worker);
        thread::Builder::new().spawn(move || guarded.guard.watch())?;
        Ok(worker)
    }

    /// Processes orders until the server is gone or closes the socket. The process then ends, even
    /// if threads still compute.
    fn work(self: Arc<Self>, socket: UnixStream) -> io::Result<()> {
        let mut orders = BufReader::new(socket);
        loop {
            match Order::read(&mut orders)? {
                Order::Compile(source) => {
                    let worker = Arc::clone(&self);
                    thread::Builder::new()
                        .stack_size(COMPILE_STACK)
                        .spawn(move || end_on_panic(|| worker.compile(&source)))?;
                }
                Order::Mask {
                    answer,
                    num_left,
                    urgency,
                    sampled,
                } => {
                    locked(&self.queue).push_back(MaskOrder {
                        answer,
                        num_left: usize::try_from(num_left).unwrap_or(usize::MAX),
                        urgency,
                        sampled,
                    });
                    self.is_ordered.notify_one();
                }
                Order::Forget { answer } => drop(locked(&self.answers).remove(&answer)),
            }
        }
    }

    fn compile(self: &Arc<Self>, source: &GrammarSource) {
        let compiled = {
            let _working = self.guard.begin(Priority::Foreground);
            self.compiler.compile_unchecked(source)
        };
        let started = compiled.and_then(|grammar| {
            let is_first = self.grammar.set(grammar).is_ok();
            assert!(is_first, "a worker has one grammar");
            (0..self.num_threads)
                .try_for_each(|_| self.start_thread())
                .map_err(|error| GrammarError::new(shortened(&error)))
        });
        match started {
            Ok(()) => {
                limit_cpu(MASK_CPU_SECONDS);
                let private_bytes = private_bytes();
                let least_tokens = self.grammar.get().map_or(0, Grammar::least_tokens);
                self.reply(&Reply::Compiled {
                    private_bytes,
                    least_tokens: least_tokens as u64,
                });
            }
            Err(error) => {
                self.reply(&Reply::Refused(error));
                exit(0);
            }
        }
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let worker = Arc::clone(self);
        let make_masks = move || {
            loop {
                let order = worker.next_order();
                let working = worker.guard.begin(match order.urgency {
                    Urgency::Now => Priority::Foreground,
                    Urgency::Background => Priority::Background,
                });
                worker.make_mask(order);
                if working.end() == Priority::Background {
                    // A thread cannot raise its priority again, so a new thread starts with the
                    // process's priority.
                    return worker
                        .start_thread()
                        .expect("this thread makes room for it");
                }
            }
        };
        let thread = thread::Builder::new().stack_size(MASK_STACK);
        thread.spawn(|| end_on_panic(make_masks)).map(drop)
    }

    fn next_order(&self) -> MaskOrder {
        let mut queue = locked(&self.queue);
        loop {
            match queue.pop_front() {
                Some(order) => return order,
                None => {
                    let woken = self.is_ordered.wait(queue);
                    queue = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn make_mask(&self, order: MaskOrder) {
        let MaskOrder {
            answer,
            num_left,
            sampled,
            ..
        } = order;
        let begun = thread_cpu_time();
        let state = locked(&self.answers).remove(&answer);
        let grammar = self.grammar.get();
        let grammar = grammar.expect("these threads start behind the grammar");
        let mut state = state.unwrap_or_else(|| grammar.begin());
        let made = state.next(&sampled, num_left);
        let reply = match made {
            Ok(mask) => {
                locked(&self.answers).insert(answer, state);
                let cpu = thread_cpu_time().saturating_sub(begun);
                Reply::Mask { answer, cpu, mask }
            }
            Err(Error::Constraint { num_tokens, reason }) => Reply::Ended {
                answer,
                num_tokens,
                reason,
            },
            Err(error) => Reply::Ended {
                answer,
                num_tokens: 0,
                reason: error.to_string(),
            },
        };
        // Each mask has its own time limit.
        limit_cpu(MASK_CPU_SECONDS);
        self.reply(&reply);
    }

    fn reply(&self, reply: &Reply) {
        let bytes = reply.to_bytes();
        if locked(&self.replies).write_all(&bytes).is_err() {
            // The server is gone.
            exit(0);
        }
    }
}

/// The priority of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    Foreground,
    Background,
}

/// Lowers the priority of threads with long computations, so that the model's threads run first.
#[derive(Default)]
struct Guard {
    working: Mutex<Vec<WorkingThread>>,
    is_working: Condvar,
}

struct WorkingThread {
    id: rustix::process::Pid,
    since: Instant,
    priority: Priority,
}

/// Held by a thread while it computes.
struct Working<'g>(&'g Guard);

impl Guard {
    fn begin(&self, priority: Priority) -> Working<'_> {
        let id = this_thread();
        if priority == Priority::Background {
            lower_priority(id);
        }
        let mut working = locked(&self.working);
        working.push(WorkingThread {
            id,
            since: Instant::now(),
            priority,
        });
        if working.len() == 1 {
            self.is_working.notify_one();
        }
        Working(self)
    }

    fn watch(&self) {
        loop {
            let mut working = locked(&self.working);
            while working.is_empty() {
                let woken = self.is_working.wait(working);
                working = woken.unwrap_or_else(PoisonError::into_inner);
            }
            for thread in &mut *working {
                let is_late = thread.since.elapsed() > FOREGROUND;
                if is_late && thread.priority == Priority::Foreground {
                    thread.priority = Priority::Background;
                    lower_priority(thread.id);
                }
            }
            drop(working);
            thread::sleep(GUARD_EVERY);
        }
    }
}

impl Working<'_> {
    fn end(self) -> Priority {
        let id = this_thread();
        let working = locked(&self.0.working);
        let thread = working.iter().find(|thread| thread.id == id);
        thread.map_or(Priority::Foreground, |thread| thread.priority)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let id = this_thread();
        locked(&self.0.working).retain(|thread| thread.id != id);
    }
}

/// Lowers a thread's priority. On systems without thread priorities it does nothing.
fn lower_priority(thread: rustix::process::Pid) {
    #[cfg(target_os = "linux")]
    let _ = setpriority_process(Some(thread), BACKGROUND_NICENESS);
    #[cfg(not(target_os = "linux"))]
    let _ = thread;
}

#[cfg(target_os = "linux")]
fn this_thread() -> rustix::process::Pid {
    rustix::thread::gettid()
}

#[cfg(not(target_os = "linux"))]
fn this_thread() -> rustix::process::Pid {
    rustix::process::getpid()
}

/// Runs `work` and ends the process if it panics, so that the server notices. Otherwise an answer
/// would wait for a reply that never arrives.
fn end_on_panic(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        exit(1);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Returns the memory that only this process uses; 0 if the kernel does not report it.
fn private_bytes() -> u64 {
    let read = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = read
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
