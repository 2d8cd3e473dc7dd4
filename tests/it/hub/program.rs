//! `medgemma pull`, `models` and `rm` as people call them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::imitation::{Fault, Gate, Host, Imitation, sha256};
use super::{COMMIT, ID, Repo, folder, is_for_bytes, noise, partial};

const WEIGHTS: &str = "model.safetensors";

/// The program for this hub and cache, in an environment that says nothing else.
pub(super) fn medgemma(hub: &Imitation, cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medgemma"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", cache)
        .env("HF_HUB_CACHE", cache)
        .env("HF_ENDPOINT", hub.url())
        .stdin(Stdio::null());
    command
}

fn output(hub: &Imitation, cache: &Path, arguments: &[&str]) -> Output {
    medgemma(hub, cache, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn spawn(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub(super) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

/// A hub whose weights stop coming after so many bytes.
pub(super) fn stalling(num_bytes: usize) -> Imitation {
    let hub = Imitation::start();
    hub.put(ID, noise());
    hub.behave(move |ask| match ask.host {
        Host::Storage if ask.file.as_deref() == Some(WEIGHTS) => Fault::StallAfter(num_bytes),
        _ => Fault::None,
    });
    hub
}

/// Waits until so many of the weights' bytes are in the cache.
pub(super) fn until_here(cache: &Path, num_bytes: u64) {
    let file = partial(cache, &noise(), WEIGHTS);
    while file.metadata().map_or(0, |file| file.len()) < num_bytes {
        std::thread::yield_now();
    }
}

#[test]
fn pull_prints_where_the_model_is() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let snapshot = folder(cache.path()).join("snapshots").join(COMMIT);
    let output_of = || {
        let output = output(&hub, cache.path(), &["pull", ID]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).trim_end(), snapshot.to_str().unwrap());
        text(&output.stderr)
    };
    let said = output_of();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "tests/tiny: 7 files, 892 KiB");
    assert!(
        lines[1].starts_with("tests/tiny: 7 files are here, 892 KiB came in "),
        "{said}"
    );
    assert_eq!(lines[2], "tests/tiny at 0123456 is here:");
    assert_eq!(lines.len(), 3, "{said}");
    // Then there is nothing to say but where.
    assert_eq!(output_of().lines().collect::<Vec<_>>(), lines[2..]);
}

#[test]
fn errors_are_one_line_and_show_no_token() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    let gate = Gate::Gated("hf_right".to_owned());
    hub.put(ID, Repo { gate, ..noise() });
    let file = cache.path().join("secret");
    fs::write(&file, "hf_right\n").unwrap();
    let pull = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = medgemma(&hub, cache.path(), &[&["pull", ID], arguments].concat());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let said = text(&output.stderr);
        assert!(!said.contains("hf_"), "{said}");
        (output.status.code(), said)
    };
    for (arguments, variables) in [
        (&[][..], &[][..]),
        (&["--hf-token", "hf_wrong"], &[]),
        (&["--hf-token", "hf_wrong"], &[("HF_TOKEN", "hf_right")]),
        (&[], &[("HF_TOKEN", "hf_wrong")]),
        (
            &[],
            &[
                ("HF_TOKEN", "hf_right"),
                ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
            ],
        ),
    ] {
        let (code, said) = pull(arguments, variables);
        assert_eq!(code, Some(77), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("medgemma: tests/tiny is gated"), "{said}");
    }
    let file = file.to_str().unwrap();
    for (arguments, variables) in [
        (&["--hf-token", "hf_right"][..], &[][..]),
        (&["--hf-token-file", file], &[("HF_TOKEN", "hf_wrong")]),
        (&[], &[("MEDGEMMA_HF_TOKEN_FILE", file)]),
        (&[], &[("MEDGEMMA_HF_TOKEN", "hf_right")]),
        (&[], &[("HF_TOKEN", "hf_right")]),
        (&[], &[("HF_TOKEN_PATH", file)]),
    ] {
        let (code, said) = pull(arguments, variables);
        assert_eq!(code, Some(0), "{arguments:?} {variables:?}: {said}");
        fs::remove_dir_all(folder(cache.path())).unwrap();
    }
    // Where `hf auth login` leaves it.
    let home = cache.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("token"), "hf_right").unwrap();
    let (code, said) = pull(&[], &[("HF_HOME", home.to_str().unwrap())]);
    assert_eq!(code, Some(0), "{said}");
}

/// A proxy that answers everything with this.
fn proxy(answer: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            // The head ends with an empty line.
            while stream.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_proxy_that_refuses_is_blamed_and_not_the_hub() {
    let hub = Imitation::start();
    hub.put(ID, noise());
    let forbidden =
        proxy("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let password = proxy(
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n",
    );
    let plain = hub.url();
    let tls = "https://hub.invalid";
    for (variable, proxy, endpoint, says) in [
        (
            "HTTPS_PROXY",
            &forbidden,
            tls,
            "refuses to connect to hub.invalid",
        ),
        (
            "https_proxy",
            &password,
            tls,
            "HTTPS_PROXY, as in http://NAME:PASSWORD@",
        ),
        (
            "HTTP_PROXY",
            &forbidden,
            &plain,
            "answers 403 to a request for http://",
        ),
        (
            "http_proxy",
            &password,
            &plain,
            "HTTP_PROXY, as in http://NAME:PASSWORD@",
        ),
        ("ALL_PROXY", &forbidden, &plain, "answers 403 to"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let output = medgemma(&hub, cache.path(), &["pull", ID])
            .env("HF_ENDPOINT", endpoint)
            .env(variable, proxy.replace("http://", "http://me:secret@"))
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{said}");
        for part in [&format!("the proxy {proxy} ("), says] {
            assert!(said.contains(part), "{variable}, {part}: {said}");
        }
        assert!(!said.contains("secret"), "{said}");
        assert!(!said.contains("set HTTPS_PROXY"), "{said}");
    }
    assert_eq!(hub.num_asked(), 0);
}

#[test]
fn the_cache_can_be_elsewhere() {
    let hub = Imitation::start();
    let home = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let at = |dir: &str| home.path().join(dir);
    let variables = |name: &'static str| (name, at(name).to_str().unwrap().to_owned());
    for (arguments, variables, cache) in [
        (vec![], vec![], ".cache/huggingface/hub"),
        (vec![], vec![variables("HF_HOME")], "HF_HOME/hub"),
        (
            vec![],
            vec![variables("HF_HOME"), variables("HF_HUB_CACHE")],
            "HF_HUB_CACHE",
        ),
        (
            vec![format!("--download-dir={}", at("flag").display())],
            vec![variables("HF_HUB_CACHE")],
            "flag",
        ),
        (
            vec![],
            vec![variables("MEDGEMMA_DOWNLOAD_DIR")],
            "MEDGEMMA_DOWNLOAD_DIR",
        ),
    ] {
        let output = medgemma(&hub, home.path(), &["pull", ID])
            .args(arguments)
            .env_remove("HF_HUB_CACHE")
            .envs(variables)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let dir = folder(&at(cache)).join("snapshots").join(COMMIT);
        assert_eq!(text(&output.stdout).trim_end(), dir.to_str().unwrap());
        assert!(dir.join("config.json").is_file());
    }
}

#[test]
fn a_stopped_pull_goes_on() {
    for name in ["-TERM", "-INT", "-KILL"] {
        let hub = stalling(300_000);
        let cache = tempfile::tempdir().unwrap();
        let child = spawn(&mut medgemma(&hub, cache.path(), &["pull", ID]));
        until_here(cache.path(), 300_000);
        signal(&child, name);
        let stopped = child.wait_with_output().unwrap();
        let code = (name != "-KILL").then_some(130);
        assert_eq!(stopped.status.code(), code, "{}", text(&stopped.stderr));
        let goes_on = text(&stopped.stderr).contains("run the same command to resume");
        assert_eq!(goes_on, code.is_some());
        assert_eq!(
            fs::read(partial(cache.path(), &noise(), WEIGHTS)).unwrap(),
            noise().files[WEIGHTS][..300_000]
        );
        hub.asked();
        hub.behave(|_| Fault::None);
        let output = output(&hub, cache.path(), &["pull", ID]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains(" are here\n"),
            "{}",
            text(&output.stderr)
        );
        let asked = hub.asked();
        let mut bytes = asked.iter().filter(|ask| is_for_bytes(ask));
        let weights = bytes
            .find(|ask| ask.file.as_deref() == Some(WEIGHTS))
            .unwrap();
        assert_eq!(weights.range.as_deref(), Some("bytes=300000-"));
        let link = folder(cache.path())
            .join("snapshots")
            .join(COMMIT)
            .join(WEIGHTS);
        assert_eq!(fs::read(link).unwrap(), noise().files[WEIGHTS]);
    }
}

#[test]
fn two_at_once_bring_each_file_once() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    hub.behave(|ask| match is_for_bytes(ask) {
        true => Fault::InPieces(100),
        false => Fault::None,
    });
    let children = [(); 3].map(|()| spawn(&mut medgemma(&hub, cache.path(), &["pull", ID])));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let asked = hub.asked();
    for name in super::needed(&noise()).keys() {
        let of_file = |ask: &&super::Ask| is_for_bytes(ask) && ask.file.as_deref() == Some(name);
        assert_eq!(asked.iter().filter(of_file).count(), 1, "{name}");
    }
    let link = folder(cache.path())
        .join("snapshots")
        .join(COMMIT)
        .join(WEIGHTS);
    assert_eq!(fs::read(link).unwrap(), noise().files[WEIGHTS]);
}

#[test]
fn who_waits_says_so_and_takes_over_from_the_dead() {
    let hub = stalling(200_000);
    let cache = tempfile::tempdir().unwrap();
    let mut first = spawn(&mut medgemma(&hub, cache.path(), &["pull", ID]));
    until_here(cache.path(), 200_000);
    hub.behave(|_| Fault::None);
    let mut second = spawn(&mut medgemma(&hub, cache.path(), &["pull", ID]));
    let mut said = BufReader::new(second.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("another process downloads it") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
    }
    assert!(line.starts_with(WEIGHTS), "{line}");
    first.kill().unwrap();
    first.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(second.wait().unwrap().success(), "{rest}");
    let link = folder(cache.path())
        .join("snapshots")
        .join(COMMIT)
        .join(WEIGHTS);
    assert_eq!(fs::read(link).unwrap(), noise().files[WEIGHTS]);
}

#[test]
fn a_full_disk_is_named_and_what_came_is_kept() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let program = medgemma(&hub, cache.path(), &["pull", ID]);
    // No file may have more than 256 KiB; ignored, the signal becomes an error of write.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$@\"", "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear()
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = limited.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    let file = partial(cache.path(), &noise(), WEIGHTS);
    assert!(
        said.contains(file.to_str().unwrap()) && said.contains("ulimit -f"),
        "{said}"
    );
    assert!(file.metadata().unwrap().len() > 0);
    let output = self::output(&hub, cache.path(), &["pull", ID]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_never_lies_in_memory() {
    const LEN: usize = 192 << 20;
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    let mut repo = noise();
    repo.files.insert(WEIGHTS.to_owned(), vec![7; LEN]);
    hub.put(ID, repo.clone());
    hub.behave(|ask| match ask.host {
        Host::Storage if ask.file.as_deref() == Some(WEIGHTS) => Fault::StallAfter(LEN - 1),
        _ => Fault::None,
    });
    let mut child = spawn(&mut medgemma(&hub, cache.path(), &["pull", ID]));
    let file = partial(cache.path(), &repo, WEIGHTS);
    while file.metadata().map_or(0, |file| file.len()) < LEN as u64 - 1 {
        std::thread::yield_now();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let most = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let most: usize = most.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        most << 10 < LEN / 2,
        "{most} KiB of memory for {} KiB",
        LEN >> 10
    );
    assert_eq!(sha256(&repo.files[WEIGHTS]).len(), 64);
}

#[test]
fn models_and_rm_see_the_cache() {
    let hub = Imitation::start();
    let cache = tempfile::tempdir().unwrap();
    hub.put(ID, noise());
    let run = |arguments: &[&str]| {
        let output = output(&hub, cache.path(), arguments);
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    assert!(!run(&["models"]).1.contains(ID));
    run(&["pull", ID]);
    assert!(run(&["models"]).1.contains(ID));
    let (code, said, _) = run(&["models", "--json"]);
    assert_eq!(code, Some(0));
    let object: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(object["max_model_len"], 8192);
    let (code, _, error) = run(&["rm", ID, "--revision", "v9"]);
    assert_ne!(code, Some(0));
    assert!(
        error.contains("revision v9 of tests/tiny is not in"),
        "{error}"
    );
    let (code, said, _) = run(&["rm", ID]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "removed tests/tiny (892 KiB)\n")
    );
    let (code, _, error) = run(&["rm", "--yes", ID]);
    assert_ne!(code, Some(0));
    assert!(error.contains("tests/tiny is not in"), "{error}");
    for name in ["demo", "..", "../x", "/", "a/../b"] {
        let (code, _, error) = run(&["rm", name]);
        assert_ne!(code, Some(0), "{name}: {error}");
    }
}
