//! Samples tokens on the device, as specified by [`crate::backend::sampler`].

use std::num::NonZeroU32;
use std::ops::Range;

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::backend::sampler::stream;
use crate::error::Result;

/// `sampler.cu`
pub static SOURCE: Source = Source {
    name: "sampler.cu",
    text: include_str!("sampler.cu"),
};

/// Maximum number of alternatives with log-probabilities per row.
pub const MAX_TOP: u32 = 20;
/// Bit of a count that marks a token of the prompt.
pub const IN_PROMPT: u32 = 1 << 31;

/// Constants of the kernels.
const CHUNK: u32 = 4096;
const SAMPLE_THREADS: u32 = 1024;
const NONE: u32 = u32::MAX;
const CUT_BYTES: u32 = 256 * 8 + 256 * 4 + 16 + 32 * 8;
const TOP_BYTES: u32 = MAX_TOP * 8 + 8;
const KEPT_BYTES: u32 = 1024 * 8 + 8;

/// Sampling parameters of one row.
#[derive(Clone, Debug)]
pub struct RowParams {
    /// Temperature; 0 means greedy.
    pub temperature: f32,
    /// Top-p; 1 means off.
    pub top_p: f32,
    /// Min-p; 0 means off.
    pub min_p: f32,
    /// Top-k; `None` means off.
    pub top_k: Option<NonZeroU32>,
    /// Seed; with the position it determines the random numbers.
    pub seed: u64,
    /// Position of the token to be sampled.
    pub position: usize,
    /// Penalties for earlier tokens.
    pub penalties: Penalties,
    /// Range of entries in the list of seen tokens; each token once.
    pub seen: Range<u32>,
    /// Row of the masks; `None` if all tokens are allowed.
    pub mask_row: Option<u32>,
    /// Range of entries in the list of biases; each token once. −∞ forbids a token.
    pub biases: Range<u32>,
    /// Number of alternatives to report, at most [`MAX_TOP`]; 0 reports the sample only.
    pub num_top: Option<u32>,
}

/// Penalties for earlier tokens, as vLLM defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Subtracted once from the logits of tokens that were sampled before.
    pub presence: f32,
    /// Subtracted for each time that a token was sampled.
    pub frequency: f32,
    /// Divides positive and multiplies negative logits of tokens that were sampled or in the
    /// prompt; 1 means off.
    pub repetition: f32,
}

impl Penalties {
    /// No penalties.
    pub const NONE: Self = Self {
        presence: 0.0,
        frequency: 0.0,
        repetition: 1.0,
    };
}

/// Bytes of a packed [`RowParams`].
pub const ROW_BYTES: usize = 64;

impl RowParams {
    /// Packs the parameters in the kernels' layout.
    pub fn to_bytes(&self) -> [u8; ROW_BYTES] {
        let inverse = if self.temperature == 0.0 {
            0.0
        } else {
            1.0 / self.temperature
        };
        let log_min_p = if self.min_p > 0.0 {
            self.min_p.ln()
        } else {
            f32::NEG_INFINITY
        };
        let penalties = &self.penalties;
        let stream = stream(self.seed, self.position);
        let words = [
            inverse.to_bits(),
            self.top_p.to_bits(),
            log_min_p.to_bits(),
            self.top_k.map_or(0, NonZeroU32::get),
            stream as u32,
            (stream >> 32) as u32,
            penalties.presence.to_bits(),
            penalties.frequency.to_bits(),
            penalties.repetition.to_bits(),
            self.mask_row.unwrap_or(NONE),
            self.seen.start,
            self.seen.len() as u32,
            self.biases.start,
            self.biases.len() as u32,
            0,
            self.num_top.unwrap_or(NONE),
        ];
        let mut bytes = [0; ROW_BYTES];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        bytes
    }
}

/// Rows of logits and their sampling parameters.
#[derive(Clone, Copy, Debug)]
pub struct Logits {
    /// `(rows, vocab)` f32
    pub logits: DevicePtr,
    /// `(rows)` packed [`RowParams`]
    pub params: DevicePtr,
    /// Number of rows.
    pub num_rows: u32,
    /// Size of the vocabulary.
    pub vocab: u32,
}

/// Inputs that change logits. An address that no row refers to is never read.
#[derive(Clone, Copy, Debug)]
pub struct Adjust {
    /// `(…, ⌈vocab / 32⌉)` u32, a bit per allowed token
    pub masks: DevicePtr,
    /// `(…, 2)` of token u32 and bias f32
    pub biases: DevicePtr,
    /// `(…, 2)` u32: a token and how often it was sampled, with [`IN_PROMPT`]
    pub seen: DevicePtr,
    /// `(rows, vocab)` f32; may be the logits themselves if no log-probabilities are needed.
    pub adjusted: DevicePtr,
}

fn kernel_of(function: &'static str) -> KernelId<'static> {
    KernelId {
        source: &SOURCE,
        function,
        defines: &[],
    }
}

fn check(of: &Logits) -> Result<()> {
    require(of.vocab > 0, || "sampler: an empty vocabulary".to_owned())?;
    require_aligned("sampler", &[of.params])
}

/// Applies masks, biases and penalties, in this order.
///
/// # Errors
/// Fails for addresses that the kernel does not support; returns the device's errors.
pub fn adjust<D: Device>(device: &D, of: &Logits, op: &Adjust) -> Result<()> {
    check(of)?;
    require(
        op.biases.0.is_multiple_of(8) && op.seen.0.is_multiple_of(8),
        || "adjust: pairs are read as one".to_owned(),
    )?;
    let args = [
        Arg::Ptr(of.logits),
        Arg::Ptr(of.params),
        Arg::U32(of.vocab),
        Arg::Ptr(op.masks),
        Arg::Ptr(op.biases),
        Arg::Ptr(op.seen),
        Arg::Ptr(op.adjusted),
    ];
    let shape = Shape {
        grid: [of.vocab.div_ceil(CHUNK), of.num_rows, 1],
        threads: 256,
    };
    launch(device, kernel_of("adjust"), shape, CHUNK * 4, &args)
}

/// Samples a token per row into `samples (2, rows)` u32. After the tokens follows, per row, whether
/// its logits were finite (1 or 0).
///
/// # Errors
/// Fails for addresses that the kernel does not support; returns the device's errors.
pub fn sample<D: Device>(device: &D, of: &Logits, sampled_tokens: DevicePtr) -> Result<()> {
    check(of)?;
    let args = [
        Arg::Ptr(of.logits),
        Arg::Ptr(of.params),
        Arg::U32(of.vocab),
        Arg::Ptr(sampled_tokens),
    ];
    let shape = Shape {
        grid: [of.num_rows, 1, 1],
        threads: SAMPLE_THREADS,
    };
    launch(
        device,
        kernel_of("sample"),
        shape,
        CUT_BYTES + KEPT_BYTES,
        &args,
    )
}

/// Destinations of log-probabilities; rows that need none are not written.
#[derive(Clone, Copy, Debug)]
pub struct LogProbabilities {
    /// `(rows)` u32, from [`sample`]
    pub sampled_tokens: DevicePtr,
    /// `(rows)` f32: log-probabilities of the samples
    pub chosen: DevicePtr,
    /// `(rows)` u32: number of tokens that are at least as probable
    pub ranks: DevicePtr,
    /// `(rows, MAX_TOP)` u32, best first
    pub top_tokens: DevicePtr,
    /// `(rows, MAX_TOP)` f32
    pub top: DevicePtr,
}

/// Computes log-probabilities of the model's own distribution: `of.logits` must not be adjusted.
///
/// # Errors
/// Fails for addresses that the kernel does not support; returns the device's errors.
pub fn log_probabilities<D: Device>(device: &D, of: &Logits, op: &LogProbabilities) -> Result<()> {
    check(of)?;
    let args = [
        Arg::Ptr(of.logits),
        Arg::Ptr(of.params),
        Arg::U32(of.vocab),
        Arg::Ptr(op.sampled_tokens),
        Arg::Ptr(op.chosen),
        Arg::Ptr(op.ranks),
        Arg::Ptr(op.top_tokens),
        Arg::Ptr(op.top),
    ];
    let shape = Shape {
        grid: [of.num_rows, 1, 1],
        threads: SAMPLE_THREADS,
    };
    launch(
        device,
        kernel_of("log_probabilities"),
        shape,
        CUT_BYTES + TOP_BYTES,
        &args,
    )
}
