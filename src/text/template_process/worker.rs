//! The process that compiles one template and renders what the server sends.

use std::io::{self, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use minijinja::value::Value;

use super::protocol::{TemplateToCompile, read_object, reply_bytes};
use crate::text::child_process::{die_first, limit_cpu, limit_memory, name_process};
use crate::text::jinja::{self, MAX_RENDERED_BYTES};
use crate::text::rendering_failure::{MAX_TIME, RenderingFailure};

/// Size of the stack. Usual templates need a few kilobytes of it.
const STACK: usize = 64 << 20;
/// Maximum memory besides: for the messages, for what the fuel lets a template make of them, and
/// for two copies of its output.
const MAX_HEAP: usize = (512 << 20) + 2 * MAX_RENDERED_BYTES;
/// CPU time for compiling, and for each rendering, after which the kernel ends the process. The
/// server kills it earlier, unless the server itself is gone.
const CPU_SECONDS: u64 = 2 * MAX_TIME.as_secs();

/// Renders for the server at the other end of standard input, until the server closes it.
///
/// # Errors
/// If standard input is not such a socket.
pub fn run_template_worker() -> io::Result<()> {
    name_process(c"template");
    limit_memory((MAX_HEAP + STACK) as u64);
    die_first();
    let socket = UnixStream::from(rustix::stdio::stdin().as_fd().try_clone_to_owned()?);
    let work = thread::Builder::new()
        .stack_size(STACK)
        .spawn(|| work(socket))?;
    match work.join() {
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        Ok(worked) => worked,
        Err(_) => Err(io::Error::other("a rendering panicked")),
    }
}

fn work(mut replies: UnixStream) -> io::Result<()> {
    let mut requests = BufReader::new(replies.try_clone()?);
    replies.write_all(&reply_bytes(&Ok(String::new())))?;
    let TemplateToCompile { source, globals } = read_object(&mut requests)?;
    limit_cpu(CPU_SECONDS);
    let env = match jinja::environment(&source, &globals) {
        Ok(env) => env,
        Err(error) => {
            let refused = RenderingFailure::Other(error.to_string());
            return replies.write_all(&reply_bytes(&Err(refused)));
        }
    };
    replies.write_all(&reply_bytes(&Ok(String::new())))?;
    loop {
        let context: Value = read_object(&mut requests)?;
        limit_cpu(CPU_SECONDS);
        let rendered = jinja::render(&env, context);
        replies.write_all(&reply_bytes(&rendered.map_err(RenderingFailure::from)))?;
    }
}
