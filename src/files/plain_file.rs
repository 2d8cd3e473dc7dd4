//! Opening and reading one file of a checkpoint.
//!
//! A checkpoint comes from elsewhere: what lies under a file's name may be a pipe that never ends,
//! a device, or a link to another place of this machine.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::damaged;
use crate::error::Result;

/// Opens a file of a checkpoint; `None` if there is none of this name.
///
/// # Errors
/// `Checkpoint` for what is no plain file, for what cannot be read, and for a link out of the
/// checkpoint's directory, unless it leads to the blobs of the hub's cache that the directory is a
/// snapshot of.
pub fn open(path: &Path) -> Result<Option<File>> {
    let unreadable = |error: std::io::Error| damaged(path, format!("cannot be read: {error}"));
    let itself = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let target = if itself.is_symlink() {
        check_link(path)?;
        fs::metadata(path).map_err(unreadable)?
    } else {
        itself
    };
    // Before it is opened: a pipe would wait for a writer, and a device do who knows what.
    if !target.is_file() {
        let kind = kind(&target);
        return Err(damaged(path, format!("is {kind}, not a file")));
    }
    File::open(path).map(Some).map_err(unreadable)
}

/// The whole file; `None` if there is none of this name.
///
/// # Errors
/// As `open`, and for a file of more than `max_bytes`, which is not read.
pub fn read(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let unreadable = |error: std::io::Error| damaged(path, format!("cannot be read: {error}"));
    let too_large = |len| {
        damaged(
            path,
            format!("has {len} bytes; at most {max_bytes} are expected"),
        )
    };
    let len = file.metadata().map_err(unreadable)?.len();
    if len > max_bytes {
        return Err(too_large(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // One byte more: it may be growing.
    let num_read = file
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)? as u64;
    if num_read > max_bytes {
        return Err(too_large(num_read));
    }
    Ok(Some(bytes))
}

/// As `read`, for a file of text.
///
/// # Errors
/// As `read`, and for what is not UTF-8.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<Option<String>> {
    let Some(bytes) = read(path, max_bytes)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| damaged(path, format!("is not UTF-8: {}", error.utf8_error())))
}

/// A link must stay in its directory, or lead to the blobs beside it in the hub's cache, or to those
/// that all models of the cache share:
/// `models--…/snapshots/REVISION/FILE` → `models--…/blobs/HASH` (→ `blobs/…/HASH`).
fn check_link(path: &Path) -> Result<()> {
    let target = fs::canonicalize(path).map_err(|error| {
        damaged(
            path,
            format!("is a broken link ({error}); download the file again"),
        )
    })?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let dir =
        fs::canonicalize(dir).map_err(|error| damaged(path, format!("cannot be read: {error}")))?;
    let is_own = target.starts_with(&dir)
        || hub_blobs(&dir)
            .iter()
            .any(|blobs| target.starts_with(blobs));
    if is_own {
        return Ok(());
    }
    Err(damaged(
        path,
        format!(
            "is a link out of the checkpoint's directory, to {}; put the file itself there",
            target.display()
        ),
    ))
}

/// Where the hub's cache keeps the files of the snapshot `dir`, if it is one.
fn hub_blobs(dir: &Path) -> Vec<PathBuf> {
    let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"));
    let Some(repo) = snapshots.and_then(Path::parent) else {
        return Vec::new();
    };
    // huggingface_hub keeps files of several models once.
    let is_model = |name: &OsStr| name.as_encoded_bytes().starts_with(b"models--");
    let shared = repo
        .parent()
        .filter(|_| repo.file_name().is_some_and(is_model));
    [Some(repo), shared]
        .into_iter()
        .flatten()
        .filter_map(|folder| fs::canonicalize(folder.join("blobs")).ok())
        .collect()
}

fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let file_type = metadata.file_type();
        if file_type.is_fifo() {
            return "a pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        let error = read(path, 8).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(read(&path, 8).unwrap(), None);
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read(&path, 8).unwrap().unwrap(), b"12345678");
        fs::write(&path, "123456789").unwrap();
        assert!(refused(&path).contains("has 9 bytes; at most 8"));
        // Gigabytes that take no place on the disk: not read.
        File::create(&path).unwrap().set_len(1 << 33).unwrap();
        assert!(refused(&path).contains("has 8589934592 bytes"));
        fs::write(&path, b"\xff").unwrap();
        let error = read_text(&path, 8).unwrap_err().to_string();
        assert!(error.contains("config.json: is not UTF-8"), "{error}");
    }

    #[test]
    fn only_plain_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::create_dir(&path).unwrap();
        assert!(refused(&path).contains("is a directory, not a file"));
    }

    #[cfg(unix)]
    #[test]
    fn what_may_never_end_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("config.json");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(refused(&socket).contains("is a socket, not a file"));
        let pipe = dir.path().join("tokenizer.json");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(refused(&pipe).contains("is a pipe, not a file"));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_in_the_checkpoint() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("secret");
        fs::write(&outside, "secret").unwrap();
        let model = root.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("own"), "own").unwrap();
        for (name, target) in [
            ("relative", Path::new("../secret")),
            ("absolute", outside.as_path()),
            ("device", Path::new("/dev/zero")),
        ] {
            symlink(target, model.join(name)).unwrap();
            let error = refused(&model.join(name));
            assert!(
                error.contains("is a link out of the checkpoint's directory"),
                "{error}"
            );
        }
        symlink("nowhere", model.join("dangling")).unwrap();
        assert!(refused(&model.join("dangling")).contains("broken link"));
        symlink("own", model.join("inside")).unwrap();
        assert_eq!(read(&model.join("inside"), 8).unwrap().unwrap(), b"own");
        // Through a link to the directory it is the same directory.
        symlink("model", root.path().join("other")).unwrap();
        assert!(read(&root.path().join("other/inside"), 8).is_ok());
        assert!(read(&root.path().join("other/relative"), 8).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn snapshots_of_the_hubs_cache_link_to_their_own_blobs() {
        use std::os::unix::fs::symlink;
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--google--medgemma");
        let other = cache.path().join("models--evil--model/blobs");
        let snapshot = repo.join("snapshots/abc");
        for dir in [&repo.join("blobs"), &other, &snapshot] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(repo.join("blobs/1"), "blob").unwrap();
        fs::write(other.join("1"), "other").unwrap();
        symlink("../../blobs/1", snapshot.join("config.json")).unwrap();
        let read_back = read(&snapshot.join("config.json"), 8).unwrap();
        assert_eq!(read_back.unwrap(), b"blob");
        symlink(other.join("1"), snapshot.join("tokenizer.json")).unwrap();
        assert!(refused(&snapshot.join("tokenizer.json")).contains("is a link out"));
        // Blobs that models share.
        let shared = cache.path().join("blobs/ab");
        fs::create_dir_all(&shared).unwrap();
        fs::write(shared.join("2"), "shared").unwrap();
        symlink("../../blobs/ab/2", repo.join("blobs/2")).unwrap();
        symlink("../../blobs/2", snapshot.join("shared.json")).unwrap();
        let read_back = read(&snapshot.join("shared.json"), 8).unwrap();
        assert_eq!(read_back.unwrap(), b"shared");
        // A directory that is no snapshot has no blobs.
        let plain = repo.join("plain");
        fs::create_dir(&plain).unwrap();
        symlink("../blobs/1", plain.join("config.json")).unwrap();
        assert!(refused(&plain.join("config.json")).contains("is a link out"));
    }
}
