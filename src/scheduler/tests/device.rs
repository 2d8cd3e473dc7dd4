//! A fake device that computes nothing and records everything: what each slot of the KV cache
//! holds. So a query that reads a wrong key is noticed, however the wrong key got there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::{BlockId, BlockTable, CacheSalt, ImageSpan};

use super::super::Chunk;
use super::*;

/// Hash of all that a key depends on: every token and image up to its position, all images of its
/// own run, also behind it, and the cache salt.
pub(super) type Identity = u64;

fn identity(parts: impl Hash) -> Identity {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// A sequence as the device sees it, including tokens that the host has not seen yet.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) tokens: Vec<TokenId>,
    keys: Vec<Identity>,
}

impl Contents {
    pub(super) fn of_prompt(request: &GenerateRequest) -> Self {
        let mut contents = Self {
            tokens: Vec::new(),
            keys: Vec::new(),
        };
        let salt = request.scheduling.cache_salt.map(|CacheSalt(salt)| salt);
        let mut last = identity(salt);
        for (position, &token) in request.prompt.iter().enumerate() {
            let run = run_at(&request.images, position);
            let images: Vec<_> = run
                .iter()
                .map(|image| (image.start, image.len, image.pixels.hash))
                .collect();
            last = identity((last, token, images));
            contents.tokens.push(token);
            contents.keys.push(last);
        }
        contents
    }

    pub(super) fn push(&mut self, token: TokenId) {
        let last = *self.keys.last().expect("a prompt is never empty");
        let none: [(usize, usize, ImageHash); 0] = [];
        self.keys.push(identity((last, token, none.as_slice())));
        self.tokens.push(token);
    }

    /// Greedy sampling: the same prefix continues in the same way.
    pub(super) fn next_token(&self, len: usize) -> TokenId {
        match self.keys[len - 1] % 8 {
            0 => STOP,
            dice => TokenId(10 + dice as u32 % 3),
        }
    }
}

/// Adjacent images around a position, if it is in one.
fn run_at(images: &[ImageSpan], position: usize) -> &[ImageSpan] {
    let covers = |image: &ImageSpan| (image.start..image.start + image.len).contains(&position);
    let Some(idx) = images.iter().position(covers) else {
        return &[];
    };
    let touch = |pair: &[ImageSpan]| pair[0].start + pair[0].len == pair[1].start;
    let mut first = idx;
    while first > 0 && touch(&images[first - 1..=first]) {
        first -= 1;
    }
    let mut last = idx;
    while last + 1 < images.len() && touch(&images[last..=last + 1]) {
        last += 1;
    }
    &images[first..=last]
}

/// One group's blocks.
#[derive(Debug, Default)]
struct Memory(HashMap<(BlockId, usize), Identity>);

impl Memory {
    fn write(&mut self, table: &BlockTable, chunk: &Chunk, contents: &Contents) {
        for position in chunk.start..chunk.end() {
            let slot = table.slot(position).expect("a computed token has a place");
            self.0.insert(slot, contents.keys[position]);
        }
    }

    fn read(&self, table: &BlockTable, chunk: &Chunk, first: usize, contents: &Contents) {
        for position in first..chunk.end() {
            let slot = table.slot(position);
            let slot = slot.unwrap_or_else(|| panic!("{chunk:?}: key {position} has no place"));
            assert_eq!(
                self.0.get(&slot),
                Some(&contents.keys[position]),
                "{chunk:?} reads another key at {position}"
            );
        }
    }
}

/// The blocks of each group.
#[derive(Debug, Default)]
pub(super) struct Device {
    memories: [Memory; MAX_KV_GROUPS],
}

impl Device {
    /// Runs a batch as the model does: all keys of the step are written, then each query reads what
    /// it sees. `contents` belong to the chunks' sequences.
    pub(super) fn run(&mut self, scheduler: &Scheduler, work: &[(&Chunk, Contents)]) {
        let sequence = |chunk: &Chunk| scheduler.sequence(chunk.seq).expect("it is in the batch");
        let groups = scheduler.config().groups;
        for (group, window) in groups.windows().iter().enumerate() {
            let memory = &mut self.memories[group];
            for (chunk, contents) in work {
                memory.write(&sequence(chunk).tables()[group], chunk, contents);
            }
            for (chunk, contents) in work {
                // k > q − window for the first query q, up to the last query itself.
                let first = window.map_or(0, |window| (chunk.start + 1).saturating_sub(window));
                memory.read(&sequence(chunk).tables()[group], chunk, first, contents);
            }
        }
    }
}
