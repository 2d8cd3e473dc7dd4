//! What the server itself costs: a thousand streams whose tokens come from a script instead of a
//! model, over real sockets, on whatever cores there are.
//!
//!     cargo bench --bench overhead
//!
//! The clients are a process of their own on the same cores, so the figures are lower bounds on what
//! the server can do. Each client knows which words must come in which order, and the bench fails if
//! others do.

#[expect(dead_code, reason = "nothing here is worth a median")]
#[path = "../harness/mod.rs"]
mod harness;

mod clients;
mod script;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clients::{Arrivals, Clients};
use harness::{Mode, report};
use script::{Pace, Words};
use server::Server;

/// Streams at a time and tokens of each.
#[derive(Clone, Copy, Debug)]
struct Size {
    num_streams: usize,
    num_tokens: usize,
}

/// With every token its log-probability and five others, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logprobs {
    Without,
    With,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "clients") {
        return clients::run(&arguments[2..]);
    }
    let mode = Mode::from_arguments();
    let size = Size {
        num_streams: mode.pick(1_000, 10),
        num_tokens: mode.pick(100, 5),
    };
    let words = Words::new();
    let server = Server::start(size, words.clone());
    let idle = server::resident_kib();
    for logprobs in [Logprobs::Without, Logprobs::With] {
        let with = match logprobs {
            Logprobs::Without => "",
            Logprobs::With => ", log-probabilities",
        };
        // A step in which each stream gets a token, as a busy engine has them.
        let interval = Duration::from_millis(mode.pick(100, 1));
        let paced = measure(&server, size, logprobs, Pace::Every(interval));
        let load = format!("{:.0} tokens/s{with}", paced.per_second);
        report(
            &format!("added latency at {load}, p50"),
            paced.delay(0.5),
            "ms",
        );
        report(
            &format!("added latency at {load}, p99"),
            paced.delay(0.99),
            "ms",
        );
        // What was taken once is not given back, so this is the most at any time.
        let memory = paced.resident_kib.saturating_sub(idle) as f64 / size.num_streams as f64;
        report(&format!("memory{with}"), memory, "KiB/stream");
        let at_once = measure(&server, size, logprobs, Pace::AtOnce);
        report(
            &format!("tokens as fast as they go{with}"),
            at_once.per_second,
            "tokens/s",
        );
    }
    ExitCode::SUCCESS
}

/// What one run showed.
struct Figures {
    per_second: f64,
    /// From the engine's hand to the client's, in ms; ascending.
    delays: Vec<f64>,
    /// Memory of the server's process with all streams open.
    resident_kib: u64,
}

impl Figures {
    fn delay(&self, share: f64) -> f64 {
        let last = self.delays.len() - 1;
        self.delays[(last as f64 * share).round() as usize]
    }
}

fn measure(server: &Server, size: Size, logprobs: Logprobs, pace: Pace) -> Figures {
    let clients = Clients::start(server.address(), size, logprobs, server.words());
    let sent = server.play(pace);
    // Every stream is open, and some of its tokens are on their way.
    let resident_kib = server::resident_kib();
    let arrivals = clients.finish();

    let first = *sent.iter().flatten().min().expect("tokens were sent");
    let last = *arrivals.0.iter().flatten().max().expect("tokens arrived");
    let elapsed = last.saturating_sub(first) as f64 / 1e9;
    Figures {
        per_second: (size.num_streams * size.num_tokens) as f64 / elapsed,
        delays: delays(&sent, &arrivals),
        resident_kib,
    }
}

fn delays(sent: &[Vec<u64>], arrivals: &Arrivals) -> Vec<f64> {
    let pairs = sent.iter().flatten().zip(arrivals.0.iter().flatten());
    let mut delays: Vec<f64> = pairs
        .map(|(sent, arrived)| arrived.saturating_sub(*sent) as f64 / 1e6)
        .collect();
    delays.sort_by(f64::total_cmp);
    delays
}
