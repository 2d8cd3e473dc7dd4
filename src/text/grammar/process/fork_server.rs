//! The process that forks one process for each grammar.
//!
//! It has one thread, and contains the data that all grammars share, so each fork is a complete
//! process that can start to work at once.

use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::protocol::{read_vocabulary, write_greeting};
use super::worker;
use crate::text::child_process::name_process;
use crate::text::grammar::compiler::GrammarCompiler;

/// How often it checks for workers that have ended.
const REAP_EVERY: Duration = Duration::from_millis(200);

/// The socket to the server. It keeps its file descriptor, which a worker replaces.
#[derive(Clone, Copy)]
struct Control(BorrowedFd<'static>);

impl Read for Control {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, bytes)?)
    }
}

impl Write for Control {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request from the server, in 8 bytes: the kind and the process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Fork a new worker for the socket that is sent with this. The reply is its process id, or 0.
    Fork,
    /// Pause the worker.
    Pause(i32),
    /// Resume the worker.
    Resume(i32),
    /// Kill the worker.
    Kill(i32),
}

pub(super) const REQUEST_BYTES: usize = 8;

impl Request {
    pub(super) fn to_bytes(self) -> [u8; REQUEST_BYTES] {
        let (kind, pid) = match self {
            Self::Fork => (0_i32, 0),
            Self::Pause(pid) => (1, pid),
            Self::Resume(pid) => (2, pid),
            Self::Kill(pid) => (3, pid),
        };
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..].copy_from_slice(&pid.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; REQUEST_BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let pid = i32::from_le_bytes([e, f, g, h]);
        Some(match i32::from_le_bytes([a, b, c, d]) {
            0 => Self::Fork,
            1 => Self::Pause(pid),
            2 => Self::Resume(pid),
            3 => Self::Kill(pid),
            _ => return None,
        })
    }
}

/// Runs a fork server whose control socket is standard input, until the server closes the socket.
///
/// # Errors
/// If standard input is not such a socket.
pub fn run_fork_server() -> io::Result<()> {
    let mut control = Control(rustix::stdio::stdin());
    let vocabulary = read_vocabulary(&mut control)?;
    let compiler = Arc::new(GrammarCompiler::new(vocabulary));
    // Created before any fork, so that all forks share it.
    if let Err(error) = compiler.factory() {
        return write_greeting(&mut control, Err(&error.message));
    }
    write_greeting(&mut control, Ok(()))?;
    name_process(c"grammars");
    let mut workers: Vec<Pid> = Vec::new();
    let served = serve(control, &compiler, &mut workers);
    for worker in workers {
        // A worker that has already ended needs no signal.
        let _ = kill_process(worker, Signal::KILL);
    }
    served
}

fn serve(
    mut control: Control,
    compiler: &Arc<GrammarCompiler>,
    workers: &mut Vec<Pid>,
) -> io::Result<()> {
    loop {
        workers.retain(|worker| !has_ended(*worker));
        if !wait_for_request(control, workers.is_empty())? {
            continue;
        }
        let Some((request, socket)) = receive(control)? else {
            return Ok(());
        };
        // A process id is used only while its process has not been reaped, so it cannot belong to
        // another process.
        let signal = |pid: i32, signal| {
            if let Some(worker) = workers.iter().find(|w| w.as_raw_nonzero().get() == pid) {
                let _ = kill_process(*worker, signal);
            }
        };
        match (request, socket) {
            (Request::Fork, Some(socket)) => {
                let pid = match fork() {
                    Ok(Some(worker)) => {
                        workers.push(worker);
                        worker.as_raw_nonzero().get()
                    }
                    Ok(None) => worker::run(UnixStream::from(socket), Arc::clone(compiler)),
                    // A fork may succeed later.
                    Err(_) => 0,
                };
                control.write_all(&pid.to_le_bytes())?;
            }
            (Request::Fork, None) => {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "no socket came along",
                ));
            }
            (Request::Pause(pid), _) => signal(pid, Signal::STOP),
            (Request::Resume(pid), _) => signal(pid, Signal::CONT),
            (Request::Kill(pid), _) => signal(pid, Signal::KILL),
        }
    }
}

/// Waits until a request can be read. If there are workers to check, returns false after a while.
fn wait_for_request(control: Control, is_alone: bool) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(REAP_EVERY.subsec_nanos()),
    };
    let timeout = (!is_alone).then_some(&timeout);
    match poll(&mut [PollFd::new(&control.0, PollFlags::IN)], timeout) {
        Ok(num_ready) => Ok(num_ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Receives the next request, with the socket that was sent with it; `None` when the server is
/// gone.
fn receive(control: Control) -> io::Result<Option<(Request, Option<OwnedFd>)>> {
    let mut bytes = [0; REQUEST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        control.0,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::WAITALL,
    )?;
    if received.bytes < REQUEST_BYTES {
        return Ok(None);
    }
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.flatten().next();
    let request = Request::from_bytes(bytes);
    let request = request.ok_or_else(|| io::Error::from(ErrorKind::InvalidData))?;
    Ok(Some((request, socket)))
}

/// Whether a worker has ended; if so, its process id may be reused.
fn has_ended(worker: Pid) -> bool {
    match waitpid(Some(worker), WaitOptions::NOHANG) {
        Ok(None) | Err(rustix::io::Errno::INTR) => false,
        Ok(Some((_, status))) => status.exited() || status.signaled(),
        Err(_) => true,
    }
}

/// Forks this process. Returns `None` in the child.
#[expect(unsafe_code, reason = "there is no safe way to fork")]
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread (it runs only `run_fork_server`), so in the copy no lock
    // is held and no state is half changed, and both processes may continue without restrictions.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(Pid::from_raw(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in [
            Request::Fork,
            Request::Pause(1),
            Request::Resume(i32::MAX),
            Request::Kill(77),
        ] {
            assert_eq!(Request::from_bytes(request.to_bytes()), Some(request));
        }
        assert_eq!(Request::from_bytes([9; REQUEST_BYTES]), None);
    }
}
