//! The real server in this process, with the script behind it.

use std::net::SocketAddr;
use std::sync::mpsc;

use medgemma::api::{ApiKeys, AppState, serve};
use medgemma::config::{self, Command};
use medgemma::core::{BlockCount, KvGroups, PrefixCaching};
use medgemma::engine::{EngineLimits, channel};
use medgemma::registry::{self, ServedModel};
use medgemma::scheduler::SchedulerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::Size;
use crate::script::{self, Pace, Words};

/// Serves until the process ends.
pub(crate) struct Server {
    address: SocketAddr,
    words: Words,
    paces: mpsc::Sender<Pace>,
    sent: mpsc::Receiver<Vec<Vec<u64>>>,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start(size: Size, words: Words) -> Self {
        let (engine, inbox) = channel(EngineLimits {
            scheduler: limits(size),
            max_in_flight: size.num_streams,
            max_queued_tokens: 1 << 30,
            max_queued_per_tenant: None,
        });
        let model = ServedModel { engine, ..demo() };
        let (paces, pace_receiver) = mpsc::channel();
        let (sent_sender, sent) = mpsc::channel();
        {
            let tokenizer = model.tokenizer.clone();
            let words = words.clone();
            let ends = (pace_receiver, sent_sender);
            std::thread::spawn(move || script::play(inbox, size, &words, &tokenizer, ends));
        }

        let runtime = Runtime::new().expect("threads can be had");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
        let listener = listener.expect("loopback can be listened on");
        let address = listener.local_addr().expect("it listens");
        let app = AppState::new(ApiKeys::new(&[] as &[&str]), None);
        app.set_model(model);
        runtime.spawn(serve(listener, app, std::future::pending()));
        Self {
            address,
            words,
            paces,
            sent,
            _runtime: runtime,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    /// Waits for all streams, sends them their tokens, and says when.
    pub(crate) fn play(&self, pace: Pace) -> Vec<Vec<u64>> {
        self.paces.send(pace).expect("the script waits for a pace");
        self.sent.recv().expect("the script plays to its end")
    }
}

/// The built-in model, for its tokenizer and template.
fn demo() -> ServedModel {
    let arguments = ["medgemma", "serve", "demo", "--kv-cache-memory", "16MB"];
    let command = config::parse(arguments.map(Into::into));
    let Ok(Command::Serve(mut settings)) = command else {
        panic!("these are settings of a server");
    };
    settings.program = env!("CARGO_BIN_EXE_medgemma").into();
    let loaded = registry::load(&settings);
    loaded.expect("the demo is in the binary").model
}

fn limits(size: Size) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: size.num_streams,
        max_num_batched_tokens: 2048,
        max_model_len: 1024,
        block_size: 32,
        groups: KvGroups::new(&[None]),
        num_blocks: BlockCount::new(&[1 << 20]),
        prefix_caching: PrefixCaching::On,
    }
}

/// Memory of this process that is in use; 0 where the system does not say.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0)
}
