//! Keeps the source in the order that `src/lib.rs` shows: dependencies point one way, nouns have
//! names, files stay readable.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may use besides `core` and `error`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("error", &[]),
    // What a checkpoint's readers read through.
    ("files", &[]),
    ("backend", &["config"]),
    ("model", &["backend", "files"]),
    ("scheduler", &[]),
    ("engine", &["scheduler", "model", "backend"]),
    ("text", &["files"]),
    ("image", &[]),
    ("config", &[]),
    ("log", &[]),
    ("metrics", &["engine", "log"]),
    (
        "registry",
        &[
            "engine",
            "scheduler",
            "model",
            "backend",
            "text",
            "image",
            "config",
            "files",
            "http_client",
        ],
    ),
    ("allocator", &[]),
    ("web", &[]),
    (
        "api",
        &[
            "registry", "engine", "text", "image", "log", "metrics", "web",
        ],
    ),
    // It asks a server that it is handed.
    ("batch", &["config", "log"]),
    (
        "bench",
        &[
            "registry",
            "engine",
            "model",
            "backend",
            "config",
            "http_client",
        ],
    ),
    ("selftest", &["registry", "model", "backend", "config"]),
    ("exit_code", &[]),
    ("http_client", &[]),
    ("probe", &["http_client"]),
    ("terminal", &["config", "log"]),
    ("lib", &[]),
    (
        "main",
        &[
            "api",
            "batch",
            "bench",
            "selftest",
            "registry",
            "engine",
            "config",
            "exit_code",
            "log",
            "probe",
            "terminal",
        ],
    ),
];

/// Lines in a file before a second noun is surely hiding in it.
const MAX_LINES: usize = 700;

/// The Rust files under a folder.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source_files() -> Vec<PathBuf> {
    let files = files_under(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "the walk found only {files:?}");
    files
}

/// The top-level module that a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("the walk began in src");
    let first = inside.iter().next().expect("a file has a name");
    Path::new(first)
        .file_stem()
        .expect("a file has a name")
        .to_string_lossy()
        .into_owned()
}

/// Top-level modules named after `crate::` (or `medgemma::` in the binary) in code.
fn used_modules(source: &str) -> Vec<String> {
    let code: Vec<_> = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    let mut used = Vec::new();
    for root in ["crate::", "medgemma::"] {
        for rest in code.split(root).skip(1) {
            // `use crate::{a, b::{c, d}}` names several at once, over as many lines as it likes.
            match rest.strip_prefix('{') {
                Some(group) => used.extend(first_names(group)),
                None => used.push(leading_name(rest)),
            }
        }
    }
    used
}

/// The names that a group begins each of its own entries with, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![leading_name(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(leading_name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    let is_of_name = |c: &char| c.is_alphanumeric() || *c == '_';
    text.trim_start().chars().take_while(is_of_name).collect()
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for file in source_files() {
        let module = module_of(&file);
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{} belongs to no known module", file.display()));
            continue;
        };
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        for used in used_modules(&source) {
            let known = MAY_USE.iter().any(|(name, _)| *name == used);
            let allowed = used == module
                || used == "core"
                || used == "error"
                || may_use.contains(&used.as_str());
            if known && !allowed {
                wrong.push(format!("{} uses crate::{used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_sees_uses() {
    for (source, used) in [
        (
            "use crate::{api, text::Tokenizer};\nlet x = crate::model::f(); // crate::image",
            &["api", "text", "model"][..],
        ),
        (
            "use crate::{\n    engine::{Runner, start}, // image\n    text,\n};\nuse std::fs;",
            &["engine", "text", ""],
        ),
    ] {
        assert_eq!(used_modules(source), used);
    }
}

#[test]
fn status_codes_live_in_one_file() {
    for file in source_files() {
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        let is_theirs = file.to_string_lossy().contains("src/api/http/error/");
        assert!(
            is_theirs || !source.contains("StatusCode"),
            "{} speaks of HTTP status codes",
            file.display()
        );
    }
}

#[test]
fn files_hold_one_noun_each() {
    for file in source_files() {
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        let num_lines = source.lines().count();
        assert!(
            num_lines <= MAX_LINES,
            "{} has {num_lines} lines: look for the second noun",
            file.display()
        );
        let name = file
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy();
        assert!(
            !["util", "utils", "helpers", "common", "misc"].contains(&name.as_ref()),
            "{} says nothing of what it holds",
            file.display()
        );
        assert!(
            source.starts_with("//!"),
            "{} does not say what it owns",
            file.display()
        );
    }
}

#[test]
fn unsafe_is_only_where_it_must_be() {
    for file in source_files() {
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        let allowed = file.ends_with("src/model/mapped_file.rs")
            // The name of a symbol.
            || file.ends_with("src/allocator.rs")
            // fork(2), in a process of one thread.
            || file.ends_with("src/text/grammar/process/fork_server.rs")
            || file.to_string_lossy().contains("src/backend/cuda/");
        assert!(
            allowed
                || !["allow(unsafe_code", "expect(unsafe_code"]
                    .iter()
                    .any(|lint| source.contains(lint)),
            "{} allows itself unsafe code",
            file.display()
        );
    }
}

/// Words that only these files and folders of `src` may use, comments included. A
/// reader of the rest need not know what they mean.
const LOCAL_WORDS: &[(&str, &[&str])] = &[(
    "cuda",
    &[
        "backend/",
        "selftest/",
        "config/compute.rs",
        // What a user types.
        "config/arguments.rs",
        "config/vllm_flags/",
    ],
)];

#[test]
fn what_is_local_to_a_module_is_named_there_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in source_files() {
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        let inside = file.strip_prefix(&src).expect("the walk began in src");
        let inside = inside.to_string_lossy();
        for (word, places) in LOCAL_WORDS {
            let allowed = places.iter().any(|place| inside.starts_with(place));
            let line = source
                .lines()
                .position(|line| line.to_lowercase().contains(word));
            if let Some(line) = line.filter(|_| !allowed) {
                panic!("src/{inside}:{} speaks of {word}", line + 1);
            }
        }
    }
    // Every place is needed.
    for (word, places) in LOCAL_WORDS {
        for place in *places {
            let speaks = source_files().iter().any(|file| {
                let source = fs::read_to_string(file).expect("sources are UTF-8");
                file.starts_with(src.join(place)) && source.to_lowercase().contains(word)
            });
            assert!(speaks, "{place} never speaks of {word}");
        }
    }
}

/// Words that meant something in this project alone, with the field's words for them.
const PRIVATE_WORDS: &[(&str, &str)] = &[
    ("picture", "image"),
    ("pictures", "images"),
    ("card", "GPU"),
    ("cards", "GPUs"),
    ("undrawn", "pending"),
    ("rehearse", "warm up"),
    ("rehearsal", "warm-up"),
    ("whoever", "a caller, a client"),
    ("whomever", "a caller, a client"),
    ("luck", "random numbers"),
    ("house", "server, project"),
];
/// Where such a word is somebody else's: the demo model's answer, and a kind of document.
const OTHERS_WORDS: &[&str] = &["I see no picture", "ModelCard", "model card"];

/// The words of a text and of its identifiers, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::with_capacity(text.len());
    let mut before = ' ';
    for character in text.chars() {
        if before.is_lowercase() && character.is_uppercase() {
            spaced.push(' ');
        }
        spaced.push(character);
        before = character;
    }
    let parts: Vec<String> = spaced
        .split(|character: char| !character.is_alphabetic())
        .map(str::to_lowercase)
        .collect();
    parts.into_iter()
}

/// The private words in a text.
fn private_words(text: &str) -> Vec<&'static (&'static str, &'static str)> {
    let mut text = text.to_owned();
    for others in OTHERS_WORDS {
        text = text.replace(others, "");
    }
    let is_private = |word: String| PRIVATE_WORDS.iter().find(|(private, _)| *private == word);
    words(&text).filter_map(is_private).collect()
}

#[test]
fn the_words_are_the_fields() {
    for file in source_files() {
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        for (idx, line) in source.lines().enumerate() {
            if let Some((private, usual)) = private_words(line).first() {
                panic!(
                    "{}:{}: for {private:?} say {usual}",
                    file.display(),
                    idx + 1
                );
            }
        }
    }
    for private in ["a picture", "OpenPicture", "num_cards", "Whoever asks"] {
        assert_eq!(private_words(private).len(), 1, "{private}");
    }
    assert!(private_words("discard the ModelCard of I see no picture").is_empty());
}

/// What is wrong with a line as the beginning of a doc, or as the name of a test.
fn odd(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
    let doc = doc.map(str::trim_start);
    if doc.is_some_and(|doc| doc.starts_with("Of ") || doc.starts_with("Whose")) {
        return Some("it has no subject");
    }
    let (_, name) = line.split_once("fn ")?;
    let name = name.split(['(', '<']).next()?;
    let is_torn = name.contains("_s_") || name.ends_with("_s");
    (doc.is_none() && is_torn).then_some("an apostrophe is lost: write the_models_own")
}

#[test]
fn docs_and_names_are_whole() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for file in source_files().into_iter().chain(files_under(&tests)) {
        if file.ends_with(file!()) {
            continue;
        }
        let source = fs::read_to_string(&file).expect("sources are UTF-8");
        for (idx, line) in source.lines().enumerate() {
            if let Some(what) = odd(line) {
                panic!("{}:{}: {what}: {line}", file.display(), idx + 1);
            }
        }
    }
    for line in [
        "    /// Of both.",
        "//! Whose.",
        "fn a_key_s_share() {",
        "async fn it_is_a_chat_s() {",
    ] {
        assert!(odd(line).is_some(), "{line}");
    }
    for line in [
        "/// One of both.",
        "fn a_keys_share() {",
        "// The fn a_chat is.",
    ] {
        assert!(odd(line).is_none(), "{line}");
    }
}

/// The modules that have a folder but are not its `mod.rs`. Folders of a file's tests may stand
/// beside it.
fn modules_beside_their_folder(source: &Path) -> Vec<PathBuf> {
    let has_more_than_tests = |folder: &Path| {
        let files = files_under(folder);
        files.iter().any(|file| !file.ends_with("tests.rs"))
    };
    let mut files = files_under(source);
    files.retain(|file| {
        let folder = file.with_extension("");
        folder.is_dir() && has_more_than_tests(&folder)
    });
    files
}

#[test]
fn a_module_with_a_folder_is_its_mod_rs() {
    for tree in ["src", "tests/it", "benches"] {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join(tree);
        assert_eq!(
            modules_beside_their_folder(&tree),
            [""; 0].map(PathBuf::from)
        );
    }
    let tree = tempfile::tempdir().expect("a folder");
    for (folder, file) in [("torn", "part"), ("whole", "tests")] {
        let folder = tree.path().join(folder);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.with_extension("rs"), "").expect("a file");
        fs::write(folder.join(file).with_extension("rs"), "").expect("a file");
    }
    assert_eq!(
        modules_beside_their_folder(tree.path()),
        [tree.path().join("torn.rs")]
    );
}
