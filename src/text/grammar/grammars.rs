//! The grammars of late: each compiled once, and kept while there is room.

use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::compiler::{GrammarCompiler, GrammarError, GrammarErrorKind, check};
use super::process::{COMPILE_TIME, ForkServer, GrammarProcess};
use super::source::GrammarSource;
use super::vocabulary::GrammarVocabulary;
use crate::core::{CacheSalt, Constraint};
use crate::error::Result;

/// Grammars that are kept: an application sends the same few again and again.
const MAX_KEPT: usize = 32;
/// Of one that takes more memory than this, nothing is kept.
const MAX_KEPT_BYTES: u64 = 32 << 20;

/// How often those who wait for room look whether somebody takes long.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Compiles grammars for one model, and keeps those of late.
#[derive(Debug)]
pub struct Grammars {
    place: Executor,
    /// The one that was asked for last is the last.
    kept: Mutex<Vec<Kept>>,
}

/// How many processes work on grammars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrammarLimits {
    /// Grammars at a time, those that are only kept included; at least 1.
    pub max_processes: usize,
    /// Of those that compute for long, so many do so at a time; at least 1.
    pub num_turns: usize,
}

/// Where grammars are compiled and followed.
#[derive(Debug)]
enum Executor {
    Here(GrammarCompiler),
    Processes {
        server: Arc<ForkServer>,
        /// For so many workers at a time.
        places: Arc<Semaphore>,
    },
}

#[derive(Clone, Debug)]
struct Kept {
    /// Of the source, and of whom it is kept for.
    digest: [u8; 32],
    /// Whether it was asked for again.
    is_known: bool,
    grammar: Arc<OnceCell<Compiled>>,
}

#[derive(Clone, Debug)]
enum Compiled {
    Here(Arc<dyn Constraint>),
    Process(Arc<GrammarProcess>),
}

/// Which of those that `may_go` goes first: one that was asked for only once, so that many new grammars
/// do not drive out those which an application uses again and again; of several, the one that was
/// asked for longest ago.
fn dispensable(kept: &[Kept], may_go: impl Fn(&Kept) -> bool) -> Option<usize> {
    let is_new = |kept: &Kept| may_go(kept) && !kept.is_known;
    let new = kept.iter().position(is_new);
    new.or_else(|| kept.iter().position(may_go))
}

impl Grammars {
    /// Grammars that are compiled and followed in this process, by whoever asks: what they take of
    /// time, memory and stack is taken of it. For tests and measurements.
    pub fn here(compiler: GrammarCompiler) -> Self {
        Self {
            place: Executor::Here(compiler),
            kept: Mutex::default(),
        }
    }

    /// Grammars of which each has a process of its own. Takes up to seconds, until all is ready for
    /// the first one. `program` is the `medgemma` binary, which is started once more.
    ///
    /// # Errors
    /// When processes cannot be had, or the vocabulary fits no grammar.
    pub fn in_processes(
        program: &Path,
        vocabulary: GrammarVocabulary,
        limits: GrammarLimits,
    ) -> Result<Self> {
        let server = ForkServer::start(program.to_owned(), vocabulary, limits.num_turns)?;
        let place = Executor::Processes {
            server: Arc::new(server),
            places: Arc::new(Semaphore::new(limits.max_processes)),
        };
        Ok(Self {
            place,
            kept: Mutex::default(),
        })
    }

    /// Compiles `source`, or finds what was compiled of it for the same `salt`. Whoever asks for the
    /// same while it is compiled waits for that. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the source, and where; or that there is no place for it now.
    pub async fn compile(
        &self,
        source: GrammarSource,
        salt: Option<CacheSalt>,
    ) -> std::result::Result<Arc<dyn Constraint>, GrammarError> {
        let checked = spawn_blocking(move || {
            check(&source)?;
            Ok((source.digest(salt), source))
        });
        let checked = checked
            .await
            .map_err(|error| GrammarError::of_kind(GrammarErrorKind::Failed, error.to_string()))?;
        let (digest, source) = checked?;
        let kept = self.kept(digest);
        let compiled = kept.grammar.get_or_try_init(|| self.compile_new(source));
        let compiled = compiled.await;
        let is_worth_keeping = match &compiled {
            Ok(Compiled::Here(_)) => true,
            Ok(Compiled::Process(process)) => {
                process.is_alive() && process.private_bytes() <= MAX_KEPT_BYTES
            }
            Err(_) => false,
        };
        if !is_worth_keeping {
            self.locked()
                .retain(|other| !Arc::ptr_eq(&other.grammar, &kept.grammar));
        }
        Ok(match compiled?.clone() {
            Compiled::Here(grammar) => grammar,
            Compiled::Process(process) => process,
        })
    }

    async fn compile_new(
        &self,
        source: GrammarSource,
    ) -> std::result::Result<Compiled, GrammarError> {
        match &self.place {
            Executor::Here(compiler) => Ok(Compiled::Here(Arc::new(
                compiler.compile_unchecked(&source)?,
            ))),
            Executor::Processes { server, places } => {
                let place = self.place(server, places).await?;
                let process = GrammarProcess::compile(server, source, place).await?;
                Ok(Compiled::Process(Arc::new(process)))
            }
        }
    }

    /// Room for one process more. What is kept and not used makes it, or else what takes long.
    async fn place(
        &self,
        server: &ForkServer,
        places: &Arc<Semaphore>,
    ) -> std::result::Result<OwnedSemaphorePermit, GrammarError> {
        let until = Instant::now() + COMPILE_TIME;
        // Asked for once, so that those who wait get theirs in the order in which they came.
        let mut place = pin!(Arc::clone(places).acquire_owned());
        let mut wait = Duration::ZERO;
        while Instant::now() < until {
            if let Ok(Ok(place)) = timeout(wait, &mut place).await {
                return Ok(place);
            }
            // One for each that waits; whoever waits for longest gets it.
            if !self.let_one_go() {
                server.displace_slowest();
            }
            wait = LOOK_EVERY;
        }
        let busy = "the server works on as many grammars as it can: try again later";
        Err(GrammarError::of_kind(
            GrammarErrorKind::Busy,
            busy.to_owned(),
        ))
    }

    /// Ends a process that no answer is bound to. Returns whether there was one.
    fn let_one_go(&self) -> bool {
        let mut kept = self.locked();
        let is_idle = |kept: &Kept| match kept.grammar.get() {
            Some(Compiled::Process(process)) => process.is_idle(),
            Some(Compiled::Here(_)) | None => false,
        };
        let Some(idx) = dispensable(&kept, is_idle) else {
            return false;
        };
        kept.remove(idx);
        true
    }

    /// The entry of a digest, which may be new.
    fn kept(&self, digest: [u8; 32]) -> Kept {
        let mut kept = self.locked();
        let is_gone = |kept: &Kept| match kept.grammar.get() {
            Some(Compiled::Process(process)) => !process.is_alive(),
            Some(Compiled::Here(_)) | None => false,
        };
        kept.retain(|kept| !is_gone(kept));
        let known = kept.iter().position(|kept| kept.digest == digest);
        let entry = match known {
            Some(idx) => Kept {
                is_known: true,
                ..kept.remove(idx)
            },
            None => Kept {
                digest,
                is_known: false,
                grammar: Arc::default(),
            },
        };
        if kept.len() == MAX_KEPT {
            // Answers that are bound to it go on.
            let idx = dispensable(&kept, |_| true).expect("there are some");
            kept.remove(idx);
        }
        kept.push(entry.clone());
        entry
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
