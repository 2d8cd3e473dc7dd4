//! A checkpoint's folder in memory, to be damaged and written out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

/// What lies under a file's name.
#[derive(Clone)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    Directory,
    Pipe,
    /// A link to this place.
    Link(PathBuf),
    /// So many bytes, all zero, that take no place on the disk.
    Sparse(u64),
}

/// Its files by name.
#[derive(Clone)]
pub(super) struct Folder {
    pub(super) files: BTreeMap<String, Content>,
}

impl Folder {
    /// A tiny checkpoint of the repository's with the tiny tokenizer.
    pub(super) fn golden(model: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut files = BTreeMap::new();
        for dir in [golden.join("models").join(model), golden.join("tokenizer")] {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                files.insert(name, Content::Bytes(fs::read(&path).unwrap()));
            }
        }
        Self { files }
    }

    pub(super) fn bytes(&self, name: &str) -> &[u8] {
        match &self.files[name] {
            Content::Bytes(bytes) => bytes,
            _ => panic!("{name} is no plain file"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        std::str::from_utf8(self.bytes(name)).unwrap()
    }

    pub(super) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.bytes(name)).unwrap()
    }

    pub(super) fn set(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files
            .insert(name.to_owned(), Content::Bytes(bytes.into()));
    }

    /// The field at `pointer` of a JSON file becomes `value`; a field that is new is added.
    pub(super) fn set_field(&mut self, name: &str, pointer: &str, value: Value) {
        let mut root = self.json(name);
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = root
            .pointer_mut(parent)
            .unwrap_or_else(|| panic!("{name} has no {pointer}"));
        match parent {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
            parent => parent[field] = value,
        }
        self.set(name, root.to_string());
    }

    /// Written out, in a folder of its own within the temporary one.
    pub(super) fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in &self.files {
            let path = dir.path().join(name);
            match content {
                Content::Bytes(bytes) => fs::write(path, bytes).unwrap(),
                Content::Directory => fs::create_dir(path).unwrap(),
                Content::Sparse(len) => File::create(path).unwrap().set_len(*len).unwrap(),
                Content::Pipe => make_pipe(&path),
                Content::Link(target) => make_link(target, &path),
            }
        }
        dir
    }
}

#[cfg(unix)]
fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[cfg(unix)]
fn make_link(target: &Path, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[cfg(not(unix))]
fn make_pipe(path: &Path) {
    fs::create_dir(path).unwrap();
}

#[cfg(not(unix))]
fn make_link(_: &Path, path: &Path) {
    fs::create_dir(path).unwrap();
}
