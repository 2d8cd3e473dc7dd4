//! A model's files from the hub into the cache.
//!
//! Owns the order in which things come and what happens when they do not. The small files come
//! first: whoever asked may look at them and stop before gigabytes follow.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use super::blob::{BlobLock, PartialBlob, Rejected};
use super::cache::{HubCache, RepoFolder};
use super::digest::Mismatch;
use super::disk::{self, MAKE_ROOM};
use super::endpoint::{Begin, Endpoint, RemoteFile};
use super::needed_files::{self, INDEX, MAX_INDEX_BYTES, NeededFiles};
use super::progress::{FileProgress, Progress};
use super::refusal::Failure;
use super::repository::{Commit, RepoId, Revision};
use super::retry_policy::RetryPolicy;
use crate::config::{ByteSize, HubAccess, HubConfig, Retries};
use crate::error::{Error, HubProblem, Result};

/// Files at a time.
const NUM_AT_A_TIME: usize = 8;
/// For hashing and TLS; more than any network feeds.
const NUM_THREADS: usize = 4;
/// Between looks at another process's lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A model in the cache.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Snapshot {
    /// In the hub's layout.
    pub(in crate::registry) dir: PathBuf,
    pub(in crate::registry) commit: Commit,
}

/// The version that the settings name.
///
/// # Errors
/// `Config` for what no version can be called.
fn revision(config: &HubConfig) -> Result<Revision> {
    match &config.revision {
        None => Ok(Revision::main()),
        Some(text) => Revision::parse(text).ok_or_else(|| {
            Error::Config(format!(
                "--revision is {text}: it must be a branch, a tag or a commit"
            ))
        }),
    }
}

/// The model, if the cache has all of it. Asks nobody.
///
/// # Errors
/// `Config` for what no revision can be called.
pub(in crate::registry) fn cached(config: &HubConfig, repo: &RepoId) -> Result<Option<Snapshot>> {
    let revision = revision(config)?;
    let folder = HubCache::new(&config.cache).repo(repo);
    let commit = folder.commit_of(&revision);
    Ok(commit.and_then(|commit| {
        let dir = folder.snapshot(&commit);
        needed_files::is_complete(&dir).then_some(Snapshot { dir, commit })
    }))
}

/// The model as the hub has it now, downloaded as far as it is not here. `look` sees the small
/// files before the weights come, and may refuse them. Takes as long as it takes of a thread.
///
/// # Errors
/// `Hub` with what went wrong and what to do; `Config` for settings that cannot be; `look`'s own.
pub(in crate::registry) fn fetch(
    config: &HubConfig,
    repo: &RepoId,
    look: &dyn Fn(&Path) -> Result<()>,
) -> Result<Snapshot> {
    let revision = revision(config)?;
    if config.access == HubAccess::Offline {
        return cached(config, repo)?.ok_or_else(|| Error::Hub {
            problem: HubProblem::NotFound,
            message: format!(
                "{repo} at revision {revision} is not in {}, or not all of it, and HF_HUB_OFFLINE \
                 forbids to ask the hub. Run `medgemma pull {repo}` where there is a network.",
                config.cache.display()
            ),
        });
    }
    let session = Arc::new(Session {
        endpoint: Endpoint::new(config)?,
        folder: HubCache::new(&config.cache).repo(repo),
        repo: repo.clone(),
        retries: config.retries,
        progress: Progress::new(config.progress, repo),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NUM_THREADS)
        .thread_name("download")
        .enable_all()
        .build()
        .map_err(|error| Error::Config(format!("no threads to download with: {error}")))?;
    let outcome = runtime.block_on(session.run(&revision, look));
    // After an error others may be in the middle of a write; a disk that hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// One download.
struct Session {
    endpoint: Endpoint,
    folder: RepoFolder,
    repo: RepoId,
    retries: Retries,
    progress: Progress,
}

impl Session {
    async fn run(
        self: &Arc<Self>,
        revision: &Revision,
        look: &dyn Fn(&Path) -> Result<()>,
    ) -> Result<Snapshot> {
        let (commit, names) = self.resolve(revision).await?;
        let not_a_model = |what: String| Error::Hub {
            problem: HubProblem::NotFound,
            message: format!("{} cannot be used: {what}", self.repo),
        };
        let needed = NeededFiles::choose(&names).map_err(not_a_model)?;
        let mut small = self.describe(&commit, needed.small.clone()).await?;
        self.folder.create(&commit)?;

        // The index says what else there is; then all sizes are known.
        let is_index = |file: &RemoteFile| file.name == INDEX;
        let index: Vec<RemoteFile> = small.extract_if(.., |file| is_index(file)).collect();
        if let Some(index) = index.iter().find(|index| index.size > MAX_INDEX_BYTES) {
            return Err(not_a_model(format!(
                "its {INDEX} has {} bytes; at most {MAX_INDEX_BYTES} are read",
                index.size
            )));
        }
        self.check_space(&commit, &index)?;
        self.get(&commit, &index).await?;
        let snapshot = self.folder.snapshot(&commit);
        let weights = needed
            .weights(&names, || {
                std::fs::read(snapshot.join(INDEX)).map_err(|error| error.to_string())
            })
            .map_err(|what| not_a_model(format!("{INDEX}: {what}")))?;
        let weights = self.describe(&commit, weights).await?;

        let all = || index.iter().chain(&small).chain(&weights);
        let ahead = self.check_space(&commit, all())?;
        let total: u64 = all().map(|file| file.size).sum();
        if ahead > 0 {
            self.progress.begin(all().count(), total, total - ahead);
        }
        self.get(&commit, &small).await?;
        look(&snapshot)?;
        self.get(&commit, &weights).await?;
        self.folder.set_commit(revision, &commit)?;
        if ahead > 0 {
            self.progress.end();
        }
        Ok(Snapshot {
            dir: snapshot,
            commit,
        })
    }

    async fn resolve(&self, revision: &Revision) -> Result<(Commit, Vec<String>)> {
        let mut retry_policy = RetryPolicy::new(self.retries);
        loop {
            match self.endpoint.revision(&self.repo, revision).await {
                Ok(info) => return Ok((info.commit, info.names)),
                Err(failure) => {
                    let asked =
                        format!("{} cannot be asked for {}", self.endpoint.name(), self.repo);
                    self.wait(&mut retry_policy, failure, &asked).await?;
                }
            }
        }
    }

    /// Describes files, in the order of their names.
    async fn describe(
        self: &Arc<Self>,
        commit: &Commit,
        names: Vec<String>,
    ) -> Result<Vec<RemoteFile>> {
        let mut described = Vec::with_capacity(names.len());
        let commit = commit.clone();
        let describe = move |session: Arc<Self>, name: String| {
            let commit = commit.clone();
            async move { session.describe_one(&commit, &name).await }
        };
        self.each(names, describe, |file| described.push(file))
            .await?;
        described.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(described)
    }

    async fn describe_one(&self, commit: &Commit, name: &str) -> Result<RemoteFile> {
        let mut retry_policy = RetryPolicy::new(self.retries);
        loop {
            match self.endpoint.describe(&self.repo, commit, name).await {
                Ok(file) => return Ok(file),
                Err(failure) => {
                    let asked = format!("{} cannot be asked for {name}", self.endpoint.name());
                    self.wait(&mut retry_policy, failure, &asked).await?;
                }
            }
        }
    }

    /// Downloads files that are not here, some at a time.
    async fn get(self: &Arc<Self>, commit: &Commit, files: &[RemoteFile]) -> Result<()> {
        let commit = commit.clone();
        let get = move |session: Arc<Self>, file: RemoteFile| {
            let commit = commit.clone();
            async move { session.get_one(&commit, &file).await }
        };
        self.each(files.to_vec(), get, |()| {}).await
    }

    /// Runs `work` on each, some at a time. The first error stops the others where they are.
    async fn each<I, T, F>(
        self: &Arc<Self>,
        inputs: Vec<I>,
        work: impl Fn(Arc<Self>, I) -> F,
        mut take: impl FnMut(T),
    ) -> Result<()>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let mut inputs = inputs.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < NUM_AT_A_TIME
                && let Some(input) = inputs.next()
            {
                running.spawn(work(Arc::clone(self), input));
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(done) => take(done.expect("it neither panics nor is cancelled")?),
            }
        }
    }

    async fn get_one(&self, commit: &Commit, file: &RemoteFile) -> Result<()> {
        let mut progress = self.progress.file(&file.name, file.size);
        if !self.is_here(commit, file) {
            let _lock = self.lock(file).await?;
            // Whoever had the lock may have brought it.
            if !self.is_here(commit, file) {
                self.bring(commit, file, &mut progress).await?;
                self.folder.link(commit, &file.name, &file.etag)?;
                progress.done();
                return Ok(());
            }
        }
        self.folder.link(commit, &file.name, &file.etag)?;
        progress.found(file.size);
        progress.done();
        Ok(())
    }

    /// Whether the file's bytes are here under one of their names, which they have only once they
    /// are right.
    fn is_here(&self, commit: &Commit, file: &RemoteFile) -> bool {
        let has_size = |path: PathBuf| path.metadata().is_ok_and(|found| found.len() == file.size);
        has_size(self.folder.blob(&file.etag))
            || has_size(self.folder.snapshot(commit).join(&file.name))
    }

    async fn lock(&self, file: &RemoteFile) -> Result<BlobLock> {
        /// Looks before something is said: small files are there soon.
        const NUM_SILENT: u32 = 10;
        let path = self.folder.lock_file(&file.etag);
        let mut num_looks = 0;
        loop {
            if let Some(lock) = BlobLock::take(&path)? {
                return Ok(lock);
            }
            num_looks += 1;
            if num_looks == NUM_SILENT {
                let text = format!("{}: another process downloads it; waiting", file.name);
                self.progress.say(&text);
            }
            sleep(LOCK_PAUSE).await;
        }
    }

    /// Downloads a file's bytes, from where they were cut.
    async fn bring(
        &self,
        commit: &Commit,
        file: &RemoteFile,
        progress: &mut FileProgress<'_>,
    ) -> Result<()> {
        let blob = self.folder.blob(&file.etag);
        let mut retry_policy = RetryPolicy::new(self.retries);
        let mut num_mismatches = 0;
        // Of the host that sent the beginning.
        let mut host_etag = None;
        // Reading what is here takes as long as it is large.
        let open = || PartialBlob::open(self.folder.partial(&file.etag), file);
        let mut partial = block_in_place(open)?;
        progress.found(partial.len());
        let mut most = partial.len();
        loop {
            let outcome = self
                .attempt(commit, file, &mut partial, &mut host_etag, progress)
                .await;
            let failure = match outcome {
                Ok(()) => match block_in_place(|| partial.finish(&blob)) {
                    Ok(()) => return Ok(()),
                    Err(rejected) => {
                        num_mismatches += 1;
                        let failure = self.mismatch(file, rejected, num_mismatches);
                        partial = open()?;
                        progress.at(partial.len());
                        host_etag = None;
                        failure
                    }
                },
                Err(failure) => failure,
            };
            // What brought something was not in vain.
            let is_more = partial.len() > most;
            if is_more {
                most = partial.len();
                retry_policy.restore();
            }
            self.wait(&mut retry_policy, failure, &file.name).await?;
            if is_more {
                retry_policy.restore();
            }
        }
    }

    /// The bytes were not the file's. Once that can be the fault of what was here before, or of the
    /// line.
    fn mismatch(&self, file: &RemoteFile, rejected: Rejected, num_mismatches: u32) -> Failure {
        let what = match rejected {
            Rejected::Disk(error) => return Failure::Final(error),
            Rejected::TooLong => "it is longer than it should be".to_owned(),
            Rejected::Hash(Mismatch { found, expected }) => {
                format!("its hash is {found}, where it should be {expected}")
            }
        };
        if num_mismatches < 2 {
            return Failure::passing(what);
        }
        Failure::is_final(
            HubProblem::Damaged,
            format!(
                "{}: {}: {what}, after {num_mismatches} downloads. Nothing of it was kept. Something \
                 on the way changes what comes, or {} has a damaged file.",
                self.repo,
                file.name,
                self.endpoint.name()
            ),
        )
    }

    /// One connection's worth of bytes; `Ok` when the last one is here.
    async fn attempt(
        &self,
        commit: &Commit,
        file: &RemoteFile,
        partial: &mut PartialBlob,
        host_etag: &mut Option<reqwest::header::HeaderValue>,
        progress: &mut FileProgress<'_>,
    ) -> std::result::Result<(), Failure> {
        if partial.is_whole() {
            return Ok(());
        }
        let begin = Begin {
            start: partial.len(),
            host_etag: host_etag.clone(),
        };
        let opened = self.endpoint.open(&self.repo, commit, file, &begin).await;
        let mut opened = opened.or_else(|failure| {
            if matches!(failure, Failure::Part(_)) {
                partial.restart().map_err(Failure::Final)?;
                progress.at(0);
            }
            Err(failure)
        })?;
        if opened.start != partial.len() {
            partial.restart().map_err(Failure::Final)?;
            progress.at(0);
        }
        *host_etag = opened.host_etag.take();
        while let Some(bytes) = opened.next().await? {
            match partial.write(&bytes) {
                Ok(()) => progress.at(partial.len()),
                Err(Rejected::Disk(error)) => return Err(Failure::Final(error)),
                Err(Rejected::TooLong | Rejected::Hash(_)) => {
                    partial.restart().map_err(Failure::Final)?;
                    progress.at(0);
                    let size = file.size;
                    return Err(Failure::passing(format!(
                        "more came than the {size} bytes that it should have"
                    )));
                }
            }
        }
        if partial.is_whole() {
            return Ok(());
        }
        Err(Failure::passing(format!(
            "the connection was closed after {} of {} bytes",
            partial.len(),
            file.size
        )))
    }

    /// Waits for as long as the failure asks for.
    async fn wait(
        &self,
        retry_policy: &mut RetryPolicy,
        failure: Failure,
        asked: &str,
    ) -> Result<()> {
        let (pause, what) = retry_policy.pause(failure, asked)?;
        if pause >= Duration::from_secs(1) {
            let seconds = pause.as_secs_f64();
            self.progress
                .warn(&format!("{asked}: {what}; again in {seconds:.0} s"));
        }
        sleep(pause).await;
        Ok(())
    }

    /// Bytes that have to come.
    ///
    /// # Errors
    /// `Hub` when the disk has no room for them.
    fn check_space<'a>(
        &self,
        commit: &Commit,
        files: impl IntoIterator<Item = &'a RemoteFile>,
    ) -> Result<u64> {
        let missing = files.into_iter().filter(|file| !self.is_here(commit, file));
        let ahead: u64 = missing
            .map(|file| {
                let partial = self.folder.partial(&file.etag).metadata();
                let here = partial.map_or(0, |partial| partial.len());
                file.size.saturating_sub(here)
            })
            .fold(0, u64::saturating_add);
        match disk::free_bytes(self.folder.dir()) {
            Some(free) if ahead > free => Err(Error::Hub {
                problem: HubProblem::Disk,
                message: format!(
                    "{} needs {} more, but the disk of {} has {} free. {MAKE_ROOM}",
                    self.repo,
                    ByteSize(ahead),
                    self.folder.dir().display(),
                    ByteSize(free)
                ),
            }),
            _ => Ok(ahead),
        }
    }
}
