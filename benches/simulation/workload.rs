//! Who asks what and when: chats with few system prompts, questions on images, long documents,
//! follow-up questions, several answers to one prompt.

use std::collections::VecDeque;
use std::sync::Arc;

use medgemma::core::{
    GenerateRequest, ImageHash, ImageSpan, PixelValues, SamplingParams, SchedulingParams, TenantId,
    TokenId,
};

/// Sampled where an answer ends before its limit.
pub(crate) const STOP: TokenId = TokenId(1);
const SYSTEM_PROMPT: usize = 384;
const IMAGE_TOKENS: usize = 256;

/// Repeatable random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Between the two, each order of magnitude as likely.
    fn spread(&mut self, least: usize, most: usize) -> usize {
        (least as f64 * (most as f64 / least as f64).powf(self.unit())) as usize
    }
}

/// The finaliser of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A conversation whose text follows from its number, prompts and answers alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation {
    seed: u64,
    num_images: usize,
    /// Length of the prompt.
    prompt: usize,
    /// Length of the answer.
    answer: usize,
    /// Whether the answer ends with a stop token, or at its limit.
    stops: bool,
}

impl Conversation {
    /// The token at a position.
    pub(crate) fn token(&self, position: usize) -> TokenId {
        if self.stops && position + 1 == self.prompt + self.answer {
            return STOP;
        }
        let seed = if position < SYSTEM_PROMPT {
            self.seed % 4
        } else {
            self.seed
        };
        TokenId(10 + (mix(seed ^ ((position as u64) << 40)) % 200_000) as u32)
    }

    pub(crate) fn num_images(&self) -> usize {
        self.num_images
    }

    pub(crate) fn num_answer_tokens(&self) -> usize {
        self.answer
    }

    pub(crate) fn request(&self) -> GenerateRequest {
        let images = (0..self.num_images).map(|idx| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(self.seed + idx as u64).to_le_bytes());
            ImageSpan {
                start: SYSTEM_PROMPT + 8 + idx * (IMAGE_TOKENS + 4),
                len: IMAGE_TOKENS,
                pixels: PixelValues {
                    size: 0,
                    rgb: Arc::new([]),
                    hash: ImageHash(hash),
                },
            }
        });
        let limit = if self.stops {
            2 * self.answer
        } else {
            self.answer
        };
        GenerateRequest {
            prompt: (0..self.prompt)
                .map(|position| self.token(position))
                .collect(),
            images: images.collect(),
            sampling: SamplingParams {
                stop_token_ids: vec![STOP],
                ..SamplingParams::greedy(limit)
            },
            scheduling: SchedulingParams {
                tenant: TenantId(self.seed % 16),
                ..SchedulingParams::default()
            },
            constraint: None,
            prompt_logprobs: None,
        }
    }
}

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrivals {
    Poisson,
    /// Twenty at once on average.
    Bursty,
    /// All at the beginning.
    AtOnce,
}

/// An endless stream of requests.
pub(crate) struct Workload {
    random: Random,
    arrivals: Arrivals,
    /// Requests a second.
    rate: f64,
    clock: f64,
    left_in_burst: usize,
    recent: VecDeque<Conversation>,
    /// The last prompt once more, for another answer.
    again: Option<Conversation>,
}

impl Workload {
    pub(crate) fn new(arrivals: Arrivals, rate: f64) -> Self {
        Self {
            random: Random::new(7),
            arrivals,
            rate,
            clock: 0.0,
            left_in_burst: 0,
            recent: VecDeque::new(),
            again: None,
        }
    }

    /// When the next request comes, in seconds, and what it is.
    pub(crate) fn next(&mut self) -> (f64, Conversation) {
        let conversation = self.conversation();
        match self.arrivals {
            Arrivals::AtOnce => {}
            Arrivals::Poisson => self.clock += self.random.exponential(1.0 / self.rate),
            Arrivals::Bursty if self.left_in_burst > 0 => self.left_in_burst -= 1,
            Arrivals::Bursty => {
                self.left_in_burst = self.random.below(39);
                self.clock += self.random.exponential(20.0 / self.rate);
            }
        }
        (self.clock, conversation)
    }

    fn conversation(&mut self) -> Conversation {
        if let Some(again) = self.again.take() {
            return again;
        }
        let random = &mut self.random;
        let kind = random.below(100);
        let old = random.below(self.recent.len().max(1));
        let seed = random.next();
        let answer = 1 + random.exponential(160.0).min(1500.0) as usize;
        let stops = random.below(2) == 0;
        let new = |num_images, prompt| Conversation {
            seed,
            num_images,
            prompt,
            answer,
            stops,
        };
        let conversation = match (kind, self.recent.get(old)) {
            // A follow-up on an older one, its text and answer included.
            (0..20, Some(&before)) => Conversation {
                prompt: before.prompt + before.answer + random.spread(20, 200),
                answer,
                ..before
            },
            (20..45, _) => {
                let num_images = 1 + random.below(3);
                let before = SYSTEM_PROMPT + 8 + num_images * (IMAGE_TOKENS + 4);
                new(num_images, before + random.spread(10, 200))
            }
            (45..55, _) => new(0, SYSTEM_PROMPT + random.spread(2_000, 16_000)),
            _ => new(0, SYSTEM_PROMPT + random.spread(30, 1_000)),
        };
        if random.below(20) == 0 {
            self.again = Some(conversation);
        }
        self.recent.push_back(conversation);
        if self.recent.len() > 200 {
            self.recent.pop_front();
        }
        conversation
    }
}
