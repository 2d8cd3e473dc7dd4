//! The server's side of a template's processes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use minijinja::value::Value;
use serde::Serialize;

use super::protocol::{Reply, TemplateToCompile, read_reply, write_object};
use crate::error::{Error, Result};
use crate::text::child_process::spawn;
use crate::text::rendering_failure::{MAX_TIME, RenderingFailure};

/// How long a process may take to start, and to compile the template. A usual one takes a few
/// milliseconds, if the machine has time for it.
const START_TIME: Duration = Duration::from_secs(20);
/// Maximum number of processes that are kept for the next renderings.
const MAX_IDLE: usize = 4;

/// A template and its processes.
#[derive(Debug)]
pub(in crate::text) struct TemplateProcesses {
    program: PathBuf,
    template: TemplateToCompile,
    /// Processes that wait for their next rendering.
    idle: Mutex<Vec<Process>>,
}

impl TemplateProcesses {
    /// Compiles a template in a first process: `program`, the `medgemma` binary.
    ///
    /// # Errors
    /// [`Error::Template`] if the template is broken, [`Error::Config`] if there can be no process.
    pub(in crate::text) fn start(
        program: &Path,
        source: &str,
        globals: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let processes = Self {
            program: program.to_owned(),
            template: TemplateToCompile {
                source: source.to_owned(),
                globals: globals.clone(),
            },
            idle: Mutex::default(),
        };
        let broken =
            |reason: &str| Error::Template(format!("the chat template is broken: {reason}"));
        let first = processes.start_one().map_err(|failure| match failure {
            RenderingFailure::Other(error) => broken(&error),
            RenderingFailure::NoProcess(_) => failure.into(),
            _ => broken("it needs too much time or memory"),
        })?;
        processes.keep(first);
        Ok(processes)
    }

    /// Renders the template with the variables of `context`. Blocks until that is done, or for
    /// [`MAX_TIME`].
    pub(in crate::text) fn render(&self, context: &Value) -> Reply {
        let idle = locked(&self.idle).pop();
        if let Some(process) = idle
            && let Some(reply) = self.render_in(process, context)?
        {
            return reply;
        }
        // There was none, or it was killed while it was idle, to make room for other processes. (A
        // template that harms ends two, because the cause of an end cannot be told.)
        self.render_in(self.start_one()?, context)?
            .unwrap_or(Err(RenderingFailure::TooLarge))
    }

    /// Renders in the given process, and keeps it for the next rendering. `None` if it is gone.
    fn render_in(
        &self,
        process: Process,
        context: &Value,
    ) -> std::result::Result<Option<Reply>, RenderingFailure> {
        let replied = process.send(context).and_then(|()| process.receive());
        match replied {
            Ok(reply) => {
                self.keep(process);
                Ok(Some(reply))
            }
            Err(error) => match ended(&error) {
                RenderingFailure::TooLarge => Ok(None),
                failure => Err(failure),
            },
        }
    }

    /// Starts a process that has compiled the template.
    fn start_one(&self) -> std::result::Result<Process, RenderingFailure> {
        let process = Process::start(&self.program)
            .map_err(|error| RenderingFailure::NoProcess(error.to_string()))?;
        let compile = || {
            process.send(&self.template)?;
            let compiled = process.receive()?;
            process.socket.set_read_timeout(Some(MAX_TIME))?;
            Ok(compiled)
        };
        compile().map_err(|error: io::Error| ended(&error))??;
        Ok(process)
    }

    fn keep(&self, process: Process) {
        let mut idle = locked(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(process);
        }
    }
}

/// A process with the compiled template. It is killed when this is dropped.
#[derive(Debug)]
struct Process {
    socket: UnixStream,
    child: Child,
}

impl Process {
    /// Starts a process and waits until it is ready to compile.
    fn start(program: &Path) -> io::Result<Self> {
        let (socket, child) = spawn(program, "template-worker")?;
        let process = Self { socket, child };
        process.socket.set_read_timeout(Some(START_TIME))?;
        process.socket.set_write_timeout(Some(MAX_TIME))?;
        match process.receive()? {
            Ok(_) => Ok(process),
            Err(_) => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn send(&self, object: &impl Serialize) -> io::Result<()> {
        write_object(&mut &self.socket, object)
    }

    fn receive(&self) -> io::Result<Reply> {
        read_reply(&mut &self.socket)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already need not be killed, but its parent must wait for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns what the end of a process, or of the patience with it, says of the template.
fn ended(error: &io::Error) -> RenderingFailure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => RenderingFailure::TooLong,
        _ => RenderingFailure::TooLarge,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
