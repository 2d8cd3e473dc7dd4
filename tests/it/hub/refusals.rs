//! What the hub does not hand out, and what is said about it.

use std::net::TcpListener;

use medgemma::config::HubAccess;
use medgemma::error::{Error, HubProblem};
use medgemma::registry;

use super::imitation::{Fault, Gate, Imitation};
use super::{ID, Repo, is_for_bytes, noise, refused, settings, with_token};

fn gated(gate: Gate) -> (Imitation, tempfile::TempDir) {
    let hub = Imitation::start();
    hub.put(ID, Repo { gate, ..noise() });
    (hub, tempfile::tempdir().unwrap())
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_gated_model_says_where_its_terms_are_and_how_to_give_a_token() {
    let (hub, cache) = gated(Gate::Gated("hf_right".to_owned()));
    let settings = settings(&hub, cache.path());
    let scheduling = format!("{}/{ID}", hub.url());
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::Access);
    assert_says(
        &message,
        &[
            ID,
            &scheduling,
            "--hf-token",
            "HF_TOKEN",
            "Accept its terms",
        ],
    );
    let wrong = with_token(settings.clone(), "hf_wrong");
    let (problem, message) = refused(&wrong);
    assert_eq!(problem, HubProblem::Access);
    assert_says(&message, &[ID, &scheduling, "does not give access"]);
    assert!(!message.contains("hf_wrong"));
    assert!(hub.asked().iter().filter(|ask| is_for_bytes(ask)).count() == 0);
    registry::pull(&with_token(settings, "hf_right")).unwrap();
}

#[test]
fn what_is_not_there_is_said() {
    let (hub, cache) = gated(Gate::Private("hf_right".to_owned()));
    let mut settings = settings(&hub, cache.path());
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::NotFound);
    assert_says(&message, &[ID, &hub.url(), "private", "--hf-token"]);
    let mut open = with_token(settings.clone(), "hf_right");
    registry::pull(&open).unwrap();

    open.hub.revision = Some("v9".to_owned());
    let (problem, message) = refused(&open);
    assert_eq!(problem, HubProblem::NotFound);
    assert_says(&message, &[ID, "no revision v9"]);

    settings.model = "google/medgemma-4b-lt".to_owned();
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::NotFound);
    assert_says(
        &message,
        &["google/medgemma-4b-lt", "Did you mean medgemma-4b-it?"],
    );
}

#[test]
fn names_that_lead_nowhere_ask_nobody() {
    let (hub, cache) = gated(Gate::Open);
    for (model, revision, says) in [
        ("medgema-4b-it", None, "Did you mean medgemma-4b-it?"),
        ("../tiny", None, "there is no directory"),
        ("/tests/tiny", None, "there is no directory"),
        ("a/b/c", None, "neither a model"),
        ("demo", None, "part of the program"),
        (ID, Some("../x"), "--revision is ../x"),
        (ID, Some(""), "--revision is "),
    ] {
        let mut settings = settings(&hub, cache.path());
        settings.model = model.to_owned();
        settings.hub.revision = revision.map(str::to_owned);
        match registry::pull(&settings) {
            Err(Error::Config(message) | Error::NotFound(message)) => {
                assert_says(&message, &[says])
            }
            other => panic!("{model}: {other:?}"),
        }
    }
    assert_eq!(hub.num_asked(), 0);
}

#[test]
fn a_repository_that_is_no_model_says_what_it_lacks() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    for (name, says) in [
        ("config.json", "it has no config.json"),
        ("tokenizer.json", "it has no tokenizer.json"),
        ("model.safetensors", "safetensors only"),
    ] {
        let mut repo = noise();
        repo.files.remove(name);
        hub.put(ID, repo);
        let (problem, message) = refused(&settings(&hub, cache.path()));
        assert_eq!(problem, HubProblem::NotFound);
        assert_says(&message, &[ID, says]);
    }
    // What peft writes.
    let mut repo = noise();
    repo.files.remove("config.json");
    repo.files
        .insert("adapter_config.json".to_owned(), b"{}".to_vec());
    hub.put(ID, repo);
    let (_, message) = refused(&settings(&hub, cache.path()));
    assert_says(&message, &[ID, "it is an adapter", "merge it"]);
    // An index that leads out of the folder.
    let mut repo = noise();
    repo.files.remove("model.safetensors");
    let index = br#"{"weight_map": {"a": "../../../../../etc/x.safetensors"}}"#;
    repo.files
        .insert("model.safetensors.index.json".to_owned(), index.to_vec());
    hub.put(ID, repo);
    let (_, message) = refused(&settings(&hub, cache.path()));
    assert_says(
        &message,
        &["model.safetensors.index.json", "etc/x.safetensors"],
    );
}

#[test]
fn what_is_no_hub_is_told_from_one() {
    let (hub, cache) = gated(Gate::Open);
    let settings = settings(&hub, cache.path());
    hub.behave(|_| Fault::Status(200, vec![]));
    assert_says(&refused(&settings).1, &[&hub.url(), "HF_ENDPOINT"]);
    hub.behave(|_| Fault::Status(418, vec![]));
    assert_says(&refused(&settings).1, &["answers 418", "HF_ENDPOINT"]);
    hub.behave(|_| Fault::Status(302, vec![]));
    assert_says(&refused(&settings).1, &["redirects to nowhere"]);
    for address in ["huggingface.co", "ftp://x", ""] {
        let mut settings = settings.clone();
        settings.hub.endpoint = address.to_owned();
        let error = registry::pull(&settings).unwrap_err().to_string();
        assert_says(&error, &["HF_ENDPOINT is ", "such as https://"]);
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_named_with_ways_out() {
    let cache = tempfile::tempdir().unwrap();
    // Nobody listens where somebody just did.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (hub, _) = gated(Gate::Open);
    let mut settings = settings(&hub, cache.path());
    settings.hub.endpoint = format!("http://{port}");
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::Network);
    let port = port.to_string();
    assert_says(
        &message,
        &[&port, "4 attempts", "HTTPS_PROXY", "HF_HUB_OFFLINE"],
    );
}

#[test]
fn offline_nobody_is_asked() {
    let (hub, cache) = gated(Gate::Open);
    let mut settings = settings(&hub, cache.path());
    settings.hub.access = HubAccess::Offline;
    let (problem, message) = refused(&settings);
    assert_eq!(problem, HubProblem::NotFound);
    assert_says(
        &message,
        &[ID, "HF_HUB_OFFLINE", cache.path().to_str().unwrap()],
    );
    assert_eq!(hub.num_asked(), 0);
    settings.hub.access = HubAccess::Online;
    let online = registry::pull(&settings).unwrap();
    hub.asked();
    settings.hub.access = HubAccess::Offline;
    assert_eq!(registry::pull(&settings).unwrap().dir, online.dir);
    assert_eq!(hub.num_asked(), 0);
    // Without its weights it is not there.
    std::fs::remove_file(online.dir.join("model.safetensors")).unwrap();
    assert_eq!(refused(&settings).0, HubProblem::NotFound);
}
