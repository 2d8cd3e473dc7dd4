//! What a person sees of the program: the log, errors, and the first lines of a server that is up.
//!
//! A terminal gets short lines and a first request to try; a file or a collector gets whole ones,
//! and the one line on stdout that scripts wait for.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::config::{LogConfig, LogFormat};

/// Columns of a terminal, when one must assume.
const COLUMNS: usize = 80;

/// A server that is up.
#[derive(Clone, Copy, Debug)]
pub struct Greeting<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// What clients call the model.
    pub model: &'a str,
    /// Longest sequence, in tokens.
    pub max_model_len: usize,
    /// What it answers to.
    pub prompts: Prompts,
    /// Whether clients must send a key.
    pub door: Door,
}

/// What a model answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// Text that it continues.
    Text,
    /// Messages.
    Chats,
    /// Messages with pictures.
    ChatsWithImages,
}

/// Whether clients must send a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// They need none.
    Open,
    /// They must.
    Locked,
}

/// Begins to write the log, to stderr.
pub fn start_log(config: &LogConfig) {
    // Of the libraries only what is wrong: some log what they are given.
    let filter = EnvFilter::new(format!("warn,medgemma={}", config.level.as_str()));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match config.format {
        LogFormat::Text if io::stderr().is_terminal() => {
            log.with_timer(Clock).with_target(false).init();
        }
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Says why the program ends.
pub fn tell_failure(message: &dyn fmt::Display) {
    let text = format!("medgemma: {message}");
    let text = match io::stderr().is_terminal() {
        true => wrapped(&text, COLUMNS),
        false => text,
    };
    eprintln!("{text}");
}

/// Says that the server is up: the line that scripts wait for, and on a terminal what to do next.
pub fn greet(greeting: &Greeting<'_>) {
    let url = format!("http://{}", greeting.address);
    let mut stdout = io::stdout();
    // Once is enough for a person.
    if !(stdout.is_terminal() && io::stderr().is_terminal()) {
        tracing::info!(url, "listening");
    }
    // Nobody has to read it.
    let _ = writeln!(stdout, "listening on {url}").and_then(|()| stdout.flush());
    if stdout.is_terminal() {
        let _ = writeln!(stdout, "\n{greeting}");
    }
}

/// Writes where the server listens, as somebody on this machine reaches it.
///
/// # Errors
/// What the system says.
pub fn write_url(file: &Path, address: SocketAddr) -> io::Result<()> {
    fs::write(file, format!("http://{}\n", reachable(address)))
}

/// The address itself, or this machine's own where it stands for all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (does, route) = match self.prompts {
            Prompts::Text => ("continues text", "completions"),
            Prompts::Chats => ("answers text", "chat/completions"),
            Prompts::ChatsWithImages => ("answers text and pictures", "chat/completions"),
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
        if self.door == Door::Locked {
            writeln!(f, "    -H \"Authorization: Bearer $MEDGEMMA_API_KEY\" \\")?;
        }
        writeln!(f, "    -d '{{\"model\": {model},")?;
        writeln!(f, "         {asked}}}'\n")?;
        write!(f, "Ctrl-C lets what runs finish and stops the server.")
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

/// The time of day in UTC: who looks at a terminal knows the date.
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

    fn greeting(model: &str, prompts: Prompts, door: Door) -> String {
        Greeting {
            address: "0.0.0.0:8000".parse().unwrap(),
            model,
            max_model_len: 131_072,
            prompts,
            door,
        }
        .to_string()
    }

    #[test]
    fn the_first_lines_fit_a_terminal_and_can_be_pasted() {
        let open = greeting("medgemma-27b-text-it", Prompts::Chats, Door::Open);
        assert!(
            open.contains("curl http://127.0.0.1:8000/v1/chat/completions"),
            "{open}"
        );
        assert!(!open.contains("Authorization"), "{open}");
        let locked = greeting("it's", Prompts::ChatsWithImages, Door::Locked);
        assert!(locked.contains("text and pictures"), "{locked}");
        assert!(locked.contains("Bearer $MEDGEMMA_API_KEY"), "{locked}");
        assert!(locked.contains(r#"{"model": "it'\''s","#), "{locked}");
        let text = greeting("medgemma-4b-pt", Prompts::Text, Door::Open);
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
