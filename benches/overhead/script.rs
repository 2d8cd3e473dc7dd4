//! An engine without a model: each stream gets words that tell which stream and which place they
//! belong to, at the pace that the bench sets.

use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use medgemma::core::{FinishReason, TokenEvent, TokenId, TokenLogprobs};
use medgemma::engine::{Command, EngineInbox, Submission};
use medgemma::text::{AddSpecialTokens, Tokenizer};

use crate::Size;

/// How fast tokens come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// All that there are.
    AtOnce,
    /// One to each stream, and again after this time.
    Every(Duration),
}

/// Words that are one token each.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) texts: Vec<String>,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self {
            texts: ('a'..='z').map(|letter| format!("{letter}")).collect(),
        }
    }

    /// What stream `stream` says at `place`: neighbours in either direction differ.
    pub(crate) fn at(&self, stream: usize, place: usize) -> usize {
        (stream * 7 + place) % self.texts.len()
    }

    fn ids(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let id = |text: &String| {
            let ids = tokenizer.encode_raw(text, AddSpecialTokens::No);
            match ids.expect("letters have tokens").as_slice() {
                [id] => *id,
                ids => panic!("{text} is {} tokens", ids.len()),
            }
        };
        self.texts.iter().map(id).collect()
    }
}

/// Plays each of the paces that arrive, once all streams of it are there, and says when each token
/// was sent: Unix time in ns, by stream and place.
pub(crate) fn play(
    mut inbox: EngineInbox,
    size: Size,
    words: &Words,
    tokenizer: &Tokenizer,
    (paces, sent): (mpsc::Receiver<Pace>, mpsc::Sender<Vec<Vec<u64>>>),
) {
    let ids = words.ids(tokenizer);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without anything");
    while let Ok(pace) = paces.recv() {
        let mut streams = runtime.block_on(gather(&mut inbox, size.num_streams));
        let mut times = vec![Vec::with_capacity(size.num_tokens); size.num_streams];
        let began = Instant::now();
        for place in 0..size.num_tokens {
            if let Pace::Every(interval) = pace {
                let due = began + interval * place as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            for submission in &mut streams {
                // Streams are numbered by their seeds.
                let stream = submission.request.sampling.seed as usize;
                let token = ids[words.at(stream, place)];
                times[stream].push(unix_ns());
                submission.events.send(Ok(TokenEvent {
                    token,
                    logprobs: submission.request.sampling.top_logprobs.map(|num_top| {
                        TokenLogprobs {
                            logprob: -0.5,
                            rank: 1,
                            top: ids[..num_top].iter().map(|id| (*id, -1.5)).collect(),
                        }
                    }),
                    finish: (place + 1 == size.num_tokens).then_some(FinishReason::Length),
                    prompt_logprobs: None,
                    num_cached_tokens: 0,
                    queued: Duration::ZERO,
                    num_preemptions: 0,
                }));
            }
        }
        if sent.send(times).is_err() {
            return;
        }
    }
}

async fn gather(inbox: &mut EngineInbox, num_streams: usize) -> Vec<Submission> {
    let mut streams = Vec::with_capacity(num_streams);
    while streams.len() < num_streams {
        match inbox.recv().await {
            Some(Command::Submit(submission)) => streams.push(*submission),
            Some(Command::Abort(id)) => panic!("client {id} has left"),
            Some(Command::Drain) => {}
            None => panic!("the server is gone"),
        }
    }
    streams
}

/// A clock that both processes share.
pub(crate) fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is after 1970").as_nanos() as u64
}
