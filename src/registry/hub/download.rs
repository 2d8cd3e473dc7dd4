//! Downloads a model's files from the hub into the cache.
//!
//! Determines the order of downloads and the handling of failures. The small files are downloaded
//! first, so that the caller can check them before gigabytes follow.

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
use super::repository::{Commit, RepoId, Revision};
use super::response_error::Failure;
use super::retry_policy::RetryPolicy;
use crate::config::{ByteSize, HubAccess, HubConfig, Retries};
use crate::error::{Error, HubProblem, Result};

/// Number of files downloaded in parallel.
const NUM_AT_A_TIME: usize = 8;
/// Threads for hashing and TLS; enough for any network.
const NUM_THREADS: usize = 4;
/// Time between checks of another process's lock.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// A model in the cache.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Snapshot {
    /// Directory in the hub's layout.
    pub(in crate::registry) dir: PathBuf,
    pub(in crate::registry) commit: Commit,
}

/// Returns the revision that the settings name.
///
/// # Errors
/// Returns `Config` for an invalid revision name.
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

/// Returns the model, if the cache has all of it. Makes no requests.
///
/// # Errors
/// Returns `Config` for an invalid revision name.
pub(in crate::registry) fn cached(config: &HubConfig, repo: &RepoId) -> Result<Option<Snapshot>> {
    let revision = revision(config)?;
    let folder = HubCache::new(&config.cache).repo(repo);
    let commit = folder.commit_of(&revision);
    Ok(commit.and_then(|commit| {
        let dir = folder.snapshot(&commit);
        needed_files::is_complete(&dir).then_some(Snapshot { dir, commit })
    }))
}

/// Downloads the hub's current version of the model, except for files that are in the cache. `look`
/// is called with the small files before the weights are downloaded, and may refuse them. Blocks
/// the thread until done.
///
/// # Errors
/// Returns `Hub` with the cause and what to do; `Config` for invalid settings; the errors of
/// `look`.
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
                "{repo} at revision {revision} is not in {}, or is incomplete, and HF_HUB_OFFLINE \
                 is set. Run `medgemma pull {repo}` with network access.",
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
    // After an error, other threads may be in the middle of a write; do not wait for a hanging
    // disk.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// State of one download.
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

        // The index lists the remaining files; then all sizes are known.
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

    /// Requests the descriptions of files, in the order of their names.
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

    /// Downloads files that are not in the cache, some in parallel.
    async fn get(self: &Arc<Self>, commit: &Commit, files: &[RemoteFile]) -> Result<()> {
        let commit = commit.clone();
        let get = move |session: Arc<Self>, file: RemoteFile| {
            let commit = commit.clone();
            async move { session.get_one(&commit, &file).await }
        };
        self.each(files.to_vec(), get, |()| {}).await
    }

    /// Runs `work` on each input, some in parallel. The first error cancels the others.
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
            // The previous holder of the lock may have downloaded it.
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

    /// Whether the file's bytes are in the cache under one of their final names, which they get
    /// only once they are verified.
    fn is_here(&self, commit: &Commit, file: &RemoteFile) -> bool {
        let has_size = |path: PathBuf| path.metadata().is_ok_and(|found| found.len() == file.size);
        has_size(self.folder.blob(&file.etag))
            || has_size(self.folder.snapshot(commit).join(&file.name))
    }

    async fn lock(&self, file: &RemoteFile) -> Result<BlobLock> {
        /// Number of silent checks before a message: small files are ready soon.
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

    /// Downloads a file's bytes, continuing a partial download.
    async fn bring(
        &self,
        commit: &Commit,
        file: &RemoteFile,
        progress: &mut FileProgress<'_>,
    ) -> Result<()> {
        let blob = self.folder.blob(&file.etag);
        let mut retry_policy = RetryPolicy::new(self.retries);
        let mut num_mismatches = 0;
        // ETag of the host that sent the beginning.
        let mut host_etag = None;
        // Reading a partial file takes time proportional to its size.
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
            // An attempt that brought new bytes does not count as failed.
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

    /// Handles bytes that do not match the file's hash. The first time, the cause may be the
    /// partial file or the connection.
    fn mismatch(&self, file: &RemoteFile, rejected: Rejected, num_mismatches: u32) -> Failure {
        let what = match rejected {
            Rejected::Disk(error) => return Failure::Final(error),
            Rejected::TooLong => "it is longer than it should be".to_owned(),
            Rejected::Hash(Mismatch { found, expected }) => {
                format!("its hash is {found}, where it should be {expected}")
            }
        };
        if num_mismatches < 2 {
            return Failure::transient(what);
        }
        Failure::is_final(
            HubProblem::Damaged,
            format!(
                "{}: {}: {what}, after {num_mismatches} downloads. It was discarded. A proxy \
                 changes the data, or the file on {} is damaged.",
                self.repo,
                file.name,
                self.endpoint.name()
            ),
        )
    }

    /// Downloads over one connection; `Ok` when the last byte is there.
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
                    return Err(Failure::transient(format!(
                        "it is longer than its {size} bytes"
                    )));
                }
            }
        }
        if partial.is_whole() {
            return Ok(());
        }
        Err(Failure::transient(format!(
            "the connection was closed after {} of {} bytes",
            partial.len(),
            file.size
        )))
    }

    /// Waits for as long as the failure requires.
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

    /// Returns the number of bytes to download.
    ///
    /// # Errors
    /// Returns `Hub` when the disk has not enough space for them.
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
