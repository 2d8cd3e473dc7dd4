//! The cache as others see it, and as they leave it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hf_hub::{Cache, Repo as HfRepo, RepoType};
use medgemma::config::{Command, HubAccess};
use medgemma::error::{Error, HubProblem};
use medgemma::registry::{self, RepoId, find_removal};
use serde_json::Value;

use super::imitation::{Imitation, etag};
use super::{COMMIT, ID, folder, noise, settings, sharded};

fn pulled() -> (Imitation, tempfile::TempDir) {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    registry::pull(&settings(&hub, cache.path())).unwrap();
    (hub, cache)
}

#[test]
fn hf_hub_finds_what_was_pulled() {
    let (_hub, cache) = pulled();
    let of = |revision: &str| {
        let repo = HfRepo::with_revision(ID.to_owned(), RepoType::Model, revision.to_owned());
        Cache::new(cache.path().to_owned()).repo(repo)
    };
    let path = of("main").get("model.safetensors").unwrap();
    assert_eq!(fs::read(path).unwrap(), noise().files["model.safetensors"]);
    assert!(of("main").get("README.md").is_none());
    assert!(of("other").get("config.json").is_none());
}

#[test]
fn what_hf_hub_lays_down_is_found_offline() {
    let hub = Imitation::start();
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::new(root.path().to_owned()).model(ID.to_owned());
    cache.create_ref(COMMIT).unwrap();
    let snapshot = folder(root.path()).join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    let repo = noise();
    for (name, bytes) in &repo.files {
        let etag = etag(name, bytes);
        let blob = folder(root.path()).join("blobs").join(&etag);
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(&blob, bytes).unwrap();
        symlink(Path::new("../../blobs").join(etag), snapshot.join(name)).unwrap();
    }
    let mut settings = settings(&hub, root.path());
    settings.hub.access = HubAccess::Offline;
    assert_eq!(registry::pull(&settings).unwrap().dir, snapshot);
    // Online nothing has to come either.
    hub.put(ID, repo);
    settings.hub.access = HubAccess::Online;
    registry::pull(&settings).unwrap();
    assert!(hub.asked().iter().all(|ask| !super::is_for_bytes(ask)));
}

#[test]
fn revisions_are_found_by_branch_and_commit() {
    let (hub, cache) = pulled();
    let mut settings = settings(&hub, cache.path());
    settings.hub.revision = Some("refs/pr/3".to_owned());
    registry::pull(&settings).unwrap();
    assert!(folder(cache.path()).join("refs/refs/pr/3").is_file());
    settings.hub.access = HubAccess::Offline;
    for revision in ["main", "refs/pr/3", COMMIT] {
        settings.hub.revision = Some(revision.to_owned());
        let dir = registry::pull(&settings).unwrap().dir;
        assert!(
            dir.ends_with(Path::new("snapshots").join(COMMIT)),
            "{revision}"
        );
    }
    settings.hub.revision = Some("v9".to_owned());
    assert!(registry::pull(&settings).is_err());
}

#[test]
fn a_snapshot_without_links_is_as_good() {
    let (hub, cache) = pulled();
    // As huggingface_hub leaves it where a file system has no links.
    let snapshot = folder(cache.path()).join("snapshots").join(COMMIT);
    for name in super::needed(&noise()).keys() {
        let link = snapshot.join(name);
        let blob = link.canonicalize().unwrap();
        fs::remove_file(&link).unwrap();
        fs::rename(blob, link).unwrap();
    }
    hub.asked();
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    super::assert_whole(&pulled, &noise(), cache.path());
    assert!(hub.asked().iter().all(|ask| !super::is_for_bytes(ask)));
}

#[test]
fn a_blob_that_was_cut_off_comes_again() {
    let (hub, cache) = pulled();
    let name = "model.safetensors";
    let blob = folder(cache.path())
        .join("blobs")
        .join(etag(name, &noise().files[name]));
    fs::write(&blob, "cut").unwrap();
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    super::assert_whole(&pulled, &noise(), cache.path());
}

/// What the table or object of `medgemma models` says of this cache.
fn listed(cache: &Path, options: &[&str]) -> (String, Value) {
    let cache = cache.to_str().unwrap();
    let arguments = [&["medgemma", "models", "--download-dir", cache], options].concat();
    match medgemma::config::parse(arguments.into_iter().map(Into::into)) {
        Ok(Command::Models(config)) => {
            let listing = registry::Listing::new(&config).unwrap();
            let object = serde_json::from_str(&listing.to_json()).unwrap();
            (listing.to_string(), object)
        }
        other => panic!("{other:?}"),
    }
}

fn entry<'a>(object: &'a Value, hub: &str) -> &'a Value {
    let models = object["models"].as_array().unwrap();
    models.iter().find(|model| model["hub"] == hub).unwrap()
}

#[test]
fn what_is_cached_is_listed_with_its_size() {
    let (hub, cache) = pulled();
    // Half a named model, and something that is no model of ours.
    let half = cache.path().join("models--google--gemma-3-270m/blobs");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("abc.incomplete"), vec![0; 3 << 20]).unwrap();
    let other = cache.path().join("models--a--bert/snapshots/1");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    fs::create_dir_all(cache.path().join("datasets--a--b")).unwrap();

    let (table, object) = listed(cache.path(), &[]);
    // Where the cache is may be longer, in the last line.
    let lines: Vec<&str> = table.lines().collect();
    let (_, rows) = lines.split_last().unwrap();
    assert!(
        rows.iter().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    let row = |name: &str| {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {table}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("demo"), "demo tiny - yes on request - built in");
    assert!(row("gemma-3-270m").ends_with(" partly"));
    assert!(row("medgemma-4b-it").starts_with("medgemma-4b-it 4.3 B 131072 yes never "));
    assert!(row("medgemma-4b-it").ends_with(" -"));
    let sizes: usize = super::needed(&noise())
        .values()
        .map(|bytes| bytes.len())
        .sum();
    assert!(row(ID).ends_with(" 892 KiB"), "{} {sizes}", row(ID));
    assert!(!table.contains("bert"), "{table}");
    assert!(table.contains("On the hub: google/NAME\n"), "{table}");
    assert!(table.contains(cache.path().to_str().unwrap()), "{table}");

    let tiny = &entry(&object, ID)["cached"];
    assert_eq!(tiny["state"], "complete");
    assert_eq!(tiny["bytes"], sizes);
    assert_eq!(tiny["revisions"][0]["commit"], COMMIT);
    assert_eq!(tiny["revisions"][0]["names"][0], "main");
    let half = &entry(&object, "google/gemma-3-270m")["cached"];
    assert_eq!(half["state"], "partial");
    assert_eq!(half["bytes"], 3 << 20);
    assert_eq!(object["cache"]["bytes"], sizes + (3 << 20));
    drop(hub);
}

#[test]
fn memory_is_told_for_length_and_numbers() {
    let cache = tempfile::tempdir().unwrap();
    let memory = |options: &[&str], name: &str| {
        let (_, object) = listed(cache.path(), options);
        entry(&object, &format!("google/{name}"))["memory"].clone()
    };
    let usual = memory(&[], "medgemma-4b-it");
    let long = memory(&["--max-model-len", "131072"], "medgemma-4b-it");
    let cpu = memory(&["--dtype", "f32"], "medgemma-4b-it");
    let number = |memory: &Value, field: &str| memory[field].as_u64().unwrap();
    for memory in [&usual, &long, &cpu] {
        assert_eq!(number(memory, "weights"), 2 * 4_300_079_472);
        let sum = ["weights", "workspace", "kv_cache"].map(|field| number(memory, field));
        assert_eq!(number(memory, "total"), sum.iter().sum::<u64>());
    }
    // 5 of 34 layers keep all tokens: 8192 of them, then 131072; 4 heads of 256 numbers, twice.
    let per_token = 5 * 4 * 256 * 2 * 2;
    let more = number(&long, "kv_cache") - number(&usual, "kv_cache");
    assert_eq!(more, (131_072 - 8192) * per_token);
    assert_eq!(number(&cpu, "kv_cache"), 2 * number(&usual, "kv_cache"));
    // Longer than its context.
    assert!(memory(&["--max-model-len", "131072"], "gemma-3-1b-it").is_null());
}

#[test]
fn a_model_goes_with_all_that_is_its_own() {
    let (_hub, cache) = pulled();
    let other = cache.path().join("models--tests--other");
    fs::create_dir(&other).unwrap();
    let id = RepoId::parse(ID).unwrap();
    let removal = find_removal(cache.path(), &id, None).unwrap();
    let sizes: usize = super::needed(&noise())
        .values()
        .map(|bytes| bytes.len())
        .sum();
    assert_eq!(removal.num_bytes, sizes as u64);
    assert_eq!(removal.name(), ID);
    // Nothing goes before it is said.
    assert!(folder(cache.path()).exists());
    removal.run().unwrap();
    assert!(!folder(cache.path()).exists());
    assert!(other.exists());
    match find_removal(cache.path(), &id, None) {
        Err(Error::Hub { problem, message }) => {
            assert_eq!(problem, HubProblem::NotFound);
            assert!(message.contains(ID), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_revision_goes_without_what_others_need() {
    let (hub, cache) = pulled();
    let mut next = sharded(3, 5000);
    next.commit = "e".repeat(40);
    hub.put(ID, next.clone());
    registry::pull(&settings(&hub, cache.path())).unwrap();
    let id = RepoId::parse(ID).unwrap();
    let removal = find_removal(cache.path(), &id, Some(COMMIT)).unwrap();
    // All but the weights is the same in both.
    assert_eq!(
        removal.num_bytes,
        noise().files["model.safetensors"].len() as u64
    );
    removal.run().unwrap();
    let mut settings = settings(&hub, cache.path());
    settings.hub.access = HubAccess::Offline;
    let dir = registry::pull(&settings).unwrap().dir;
    for (name, bytes) in super::needed(&next) {
        assert_eq!(fs::read(dir.join(name)).unwrap(), bytes, "{name}");
    }
    assert!(!folder(cache.path()).join("snapshots").join(COMMIT).exists());
    // The last one takes all with it.
    find_removal(cache.path(), &id, Some("main"))
        .unwrap()
        .run()
        .unwrap();
    assert!(!folder(cache.path()).exists());
}

#[test]
fn removing_follows_no_link() {
    let (_hub, cache) = pulled();
    let outside = tempfile::tempdir().unwrap();
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    // Links out of the folder, to a file and to a folder.
    symlink(&kept, folder(cache.path()).join("blobs/link")).unwrap();
    symlink(outside.path(), folder(cache.path()).join("snapshots/link")).unwrap();
    let id = RepoId::parse(ID).unwrap();
    find_removal(cache.path(), &id, None)
        .unwrap()
        .run()
        .unwrap();
    assert!(!folder(cache.path()).exists());
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
    // A folder that is itself a link is somebody's own doing.
    symlink(outside.path(), folder(cache.path())).unwrap();
    let error = find_removal(cache.path(), &id, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is a link"), "{error}");
    assert!(kept.exists());
}

#[test]
fn what_is_being_downloaded_is_not_removed() {
    let (_hub, cache) = pulled();
    let locks = cache.path().join(".locks/models--tests--tiny");
    let lock = fs::read_dir(locks).unwrap().next().unwrap().unwrap().path();
    let held = fs::File::options().write(true).open(lock).unwrap();
    held.lock().unwrap();
    let id = RepoId::parse(ID).unwrap();
    let removal = || find_removal(cache.path(), &id, None).unwrap();
    let error = removal().run().unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    assert!(folder(cache.path()).join("refs/main").exists());
    drop(held);
    removal().run().unwrap();
}
