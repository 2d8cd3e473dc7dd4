//! The scheduler under load, with an H100 in its place: the real scheduler decides, a cost model
//! says how long each step takes.
//!
//!     cargo bench --bench simulation                        # every table, 5,000 requests a row
//!     cargo bench --bench simulation -- 100000              # those of the loads, so many a row
//!     cargo bench --bench simulation -- 1000000 pipelined   # and one host's rows only

#[path = "../harness/mod.rs"]
#[expect(dead_code, reason = "only how it was called is asked here")]
mod harness;

mod gpu;
mod histogram;
mod workload;

use std::collections::VecDeque;
use std::slice::from_ref;
use std::time::Instant;

use gpu::{Grouping, KV_BYTES, Work};
use harness::Mode;
use histogram::Histogram;
use medgemma::core::{PrefixCaching, SeqId, TokenId};
use medgemma::scheduler::{Batch, Scheduler, SchedulerConfig};
use workload::{Arrivals, Conversation, Workload};

/// A request is served well when its first token comes within this many seconds …
const GOOD_FIRST: f64 = 1.0;
/// … and the others this far apart in the mean.
const GOOD_BETWEEN: f64 = 0.05;

/// Requests that wait at most, as the server has it for 256 that run; beyond that they are refused.
const MAX_WAITING: usize = 1024;

/// How host and GPU share the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// Takes no time at all: the ideal.
    Free,
    /// Plans the next step while the GPU computes.
    Pipelined,
    /// Plans while the GPU waits.
    InTurn,
}

impl Host {
    /// To plan a step and to take it in: 20 µs of its own and what the scheduler's bench shows.
    fn seconds(self, num_chunks: usize) -> f64 {
        match self {
            Self::Free => 0.0,
            Self::Pipelined | Self::InTurn => 20e-6 + 0.1e-6 * num_chunks as f64,
        }
    }

    fn max_in_flight(self) -> usize {
        match self {
            Self::Pipelined => 1,
            Self::Free | Self::InTurn => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    num_requests: usize,
    arrivals: Arrivals,
    /// Requests a second.
    rate: f64,
    host: Host,
    grouping: Grouping,
    prefix_caching: PrefixCaching,
    max_chunk: usize,
    max_num_seqs: usize,
    max_waiting: usize,
    kv_bytes: f64,
}

impl Setup {
    fn scheduler(&self) -> Scheduler {
        let max_num_seqs = self.max_num_seqs;
        let num_blocks = self
            .grouping
            .num_blocks(max_num_seqs, self.max_chunk, self.kv_bytes);
        Scheduler::new(SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens: self.max_chunk,
            max_model_len: 131_072,
            block_size: 32,
            groups: self.grouping.groups(),
            num_blocks,
            prefix_caching: self.prefix_caching,
        })
        .expect("limits that work")
    }
}

/// A request that has arrived.
struct Asked {
    conversation: Conversation,
    prompt_len: usize,
    arrival: f64,
    first: f64,
    last: f64,
    num_tokens: usize,
}

struct Outcome {
    num_done: usize,
    num_refused: usize,
    num_good: usize,
    num_answer_tokens: usize,
    seconds: f64,
    first: Histogram,
    between: Histogram,
    hit_share: f64,
    num_preemptions: u64,
}

impl Outcome {
    fn row(&self, what: &str) -> String {
        let ms = |histogram: &Histogram, share| 1e3 * histogram.quantile(share);
        format!(
            "| {what} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} % | {} | {:.1} % |",
            self.num_done as f64 / self.seconds,
            self.num_good as f64 / self.seconds,
            self.num_answer_tokens as f64 / self.seconds,
            ms(&self.first, 0.5),
            ms(&self.first, 0.99),
            ms(&self.between, 0.5),
            ms(&self.between, 0.99),
            100.0 * self.hit_share,
            self.num_preemptions,
            100.0 * self.num_refused as f64 / (self.num_done + self.num_refused) as f64,
        )
    }
}

const HEADER: &str = "\
| | done /s | good /s | tokens /s | first, p50 ms | p99 | between, p50 ms | p99 | found | preempted | refused |
|---|---|---|---|---|---|---|---|---|---|---|";

/// A launched step and when the GPU is done with it.
struct Launched {
    batch: Batch,
    end: f64,
}

struct Simulation {
    setup: Setup,
    scheduler: Scheduler,
    workload: Workload,
    next: Option<(f64, Conversation)>,
    /// By sequence id; `None` when it has ended or was refused.
    asked: Vec<Option<Asked>>,
    in_flight: VecDeque<Launched>,
    host_clock: f64,
    gpu_clock: f64,
    outcome: Outcome,
}

impl Simulation {
    fn new(setup: Setup) -> Self {
        let mut workload = Workload::new(setup.arrivals, setup.rate);
        Self {
            setup,
            scheduler: setup.scheduler(),
            next: Some(workload.next()),
            workload,
            asked: Vec::new(),
            in_flight: VecDeque::new(),
            host_clock: 0.0,
            gpu_clock: 0.0,
            outcome: Outcome {
                num_done: 0,
                num_refused: 0,
                num_good: 0,
                num_answer_tokens: 0,
                seconds: 0.0,
                first: Histogram::new(),
                between: Histogram::new(),
                hit_share: 0.0,
                num_preemptions: 0,
            },
        }
    }

    fn run(mut self) -> Outcome {
        loop {
            self.take_arrivals();
            if self.scheduler.has_work() {
                let batch = self.scheduler.schedule();
                if batch.is_empty() {
                    self.take_in();
                } else {
                    self.launch(batch);
                    while self.in_flight.len() > self.setup.host.max_in_flight() {
                        self.take_in();
                    }
                }
            } else if !self.in_flight.is_empty() {
                self.take_in();
            } else if let Some((arrival, _)) = &self.next {
                self.host_clock = self.host_clock.max(*arrival);
            } else {
                break;
            }
        }
        let stats = self.scheduler.stats();
        assert_eq!(
            self.outcome.num_done + self.outcome.num_refused,
            self.setup.num_requests,
            "a request was lost"
        );
        assert_eq!(stats.num_free_blocks, self.scheduler.config().num_blocks);
        let queried = stats.prefix_queried_tokens.max(1);
        self.outcome.hit_share = stats.prefix_hit_tokens as f64 / queried as f64;
        self.outcome.num_preemptions = stats.num_preemptions;
        self.outcome.seconds = self.host_clock;
        self.outcome
    }

    fn take_arrivals(&mut self) {
        while let Some((arrival, conversation)) =
            self.next.take_if(|(at, _)| *at <= self.host_clock)
        {
            if self.scheduler.num_waiting() < self.setup.max_waiting {
                self.add(arrival, conversation);
            } else {
                self.asked.push(None);
                self.outcome.num_refused += 1;
            }
            if self.asked.len() < self.setup.num_requests {
                self.next = Some(self.workload.next());
            }
        }
    }

    fn add(&mut self, arrival: f64, conversation: Conversation) {
        let request = conversation.request();
        let prompt_len = request.prompt.len();
        let id = SeqId(self.asked.len() as u64);
        self.scheduler.add(id, request).expect("it fits");
        self.asked.push(Some(Asked {
            conversation,
            prompt_len,
            arrival,
            first: 0.0,
            last: 0.0,
            num_tokens: 0,
        }));
    }

    fn launch(&mut self, batch: Batch) {
        let mut work = Work::default();
        for chunk in &batch.chunks {
            let asked = self.asked[chunk.seq.0 as usize].as_ref();
            let has_images = asked.is_some_and(|a| a.conversation.num_images() > 0);
            let num_images = if has_images && chunk.len > 1 {
                let seq = self.scheduler.sequence(chunk.seq).expect("it is scheduled");
                seq.images_in(chunk.start..chunk.end()).len()
            } else {
                0
            };
            work.add_chunk(chunk.start, chunk.len, num_images);
        }
        self.host_clock += self.setup.host.seconds(batch.chunks.len());
        self.gpu_clock = self.gpu_clock.max(self.host_clock) + work.seconds();
        self.in_flight.push_back(Launched {
            batch,
            end: self.gpu_clock,
        });
    }

    fn take_in(&mut self) {
        let launched = self.in_flight.pop_front();
        let Launched { batch, end } = launched.expect("there is work and none of it planned");
        self.host_clock = self.host_clock.max(end);
        let mut sampled: Vec<(SeqId, TokenId)> = Vec::with_capacity(batch.chunks.len());
        for chunk in batch.chunks.iter().filter(|chunk| chunk.num_samples > 0) {
            if let Some(asked) = &mut self.asked[chunk.seq.0 as usize] {
                sampled.push((chunk.seq, asked.conversation.token(chunk.end())));
                if asked.num_tokens == 0 {
                    asked.first = end;
                    self.outcome.first.add(end - asked.arrival);
                } else {
                    self.outcome.between.add(end - asked.last);
                }
                asked.last = end;
                asked.num_tokens += 1;
            }
        }
        let sampled: Vec<_> = sampled.iter().map(|(id, t)| (*id, from_ref(t))).collect();
        for end in self.scheduler.update(&batch, &sampled) {
            let asked = self.asked[end.seq.0 as usize].take().expect("it ends once");
            assert_eq!(asked.num_tokens, asked.conversation.num_answer_tokens());
            assert!(asked.prompt_len > 0);
            let between = (asked.last - asked.first) / (asked.num_tokens - 1).max(1) as f64;
            let is_good = asked.first - asked.arrival <= GOOD_FIRST && between <= GOOD_BETWEEN;
            self.outcome.num_done += 1;
            self.outcome.num_good += usize::from(is_good);
            self.outcome.num_answer_tokens += asked.num_tokens;
        }
    }
}

fn run(what: &str, setup: Setup) {
    let outcome = Simulation::new(setup).run();
    println!("{}", outcome.row(what));
}

/// Both kinds of arrivals at every load, by each host.
fn run_loads(loads: &[f64], hosts: &[Host], at: impl Fn(f64) -> Setup) {
    for arrivals in [Arrivals::Poisson, Arrivals::Bursty] {
        println!("### {arrivals:?} arrivals\n\n{HEADER}");
        for &load in loads {
            for &host in hosts {
                let setup = Setup {
                    host,
                    arrivals,
                    ..at(load)
                };
                let who = match host {
                    Host::Free => "ideal",
                    Host::Pipelined => "pipelined",
                    Host::InTurn => "one step at a time",
                };
                run(&format!("{:.0} %, {who}", 100.0 * load), setup);
            }
        }
        println!();
    }
}

fn main() {
    let mode = Mode::from_arguments();
    let wanted: Option<usize> = std::env::args().find_map(|argument| argument.parse().ok());
    let base = Setup {
        num_requests: mode.pick(5_000, 150),
        arrivals: Arrivals::AtOnce,
        rate: 1.0,
        host: Host::Free,
        grouping: Grouping::SlidingApart,
        prefix_caching: PrefixCaching::On,
        max_chunk: 2048,
        max_num_seqs: 256,
        max_waiting: usize::MAX,
        kv_bytes: KV_BYTES,
    };
    // What the ideal scheduler gets done when there is always something to do.
    let full = Simulation::new(base).run();
    let capacity = full.num_done as f64 / full.seconds;
    println!("100 % is {capacity:.1} requests a second.\n");
    let at = |load: f64| Setup {
        arrivals: Arrivals::Poisson,
        rate: capacity * load,
        host: Host::Pipelined,
        max_waiting: MAX_WAITING,
        ..base
    };
    let loads = [0.1, 0.5, 0.8, 1.0, 1.2, 1.5];

    if let Some(num_requests) = wanted {
        let began = Instant::now();
        let hosts = if std::env::args().any(|argument| argument == "pipelined") {
            &[Host::Pipelined][..]
        } else {
            &[Host::Free, Host::Pipelined]
        };
        run_loads(&loads, hosts, |load| Setup {
            num_requests,
            ..at(load)
        });
        println!("Took {:.0} s.", began.elapsed().as_secs_f64());
        return;
    }
    run_loads(
        mode.pick(&loads[..], &[0.5, 1.5]),
        &[Host::Free, Host::Pipelined, Host::InTurn],
        at,
    );
    println!("### What each part brings, at 80 %\n\n{HEADER}");
    let whole = at(0.8);
    run("everything", whole);
    let setup = Setup {
        prefix_caching: PrefixCaching::Off,
        ..whole
    };
    run("without prefix cache", setup);
    let setup = Setup {
        grouping: Grouping::AllAlike,
        ..whole
    };
    run("without sliding group", setup);
    let short = Setup {
        max_num_seqs: 64,
        kv_bytes: 12e9,
        ..whole
    };
    run("12 GB of KV cache, 64 slots", short);
    let setup = Setup {
        grouping: Grouping::AllAlike,
        ..short
    };
    run("the same without sliding group", setup);
    for max_chunk in [512, 1024, 4096, 8192] {
        let setup = Setup { max_chunk, ..whole };
        run(&format!("{max_chunk} tokens a step instead of 2048"), setup);
    }
}
