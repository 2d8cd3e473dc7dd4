//! Models from the hub: downloaded from an imitation on loopback, kept in the cache that Python
//! keeps, found again.

mod cache;
mod cuts;
mod downloads;
mod imitation;
mod program;
mod python;
mod refusals;
mod serving;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use medgemma::config::{
    HubAccess, HubConfig, HubToken, ProgressOutput, PullConfig, Retries, TokenChoice,
};
use medgemma::error::{Error, HubProblem};
use medgemma::registry::{self, Pulled};
use serde_json::json;

use imitation::{Ask, Gate, Host, Imitation, Repo, etag};

const ID: &str = "tests/tiny";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository with a model that can be served.
fn noise() -> Repo {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/noise");
    let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    for (name, text) in [
        ("README.md", "read me"),
        (".gitattributes", "*.bin lfs"),
        ("pytorch_model.bin", "not this one"),
        ("gemma.gguf", "nor this"),
    ] {
        files.insert(name.to_owned(), text.into());
    }
    Repo {
        commit: COMMIT.to_owned(),
        files,
        gate: Gate::Open,
    }
}

const SHARDS: [&str; 3] = [
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
];

/// A model with weights in three files, of random bytes: enough to download, not to serve.
fn sharded(seed: u64, shard_len: usize) -> Repo {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut repo = noise();
    repo.files.remove("model.safetensors");
    let weight_map: BTreeMap<String, &str> = SHARDS
        .into_iter()
        .enumerate()
        .map(|(idx, shard)| (format!("tensor{idx}"), shard))
        .collect();
    let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
    let name = "model.safetensors.index.json".to_owned();
    repo.files.insert(name, index.into_bytes());
    for shard in SHARDS {
        let mut bytes = vec![0; shard_len + random.usize(..shard_len)];
        random.fill(&mut bytes);
        repo.files.insert(shard.to_owned(), bytes);
    }
    repo
}

/// Files that a model needs, of all that a repository has.
fn needed(repo: &Repo) -> BTreeMap<&str, &[u8]> {
    let files = repo.files.iter();
    files
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .filter(|(name, _)| name.ends_with(".json") || name.ends_with(".safetensors"))
        .collect()
}

/// Patient, and quick about it.
fn settings(hub: &Imitation, cache: &Path) -> PullConfig {
    PullConfig {
        model: ID.to_owned(),
        models_file: None,
        hub: HubConfig {
            endpoint: hub.url(),
            cache: cache.to_owned(),
            revision: None,
            token: TokenChoice::None,
            access: HubAccess::Online,
            stall_timeout: Duration::from_secs(10),
            retries: Retries {
                max_attempts: 4,
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_secs(2),
            },
            progress: ProgressOutput::LogOnly,
        },
    }
}

fn with_token(mut settings: PullConfig, token: &str) -> PullConfig {
    settings.hub.token = TokenChoice::Given(HubToken(token.to_owned()));
    settings
}

/// Why a download came to nothing.
fn refused(settings: &PullConfig) -> (HubProblem, String) {
    match registry::pull(settings) {
        Err(Error::Hub { problem, message }) => (problem, message),
        other => panic!("{other:?}"),
    }
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("models--tests--tiny")
}

/// Where a file's bytes are while they come.
fn partial(cache: &Path, repo: &Repo, name: &str) -> PathBuf {
    let etag = etag(name, &repo.files[name]);
    folder(cache)
        .join("blobs")
        .join(format!("{etag}.incomplete"))
}

/// All that is needed is there, byte for byte, and nothing is half there.
fn assert_whole(pulled: &Pulled, repo: &Repo, cache: &Path) {
    assert_eq!(pulled.dir, folder(cache).join("snapshots").join(COMMIT));
    let found: BTreeMap<String, Vec<u8>> = fs::read_dir(&pulled.dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected = needed(repo);
    assert_eq!(names, expected.keys().copied().collect::<Vec<_>>());
    for (name, bytes) in &found {
        assert!(*bytes == expected[name.as_str()], "{name} has other bytes");
    }
    for blob in fs::read_dir(folder(cache).join("blobs")).unwrap() {
        let name = blob.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains('.'), "{name} was left behind");
    }
    let revision = fs::read_to_string(folder(cache).join("refs/main")).unwrap();
    assert_eq!(revision, COMMIT);
}

/// Whether it asks for a file's bytes where they are.
fn is_for_bytes(ask: &Ask) -> bool {
    let is_large = ask.file.as_deref().is_some_and(imitation::is_large);
    ask.method == "GET" && ask.file.is_some() && (is_large == (ask.host == Host::Storage))
}
