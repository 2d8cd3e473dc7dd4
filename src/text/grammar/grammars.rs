//! Cache of compiled grammars: each recent grammar is compiled once.

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

/// Maximum number of cached grammars. An application sends the same few again and again.
const MAX_KEPT: usize = 32;
/// Grammars that take more memory than this are not cached.
const MAX_KEPT_BYTES: u64 = 32 << 20;

/// How often waiting requests check whether a slow grammar can be displaced.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Compiles grammars for one model and caches recent ones.
#[derive(Debug)]
pub struct Grammars {
    place: Executor,
    /// In order of use; the most recent is last.
    kept: Mutex<Vec<Kept>>,
}

/// Limits on the processes that work on grammars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrammarLimits {
    /// Maximum number of grammar processes, including cached ones; at least 1.
    pub max_processes: usize,
    /// Maximum number of processes that do long computations at a time; at least 1.
    pub num_turns: usize,
}

/// Where grammars are compiled and evaluated.
#[derive(Debug)]
enum Executor {
    Here(GrammarCompiler),
    Processes {
        server: Arc<ForkServer>,
        /// Bounds the number of workers.
        places: Arc<Semaphore>,
    },
}

#[derive(Clone, Debug)]
struct Kept {
    /// Hash of the source and of the salt.
    digest: [u8; 32],
    /// Whether it was requested again after its creation.
    is_known: bool,
    grammar: Arc<OnceCell<Compiled>>,
}

#[derive(Clone, Debug)]
enum Compiled {
    Here(Arc<dyn Constraint>),
    Process(Arc<GrammarProcess>),
}

/// Returns the index of the entry to drop first, among those that `may_go` selects. Entries that
/// were requested only once go first, so that many new grammars do not displace those that an
/// application uses repeatedly. Among equals, the least recently used goes first.
fn dispensable(kept: &[Kept], may_go: impl Fn(&Kept) -> bool) -> Option<usize> {
    let is_new = |kept: &Kept| may_go(kept) && !kept.is_known;
    let new = kept.iter().position(is_new);
    new.or_else(|| kept.iter().position(may_go))
}

impl Grammars {
    /// Compiles and evaluates grammars in this process, on the calling thread, with its time,
    /// memory and stack. For tests and measurements.
    pub fn here(compiler: GrammarCompiler) -> Self {
        Self {
            place: Executor::Here(compiler),
            kept: Mutex::default(),
        }
    }

    /// Compiles each grammar in a process of its own. Takes up to seconds, until everything is
    /// ready for the first one. `program` is the `medgemma` binary, which is started once more.
    ///
    /// # Errors
    /// If processes cannot be started, or no grammar works with the vocabulary.
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

    /// Compiles `source`, or returns the cached grammar for the same `salt`. Concurrent calls for
    /// the same source wait for one compilation. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the source, and where; or that no process is available now.
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

    /// Waits for a place for one more process. To free one, drops an idle cached grammar, else
    /// displaces a slow one.
    async fn place(
        &self,
        server: &ForkServer,
        places: &Arc<Semaphore>,
    ) -> std::result::Result<OwnedSemaphorePermit, GrammarError> {
        let until = Instant::now() + COMPILE_TIME;
        // Acquired once, so that waiting requests are served in order of arrival.
        let mut place = pin!(Arc::clone(places).acquire_owned());
        let mut wait = Duration::ZERO;
        while Instant::now() < until {
            if let Ok(Ok(place)) = timeout(wait, &mut place).await {
                return Ok(place);
            }
            // Each waiting request frees one place; the request that has waited longest gets it.
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

    /// Ends a process that no answer uses. Returns whether there was one.
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

    /// Returns the entry of a digest, which may be new.
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
            // Answers that still use it continue.
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
