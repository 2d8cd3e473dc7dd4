//! Checkpoints that are damaged or made to harm: each is an error that names the file, and the
//! field or tensor, found by the way that a server takes.

mod configs;
mod folder;
mod mutations;
mod readers;
mod tensors;
mod texts;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use medgemma::config::{self, Command, ServeConfig};
use medgemma::registry;
use serde_json::json;

use folder::{Content, Folder};

const MODELS: [&str; 3] = ["text1b", "text27b", "multimodal"];

/// What was done to a checkpoint, and what the error must say.
struct Damage {
    what: String,
    /// The file that the error names.
    file: String,
    /// What else it names.
    expected: Vec<String>,
}

impl Damage {
    fn new(what: String, file: &str, expected: impl IntoIterator<Item = String>) -> Self {
        Self {
            what,
            file: file.to_owned(),
            expected: expected.into_iter().collect(),
        }
    }
}

type Family = fn(&mut Folder, &mut fastrand::Rng) -> Damage;

/// As often as they are worth.
const FAMILIES: [Family; 20] = [
    tensors::entry,
    tensors::entry,
    tensors::entry,
    tensors::names,
    tensors::names,
    tensors::header,
    tensors::header,
    tensors::index,
    tensors::index,
    configs::numbers,
    configs::numbers,
    configs::fields,
    configs::mismatches,
    configs::text_of,
    configs::generation,
    configs::processors,
    texts::tokenizer,
    texts::tokenizer,
    texts::templates,
    other,
];

/// The rarer ones.
fn other(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    match rng.u8(..3) {
        0 => texts::vocabulary(folder, rng),
        1 => texts::names(folder, rng),
        _ => no_file(folder, rng),
    }
}

/// Something else than a file under a file's name.
fn no_file(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut names: Vec<String> = folder.files.keys().cloned().collect();
    names.extend(["special_tokens_map.json", "chat_template.jinja"].map(str::to_owned));
    let file = names.swap_remove(rng.usize(..names.len()));
    let (what, content) = match rng.u8(..8) {
        0 => ("a directory", Content::Directory),
        1 => ("a pipe", Content::Pipe),
        2 => (
            "a link to a device",
            Content::Link(PathBuf::from("/dev/zero")),
        ),
        3 => (
            "a link to what the system makes up",
            Content::Link(PathBuf::from("/proc/self/environ")),
        ),
        6 => (
            "a pointer of Git LFS",
            Content::Bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec()),
        ),
        4 => ("a link to nothing", Content::Link(PathBuf::from("nothing"))),
        5 => ("a link to itself", Content::Link(PathBuf::from(&file))),
        _ => ("8 GB of zeros", Content::Sparse(1 << 33)),
    };
    folder.files.insert(file.clone(), content);
    Damage::new(format!("{file} is {what}"), &file, [])
}

fn settings(dir: &Path) -> Box<ServeConfig> {
    let arguments = [
        "medgemma",
        "serve",
        "--device",
        "cpu",
        "--kv-cache-memory",
        "64MB",
    ];
    let arguments = arguments
        .map(OsString::from)
        .into_iter()
        .chain([dir.as_os_str().to_owned()]);
    match config::parse(arguments) {
        Ok(Command::Serve(mut settings)) => {
            settings.program = env!("CARGO_BIN_EXE_medgemma").into();
            settings
        }
        _ => panic!("these are settings of a server"),
    }
}

/// What a server would have made of it: an error's text, or "loaded", or "panicked".
fn outcome(dir: &Path) -> String {
    let settings = settings(dir);
    match catch_unwind(AssertUnwindSafe(|| registry::load(&settings).map(drop))) {
        Ok(Ok(())) => "loaded".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "panicked".to_owned(),
    }
}

/// As `outcome`, in a thread of its own: one that never ends must not hold the tests.
fn outcome_in_time(dir: &Path) -> (String, Duration) {
    const FAR_TOO_LONG: Duration = Duration::from_secs(60);
    let (sender, receiver) = mpsc::channel();
    let dir = dir.to_owned();
    let started = Instant::now();
    std::thread::spawn(move || sender.send(outcome(&dir)));
    let outcome = receiver.recv_timeout(FAR_TOO_LONG);
    (
        outcome.unwrap_or_else(|_| "still going".to_owned()),
        started.elapsed(),
    )
}

#[test]
fn five_hundred_damaged_checkpoints_are_errors_that_name_the_file() {
    const NUM_CHECKPOINTS: usize = 500;
    let mut wrong = Vec::new();
    let mut slowest = (Duration::ZERO, String::new());
    for number in 0..NUM_CHECKPOINTS {
        let mut rng = fastrand::Rng::with_seed(number as u64);
        let mut folder = Folder::golden(MODELS[rng.usize(..MODELS.len())]);
        let Damage {
            what,
            file,
            expected,
        } = FAMILIES[number % FAMILIES.len()](&mut folder, &mut rng);
        let dir = folder.write();
        let (error, elapsed) = outcome_in_time(dir.path());
        if elapsed > slowest.0 {
            slowest = (elapsed, what.clone());
        }
        let begins = format!("{}: ", dir.path().join(&file).display());
        let is_named = error.starts_with(&begins) && error.len() < begins.len() + 1000;
        if !is_named
            || expected
                .iter()
                .any(|name| !error[begins.len()..].contains(name))
        {
            wrong.push(format!(
                "{number}: {file}, {what}\n  {error:.400}\n  lacks {expected:?}"
            ));
        }
    }
    println!("slowest: {:?}, {}", slowest.0, slowest.1);
    assert!(
        wrong.is_empty(),
        "{} of {NUM_CHECKPOINTS}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_checkpoints_that_are_damaged_are_whole() {
    for model in MODELS {
        assert_eq!(
            outcome(Folder::golden(model).write().path()),
            "loaded",
            "{model}"
        );
    }
}

#[test]
fn what_looks_odd_and_is_allowed_is_loaded() {
    let mut cases: Vec<(&str, Folder)> = Vec::new();
    let mut add = |what, model: &str, change: &dyn Fn(&mut Folder)| {
        let mut folder = Folder::golden(model);
        change(&mut folder);
        cases.push((what, folder));
    };
    add("two shards", "multimodal", &tensors::sharded);
    // The embedding knows better; see the config's own documentation.
    add("another vocabulary in config.json", "text1b", &|folder| {
        folder.set_field("config.json", "/vocab_size", json!(262_208));
    });
    add("no generation_config.json", "text1b", &|folder| {
        folder.files.remove("generation_config.json");
    });
    add("no template", "text1b", &|folder| {
        folder.set_field("tokenizer_config.json", "/chat_template", json!(null));
    });
    add("a template that refuses one message", "text1b", &|folder| {
        folder.set("chat_template.jinja", "{{ raise_exception('more!') }}");
    });
    add("a file of 8 GB that is not read", "text1b", &|folder| {
        folder
            .files
            .insert("optimizer.pt".to_owned(), Content::Sparse(1 << 33));
    });
    add("a header of odd length", "text1b", &|folder| {
        let bytes = folder.bytes("model.safetensors");
        let len = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header = std::str::from_utf8(&bytes[8..8 + len]).unwrap().trim_end();
        let header = format!("{header}{}", " ".repeat(1 + header.len() % 2));
        let length = (header.len() as u64).to_le_bytes();
        let odd = [&length[..], header.as_bytes(), &bytes[8 + len..]].concat();
        assert_eq!(header.len() % 2, 1);
        folder.set("model.safetensors", odd);
    });
    add("byte order marks", "text1b", &|folder| {
        let texts = folder.files.keys().filter(|name| name.ends_with(".json"));
        let texts: Vec<String> = texts.cloned().collect();
        assert!(texts.len() > 2);
        for name in texts {
            let marked = format!("\u{feff}{}", folder.text(&name));
            folder.set(&name, marked);
        }
    });
    add("numbers in F16", "text1b", &tensors::in_f16);
    add(
        "a template in processor_config.json",
        "multimodal",
        &|folder| {
            let template = folder.json("tokenizer_config.json")["chat_template"].clone();
            assert!(template.is_string());
            folder.set_field("tokenizer_config.json", "/chat_template", json!(null));
            folder.set(
                "processor_config.json",
                json!({"chat_template": template}).to_string(),
            );
        },
    );
    add("a link within the folder", "text1b", &|folder| {
        let config = folder.files.remove("config.json").unwrap();
        folder.files.insert("config.v2.json".to_owned(), config);
        let link = Content::Link(PathBuf::from("config.v2.json"));
        folder.files.insert("config.json".to_owned(), link);
    });
    for (what, folder) in cases {
        assert_eq!(outcome(folder.write().path()), "loaded", "{what}");
    }
}

/// The program may have little more memory than it needs to start; whatever the files say of
/// gigabytes, it still tells what is wrong with them.
#[cfg(target_os = "linux")]
#[test]
fn files_that_promise_gigabytes_take_none() {
    use std::process::Command;

    /// Address space: the program, the stacks of its threads, and 300 MB to work in.
    const KILOBYTES: &str = "1000000";
    let run = |dir: &Path| {
        let script =
            format!("ulimit -v {KILOBYTES}; exec \"$0\" serve --device cpu --port 0 \"$1\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_medgemma")])
            .arg(dir);
        // Fewer arenas and stacks, whatever the machine.
        command
            .env("MALLOC_ARENA_MAX", "2")
            .env("RAYON_NUM_THREADS", "2");
        command.env("TOKIO_WORKER_THREADS", "2");
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let header = |json: &str| {
        let length = (json.len() as u64).to_le_bytes();
        [&length[..], json.as_bytes()].concat()
    };
    let tensor = |shape: &str, offsets: &str| {
        header(&format!(
            r#"{{"model.norm.weight":{{"dtype":"BF16","shape":{shape},"data_offsets":{offsets}}}}}"#
        ))
    };
    let gigabytes = Content::Sparse(1 << 33);
    let in_tensors: [Content; 4] = [
        Content::Bytes((99_999_999u64).to_le_bytes().to_vec()),
        Content::Bytes(tensor("[4294967296, 1048576]", "[0, 9007199254740992]")),
        Content::Bytes(tensor("[4611686018427387904]", "[0, 9223372036854775808]")),
        gigabytes.clone(),
    ];
    let mut cases: Vec<(&str, Folder)> = Vec::new();
    for content in in_tensors {
        let mut folder = Folder::golden("text1b");
        folder.files.insert("model.safetensors".to_owned(), content);
        cases.push(("model.safetensors", folder));
    }
    for file in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let mut folder = Folder::golden("text1b");
        folder.files.insert(file.to_owned(), gigabytes.clone());
        cases.push((file, folder));
    }
    let mut folder = Folder::golden("text1b");
    folder.set_field(
        "tokenizer.json",
        "/added_tokens/28/id",
        json!((1 << 24) - 1),
    );
    cases.push(("tokenizer.json", folder));
    for (file, folder) in cases {
        let dir = folder.write();
        let (code, log) = run(dir.path());
        let named = format!("{}: ", dir.path().join(file).display());
        assert!(
            code.is_some_and(|code| code > 0 && code < 100),
            "{code:?}: {log}"
        );
        assert!(log.contains(&named), "{file}: {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
