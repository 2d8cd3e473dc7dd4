//! Whole downloads: what is asked for, what is kept, and what is done about a bad line.

use std::fs;
use std::path::Path;
use std::time::Duration;

use medgemma::error::HubProblem;
use medgemma::registry;

use super::imitation::{Ask, Fault, Host, Imitation, etag};
use super::{
    COMMIT, ID, SHARDS, assert_whole, folder, is_for_bytes, noise, partial, refused, settings,
    sharded, with_token,
};

const WEIGHTS: &str = "model.safetensors";

fn is_for(ask: &Ask, name: &str) -> bool {
    is_for_bytes(ask) && ask.file.as_deref() == Some(name)
}

#[test]
fn a_model_comes_whole_and_nothing_else_does() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    for repo in [noise(), sharded(1, 1000)] {
        hub.put(ID, repo.clone());
        let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
        assert_whole(&pulled, &repo, cache.path());
        assert_eq!(pulled.repo, ID);
        let asked = hub.asked();
        for name in ["README.md", "pytorch_model.bin", "gemma.gguf"] {
            assert!(asked.iter().all(|ask| !ask.path.ends_with(name)), "{name}");
        }
        fs::remove_dir_all(folder(cache.path())).unwrap();
    }
}

#[test]
fn what_is_here_does_not_come_again() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    registry::pull(&settings(&hub, cache.path())).unwrap();
    hub.asked();
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    assert_whole(&pulled, &noise(), cache.path());
    assert!(hub.asked().iter().all(|ask| !is_for_bytes(ask)));

    // A new commit with one new file: that one comes, and the old commit stays.
    let mut next = noise();
    next.commit = "f".repeat(40);
    next.files
        .insert("generation_config.json".to_owned(), b"{}".to_vec());
    hub.put(ID, next.clone());
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    let asked = hub.asked();
    let came: Vec<_> = asked.iter().filter(|ask| is_for_bytes(ask)).collect();
    assert_eq!(came.len(), 1, "{came:?}");
    assert!(is_for(came[0], "generation_config.json"));
    assert_eq!(
        fs::read(pulled.dir.join(WEIGHTS)).unwrap(),
        next.files[WEIGHTS]
    );
    assert!(folder(cache.path()).join("snapshots").join(COMMIT).is_dir());
    let revision = fs::read_to_string(folder(cache.path()).join("refs/main"));
    assert_eq!(revision.unwrap(), next.commit);
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    let repo = noise();
    hub.put(ID, repo.clone());
    // As another process left it.
    let half = &repo.files[WEIGHTS][..400_000];
    let file = partial(cache.path(), &repo, WEIGHTS);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, half).unwrap();
    hub.behave(|ask| match ask.num_before {
        0 if is_for(ask, WEIGHTS) => Fault::CutAfter(200_000),
        _ => Fault::None,
    });
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    assert_whole(&pulled, &repo, cache.path());
    let asked = hub.asked();
    let came: Vec<_> = asked.iter().filter(|ask| is_for(ask, WEIGHTS)).collect();
    let ranges: Vec<_> = came.iter().map(|ask| ask.range.as_deref()).collect();
    assert_eq!(ranges, [Some("bytes=400000-"), Some("bytes=600000-")]);
    // What the storage calls its file is known from the second time on.
    let known: Vec<_> = came.iter().map(|ask| ask.if_range.as_deref()).collect();
    let name = format!("\"storage-{}\"", etag(WEIGHTS, &repo.files[WEIGHTS]));
    assert_eq!(known, [None, Some(name.as_str())]);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    registry::pull(&with_token(settings(&hub, cache.path()), "hf_secret")).unwrap();
    let asked = hub.asked();
    assert!(asked.iter().any(|ask| ask.host == Host::Storage));
    for ask in asked {
        let expected = (ask.host == Host::Hub).then_some("Bearer hf_secret");
        assert_eq!(ask.authorization.as_deref(), expected, "{ask:?}");
    }
}

#[test]
fn moved_repositories_are_followed() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let new = super::Repo {
        commit: COMMIT.to_owned(),
        ..noise()
    };
    hub.put("tests/renamed", new);
    hub.behave(|ask| match ask.path.contains(ID) {
        true => Fault::MovedTo(ask.path.replace(ID, "tests/renamed")),
        false => Fault::None,
    });
    let settings = with_token(settings(&hub, cache.path()), "t");
    let pulled = registry::pull(&settings).unwrap();
    // Under the name that was asked for, so that it is found under it.
    assert_whole(&pulled, &noise(), cache.path());
    let asked = hub.asked();
    let moved = asked.iter().filter(|ask| ask.path.contains("renamed"));
    assert!(moved.clone().count() > 5);
    assert!(moved.into_iter().all(|ask| ask.authorization.is_some()));

    hub.behave(|_| Fault::Around);
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::Damaged);
    assert!(
        message.contains("redirects more than 10 times"),
        "{message}"
    );
}

/// One download, during which the weights' first requests go wrong.
fn recovers(faults: Vec<Fault>) {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let num_faults = faults.len();
    let said = format!("{faults:?}");
    hub.behave(move |ask| match faults.get(ask.num_before) {
        Some(fault) if is_for(ask, WEIGHTS) => fault.clone(),
        _ => Fault::None,
    });
    let mut settings = settings(&hub, cache.path());
    settings.hub.stall_timeout = Duration::from_secs(1);
    let pulled = registry::pull(&settings).unwrap_or_else(|error| panic!("{said}: {error}"));
    assert_whole(&pulled, &noise(), cache.path());
    let asked = hub.asked();
    let came = asked.iter().filter(|ask| is_for(ask, WEIGHTS)).count();
    assert!(came > num_faults, "{said}: {came} requests");
}

#[test]
fn passing_troubles_pass() {
    let cut = Fault::CutAfter(1000);
    let after = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    recovers(vec![Fault::Status(500, vec![])]);
    recovers(vec![
        Fault::Status(503, after("0")),
        Fault::Status(429, after("1")),
    ]);
    recovers(vec![Fault::StallAfter(0)]);
    recovers(vec![Fault::StallAfter(5000)]);
    recovers(vec![Fault::OtherBytes]);
    recovers(vec![Fault::Longer(1)]);
    recovers(vec![Fault::Longer(100_000)]);
    recovers(vec![Fault::Shorter(0)]);
    recovers(vec![Fault::Shorter(5000)]);
    recovers(vec![cut.clone(), Fault::OtherBytes]);
    // Each brings something: together they are more than patience is for.
    recovers(vec![cut; 9]);
}

#[test]
fn a_server_that_knows_no_parts_sends_the_whole() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    hub.behave(|ask| match ask.num_before {
        0 if is_for(ask, WEIGHTS) => Fault::CutAfter(500_000),
        _ if is_for(ask, WEIGHTS) => Fault::WholeFile,
        _ => Fault::None,
    });
    let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
    assert_whole(&pulled, &noise(), cache.path());
}

#[test]
fn a_part_that_cannot_be_had_comes_with_the_rest() {
    for fault in [Fault::OtherPart, Fault::Status(416, vec![])] {
        let hub = Imitation::start();
        let cache = tempfile::tempdir().unwrap();
        hub.put(ID, noise());
        hub.behave(move |ask| match ask.num_before {
            0 if is_for(ask, WEIGHTS) => Fault::CutAfter(500_000),
            _ if ask.range.is_some() => fault.clone(),
            _ => Fault::None,
        });
        let pulled = registry::pull(&settings(&hub, cache.path())).unwrap();
        assert_whole(&pulled, &noise(), cache.path());
    }
}

#[test]
fn lasting_troubles_end_and_keep_what_came() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    let repo = noise();
    hub.put(ID, repo.clone());
    let weights = partial(cache.path(), &repo, WEIGHTS);
    let settings = settings(&hub, cache.path());
    let fail = |fault: fn(usize) -> Fault| {
        hub.asked();
        hub.behave(move |ask| match is_for(ask, WEIGHTS) {
            true => fault(ask.num_before),
            false => Fault::None,
        });
        let failed = refused(&settings);
        let asked = hub.asked();
        let num_asked = asked.iter().filter(|ask| is_for(ask, WEIGHTS)).count();
        (failed.0, failed.1, num_asked)
    };

    let (problem, message, num_asked) = fail(|_| Fault::OtherBytes);
    assert_eq!((problem, num_asked), (HubProblem::Damaged, 2));
    assert!(
        message.contains(WEIGHTS) && message.contains("its hash is"),
        "{message}"
    );
    assert!(
        message.contains(&etag(WEIGHTS, &repo.files[WEIGHTS])),
        "{message}"
    );
    assert!(!weights.exists() || fs::read(&weights).unwrap().is_empty());

    let (problem, message, num_asked) = fail(|nth| match nth {
        0 => Fault::CutAfter(7000),
        _ => Fault::Status(502, vec![]),
    });
    // The one that brought something does not count.
    assert_eq!((problem, num_asked), (HubProblem::Network, 1 + 4));
    assert!(message.contains("502 (4 attempts)"), "{message}");
    assert_eq!(fs::read(&weights).unwrap(), repo.files[WEIGHTS][..7000]);

    let (problem, message, num_asked) =
        fail(|_| Fault::Status(429, vec![("retry-after", "86400".to_owned())]));
    assert_eq!((problem, num_asked), (HubProblem::Network, 1));
    assert!(message.contains("retry in 86400 s"), "{message}");

    // What is not whole has no name.
    assert!(!folder(cache.path()).join("refs/main").exists());
    hub.behave(|_| Fault::None);
    let pulled = registry::pull(&settings).unwrap();
    assert_whole(&pulled, &repo, cache.path());
}

#[test]
fn a_file_that_changes_meanwhile_is_not_mixed() {
    let hub = Imitation::start();
    hub.put(ID, noise());
    for name in [WEIGHTS, "config.json"] {
        let cache = tempfile::tempdir().unwrap();
        hub.behave(move |ask| {
            let is_changed = ask.method == "GET" && ask.path.ends_with(name);
            match is_changed && ask.host == Host::Hub {
                true => Fault::OtherEtag,
                false => Fault::None,
            }
        });
        let (problem, message) = refused(&settings(&hub, cache.path()));
        assert_eq!(problem, HubProblem::Damaged);
        assert!(
            message.contains(name) && message.contains("Start again"),
            "{message}"
        );
    }
}

#[test]
fn a_model_that_cannot_be_served_is_refused_before_its_weights_come() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    let mut repo = sharded(2, 1000);
    let config = br#"{"model_type": "bert", "architectures": ["BertModel"]}"#;
    repo.files.insert("config.json".to_owned(), config.to_vec());
    hub.put(ID, repo);
    let error = registry::pull(&settings(&hub, cache.path())).unwrap_err();
    assert!(error.to_string().contains("config.json: "), "{error}");
    let asked = hub.asked();
    for shard in SHARDS {
        assert!(asked.iter().all(|ask| !is_for(ask, shard)));
    }
}

#[test]
fn a_disk_that_is_too_small_is_said_before_anything_comes() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    hub.behave(
        |ask| match ask.method == "HEAD" && ask.path.ends_with(WEIGHTS) {
            // A pebibyte.
            true => Fault::ClaimSize(1 << 50),
            false => Fault::None,
        },
    );
    let (problem, message) = refused(&settings(&hub, cache.path()));
    assert_eq!(problem, HubProblem::Disk);
    for part in [
        "tests/tiny needs 1048576 GiB more",
        " free",
        "--download-dir",
        "medgemma rm",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(hub.asked().iter().all(|ask| !is_for_bytes(ask)));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let hub = Imitation::start();
    let dir = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (problem, message) = refused(&settings(&hub, &file.join("cache")));
    assert_eq!(problem, HubProblem::Disk);
    assert!(message.contains(file.to_str().unwrap()), "{message}");
    let nowhere = settings(&hub, Path::new("/proc/nowhere"));
    assert_eq!(refused(&nowhere).0, HubProblem::Disk);
}
