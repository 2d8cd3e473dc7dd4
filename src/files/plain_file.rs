//! Opening and reading one file of a checkpoint.
//!
//! A checkpoint comes from elsewhere: what lies under a file's name may be a pipe that never ends,
//! a device, or a link to another place of this machine.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::damaged;
use crate::error::Result;

/// Opens a file of a checkpoint; `None` if there is none of this name.
///
/// # Errors
/// `Checkpoint` for what is no plain file or a link to none, and for what cannot be read.
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

/// The whole file, which is a text, without a byte order mark; `None` if there is none of this name.
///
/// # Errors
/// As `open`, for a file of more than `max_bytes`, which is not read, for what Git LFS has in place
/// of a file, and for UTF-16.
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
    text_of(path, bytes).map(Some)
}

/// As `read`, for a file of any UTF-8.
///
/// # Errors
/// As `read`, for what is not UTF-8, and for a link out of the checkpoint's directory to a file that
/// is named otherwise, unless a hub's cache holds it.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<Option<String>> {
    check_text_link(path)?;
    let Some(bytes) = read(path, max_bytes)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| damaged(path, format!("is not UTF-8: {}", error.utf8_error())))
}

/// A link may lead to any file that may be read: huggingface_hub before 0.23 filled the directory
/// of `--local-dir` with links to its cache, and people do likewise. What the system makes up as it
/// is read is no file of a checkpoint: a template from `/proc/self/environ` would put this
/// process's secrets into every prompt.
fn check_link(path: &Path) -> Result<PathBuf> {
    let target = fs::canonicalize(path).map_err(|error| {
        damaged(
            path,
            format!("is a broken link ({error}); download the file again"),
        )
    })?;
    if ["/proc", "/sys", "/dev"]
        .iter()
        .any(|made_up| target.starts_with(made_up))
    {
        let target = target.display();
        return Err(damaged(
            path,
            format!("is a link to {target}, not to a file"),
        ));
    }
    Ok(target)
}

/// Refuses a link from outside to text that would be taken as it is, unless its target is named as
/// such a text, or is a blob of a hub's cache, which has no name of its own: JSON shows by its form
/// that it was meant, but anything can be a template.
fn check_text_link(path: &Path) -> Result<()> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if !is_link {
        return Ok(());
    }
    let target = check_link(path)?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let is_own = fs::canonicalize(dir).is_ok_and(|dir| target.starts_with(dir));
    let is_blob = target.components().any(|part| part.as_os_str() == "blobs");
    if is_own || is_blob || target.extension() == path.extension() {
        return Ok(());
    }
    Err(damaged(
        path,
        format!(
            "is a link out of the checkpoint's directory, to {}, which is not named as a file of \
             its kind; put the file itself there",
            target.display()
        ),
    ))
}

/// The text of a file, without a byte order mark.
fn text_of(path: &Path, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(damaged(
            path,
            "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
        ));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(damaged(
            path,
            "is UTF-16, as its byte order mark says; save it as UTF-8",
        ));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        tracing::debug!(file = %path.display(), "a byte order mark is passed over");
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
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
    fn links_lead_to_any_file() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "outside").unwrap();
        let model = root.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("own"), "own").unwrap();
        for (name, target, text) in [
            ("relative", Path::new("../outside"), "outside"),
            ("absolute", outside.as_path(), "outside"),
            ("inside", Path::new("own"), "own"),
        ] {
            symlink(target, model.join(name)).unwrap();
            let read = read(&model.join(name), 8).unwrap();
            assert_eq!(read.unwrap(), text.as_bytes(), "{name}");
        }
        for (name, target, says) in [
            (
                "device",
                "/dev/zero",
                "is a link to /dev/zero, not to a file",
            ),
            ("made_up", "/proc/self/environ", "not to a file"),
            ("directory", "..", "is a directory, not a file"),
            ("dangling", "nowhere", "broken link"),
        ] {
            symlink(target, model.join(name)).unwrap();
            let error = refused(&model.join(name));
            assert!(error.contains(says), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_template_leads_to_one() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let blobs = root.path().join("hub/models--google--medgemma/blobs");
        let model = root.path().join("model");
        for dir in [&blobs, &model] {
            fs::create_dir_all(dir).unwrap();
        }
        let named = root.path().join("mine.jinja");
        let (secret, blob) = (root.path().join("id_rsa"), blobs.join("d4f2"));
        for file in [&named, &secret, &blob] {
            fs::write(file, "text").unwrap();
        }
        let link = model.join("chat_template.jinja");
        for (target, is_read) in [(&named, true), (&blob, true), (&secret, false)] {
            symlink(target, &link).unwrap();
            match read_text(&link, 8) {
                Ok(text) => assert!(is_read && text.unwrap() == "text", "{target:?}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!is_read, "{error}");
                    assert!(
                        error.contains("chat_template.jinja: is a link out"),
                        "{error}"
                    );
                }
            }
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn what_stands_in_place_of_a_text_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 899\n";
        for (bytes, says) in [
            (pointer.as_bytes(), "is a Git LFS pointer"),
            (b"\xff\xfe{\0}\0", "is UTF-16"),
            (b"\xfe\xff\0{\0}", "is UTF-16"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = read(&path, 1000).unwrap_err().to_string();
            assert!(
                error.contains("config.json: ") && error.contains(says),
                "{error}"
            );
        }
        fs::write(&path, "\u{feff}{}").unwrap();
        assert_eq!(read(&path, 8).unwrap().unwrap(), b"{}");
        assert_eq!(read_text(&path, 8).unwrap().unwrap(), "{}");
    }
}
