//! The program's output: the log, errors, and the first lines of a started server.
//!
//! A terminal gets short lines and a first request to try; a file or a log collector gets complete
//! lines, and the line on stdout that scripts wait for.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::config::{LogConfig, LogFormat};
use crate::log::Log;

/// Default number of columns of a terminal.
const COLUMNS: usize = 80;

/// Maximum time for writing the last log lines.
pub const LAST_LINES: Duration = Duration::from_secs(1);
/// Maximum time for writing the first lines to stdout.
const FIRST_LINES: Duration = Duration::from_secs(1);

/// A started server.
#[derive(Clone, Copy, Debug)]
pub struct StartupBanner<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// What clients call the model.
    pub model: &'a str,
    /// Longest sequence, in tokens.
    pub max_model_len: usize,
    /// What it answers to.
    pub prompts: Prompts,
    /// Whether clients must send a key.
    pub auth: AuthMode,
}

/// What a model answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// Text that it continues.
    Text,
    /// Messages.
    Chats,
    /// Messages with images.
    ChatsWithImages,
}

/// Whether clients must send a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// They need none.
    Open,
    /// They must.
    Locked,
}

/// Starts the log on stderr: tracing events and panics.
pub fn start_log(config: &LogConfig, to: &Log) {
    // Of the libraries only what is wrong: some log what they are given.
    let filter = EnvFilter::new(format!("warn,medgemma={}", config.level.as_str()));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would say so on the stderr that is broken, and panic there.
        .log_internal_errors(false)
        .with_writer(to.clone());
    match config.format {
        LogFormat::Text if io::stderr().is_terminal() => {
            log.with_timer(Clock).with_target(false).init();
        }
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let log = to.clone();
    panic::set_hook(Box::new(move |panic| tell_panic(&log, panic)));
}

/// Logs panics with the standard library's message; its own hook would block on stderr.
fn tell_panic(log: &Log, panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    log.line(&match backtrace.status() {
        BacktraceStatus::Captured => format!("thread '{name}' {panic}\n{backtrace}"),
        _ => format!("thread '{name}' {panic}"),
    });
    // The process ends with its main thread.
    if name == "main" {
        log.flush(LAST_LINES);
    }
}

/// Writes why the program ends to stderr. If that cannot be written, it is ignored.
pub fn tell_failure(message: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", failure(message));
}

/// Writes why the program ends to the log.
pub fn log_failure(log: &Log, message: &dyn fmt::Display) {
    log.line(&failure(message));
}

fn failure(message: &dyn fmt::Display) -> String {
    let text = format!("medgemma: {message}");
    match io::stderr().is_terminal() {
        true => wrapped(&text, COLUMNS),
        false => text,
    }
}

/// Reports that the server has started: the line that scripts wait for, and on a terminal what to
/// do next.
///
/// Waits only briefly if stdout blocks.
pub fn greet(greeting: &StartupBanner<'_>) {
    let url = format!("http://{}", greeting.address);
    let is_terminal = io::stdout().is_terminal();
    // Once is enough for a person.
    if !(is_terminal && io::stderr().is_terminal()) {
        tracing::info!(url, "listening");
    }
    let text = match is_terminal {
        true => format!("listening on {url}\n\n{greeting}\n"),
        false => format!("listening on {url}\n"),
    };
    let (told, is_told) = mpsc::channel();
    let telling = thread::Builder::new().spawn(move || {
        let mut stdout = io::stdout();
        // Nobody has to read it.
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        // Nobody may wait any more.
        let _ = told.send(());
    });
    match telling {
        // Late is as good as never: the server serves.
        Ok(_) => drop(is_told.recv_timeout(FIRST_LINES)),
        Err(error) => tracing::warn!(%error, "cannot write the startup message to stdout"),
    }
}

/// Writes the URL by which the server can be reached from this machine.
///
/// # Errors
/// The system's error.
pub fn write_url(file: &Path, address: SocketAddr) -> io::Result<()> {
    fs::write(file, format!("http://{}\n", reachable(address)))
}

/// The address itself, or the loopback address if it means all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl fmt::Display for StartupBanner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (does, route) = match self.prompts {
            Prompts::Text => ("continues text", "completions"),
            Prompts::Chats => ("answers text", "chat/completions"),
            Prompts::ChatsWithImages => ("answers text and images", "chat/completions"),
        };
        let url = reachable(self.address);
        let model = serde_json::Value::from(self.model).to_string();
        // Within single quotes a shell knows nothing but their end.
        let model = model.replace('\'', r"'\''");
        let asked = match self.prompts {
            Prompts::Text => "\"prompt\": \"A cough is\", \"max_tokens\": 32",
            Prompts::Chats | Prompts::ChatsWithImages => {
                "\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]"
            }
        };
        let length = self.max_model_len;
        writeln!(f, "{} {does}, {length} tokens at most.", self.model)?;
        writeln!(f, "To try it from another terminal:\n")?;
        writeln!(f, "  curl http://{url}/v1/{route} \\")?;
        writeln!(f, "    -H 'Content-Type: application/json' \\")?;
        if self.auth == AuthMode::Locked {
            writeln!(f, "    -H \"Authorization: Bearer $MEDGEMMA_API_KEY\" \\")?;
        }
        writeln!(f, "    -d '{{\"model\": {model},")?;
        writeln!(f, "         {asked}}}'\n")?;
        write!(f, "Ctrl-C finishes running requests and stops the server.")
    }
}

/// `text` in lines of at most `columns`, broken between words; a longer word has its own line.
fn wrapped(text: &str, columns: usize) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        let mut width = 0;
        for word in paragraph.split(' ') {
            let word_width = word.chars().count();
            if width > 0 && width + 1 + word_width > columns {
                lines.push(std::mem::take(&mut line));
                width = 0;
            } else if width > 0 {
                line.push(' ');
                width += 1;
            }
            line.push_str(word);
            width += word_width;
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// The time of day in UTC; a terminal needs no date.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = now.map_or(0, |now| now.as_secs()) % 86_400;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(w, "{hour:02}:{minute:02}:{:02}Z", second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(model: &str, prompts: Prompts, auth: AuthMode) -> String {
        StartupBanner {
            address: "0.0.0.0:8000".parse().unwrap(),
            model,
            max_model_len: 131_072,
            prompts,
            auth,
        }
        .to_string()
    }

    #[test]
    fn the_first_lines_fit_a_terminal_and_can_be_pasted() {
        let open = greeting("medgemma-27b-text-it", Prompts::Chats, AuthMode::Open);
        assert!(
            open.contains("curl http://127.0.0.1:8000/v1/chat/completions"),
            "{open}"
        );
        assert!(!open.contains("Authorization"), "{open}");
        let locked = greeting("it's", Prompts::ChatsWithImages, AuthMode::Locked);
        assert!(locked.contains("text and images"), "{locked}");
        assert!(locked.contains("Bearer $MEDGEMMA_API_KEY"), "{locked}");
        assert!(locked.contains(r#"{"model": "it'\''s","#), "{locked}");
        let text = greeting("medgemma-4b-pt", Prompts::Text, AuthMode::Open);
        assert!(
            text.contains("/v1/completions") && text.contains("\"prompt\""),
            "{text}"
        );
        for shown in [open, locked, text] {
            assert!(
                shown.lines().all(|line| line.chars().count() <= COLUMNS),
                "{shown}"
            );
            // The body is JSON.
            let body = shown
                .split_once("-d '")
                .unwrap()
                .1
                .rsplit_once("'\n")
                .unwrap()
                .0;
            let body = body.replace(r"'\''", "'");
            let body: serde_json::Value = serde_json::from_str(&body).expect(&body);
            assert!(body["model"].is_string());
        }
    }

    #[test]
    fn an_address_for_all_is_reached_at_home() {
        for (address, at) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("10.1.2.3:9", "10.1.2.3:9"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), at);
        }
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("one two three", 8), "one two\nthree");
        assert_eq!(wrapped("a unbreakable b", 5), "a\nunbreakable\nb");
        assert_eq!(wrapped("a\nb c", 80), "a\nb c");
        assert_eq!(wrapped("", 80), "");
    }
}
