//! Starts this program once more, with another command and a socket to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts `program` with the command `name`. Its standard input is the other end of the returned
/// socket; it ends when that closes.
///
/// # Errors
/// If there can be no more processes or sockets, or no such program.
pub(in crate::text) fn spawn(program: &Path, name: &str) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command
        .arg(name)
        // The process gets none of the server's secrets.
        .env_clear()
        // There are many such processes, and each keeps the memory that its allocator does not
        // release.
        .env(
            "_RJEM_MALLOC_CONF",
            "narenas:1,retain:false,dirty_decay_ms:0,muzzy_decay_ms:0",
        )
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // Panic messages would log clients' data.
        .stderr(Stdio::null())
        // Ctrl-C is for the server, which first finishes running requests.
        .process_group(0);
    if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let child = command.spawn()?;
    Ok((ours, child))
}
