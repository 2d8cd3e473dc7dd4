//! Sampled and scored tokens: kept on the device for the next step, and copied to the host.
//!
//! ```text
//! up:    sample_params
//! down:  tokens (rows) │ finite? (rows) │ log-probabilities (rows) │ ranks (rows) │
//!        top tokens (rows, 20) │ their log-probabilities (rows, 20)
//! ```

use std::sync::{Arc, Mutex};

use super::arena::Allocation;
use super::backend::{CudaBackend, count};
use super::device::{Device, DevicePtr, Fetch};
use super::kernels::sampler::{self, Adjust, LogProbabilities, Logits, MAX_TOP};
use super::sample_params::SampleParams;
use super::tensor::CudaTensor;
use crate::backend::sampling::{SampleRow, Sampled, ScoreRow, name_tokens};
use crate::core::{Dtype, TokenId, TokenLogprobs};
use crate::error::{Error, Result};

/// The samples of one step.
pub struct CudaSampledTokens {
    /// The device's output; the tokens come first.
    down: Allocation,
    pending: Mutex<Pending>,
}

/// State of the copy to the host.
enum Pending {
    UnderWay(Fetch, Wanted),
    Here(Vec<Sampled>),
    /// The copy failed; its error was returned already.
    Lost,
}

/// What the rows requested.
struct Wanted {
    vocab_size: usize,
    /// One entry per row.
    top_logprobs: Vec<Option<usize>>,
    /// Rows whose log-probabilities are those of certain tokens.
    named: Vec<NamedTokens>,
}

/// A row whose log-probabilities are those of certain tokens. It is copied to the host as a whole:
/// the tokens may be anywhere, and few requests name any.
struct NamedTokens {
    row: usize,
    tokens: Arc<[TokenId]>,
    /// `(vocab)` f32
    logits: Fetch,
}

impl CudaSampledTokens {
    /// `(rows)` u32
    pub(super) fn tokens(&self) -> DevicePtr {
        self.down.at()
    }

    pub(super) fn wait(&self) -> Result<Vec<Sampled>> {
        let mut pending = self.pending.lock().expect("a fault ends the engine");
        if let Pending::UnderWay(..) = &*pending
            && let Pending::UnderWay(fetch, wanted) =
                std::mem::replace(&mut *pending, Pending::Lost)
        {
            *pending = Pending::Here(wanted.read(&fetch()?)?);
        }
        match &*pending {
            Pending::Here(sampled) => Ok(sampled.clone()),
            _ => Err(Error::Backend("these samples were lost before".to_owned())),
        }
    }
}

/// Samples a token per row of `logits (rows, vocab)`.
pub(super) fn sample<D: Device>(
    backend: &CudaBackend<D>,
    logits: &CudaTensor,
    rows: &[SampleRow<'_>],
) -> Result<CudaSampledTokens> {
    let device = &backend.device;
    let num_rows = rows.len();
    if logits.num_rows != num_rows {
        return Err(Error::Backend(format!("{num_rows} samples of {logits:?}")));
    }
    let up = SampleParams::of_sampled_tokens(rows, logits.width)?;
    let params = backend.alloc(up.bytes.len())?;
    device.upload(&up.bytes, params.at())?;
    let of_model = Logits {
        logits: logits.typed(Dtype::F32, "logits")?,
        params: params.at(),
        num_rows: count(num_rows),
        vocab: count(logits.width),
    };
    let adjusted = up
        .adjusts
        .then(|| backend.alloc_tensor(num_rows, logits.width, Dtype::F32))
        .transpose()?;
    let of_request = match &adjusted {
        Some(adjusted) => {
            let op = Adjust {
                masks: params.at().at(up.masks),
                biases: params.at().at(up.biases),
                seen: params.at().at(up.seen),
                adjusted: adjusted.at,
            };
            sampler::adjust(device, &of_model, &op)?;
            Logits {
                logits: adjusted.at,
                ..of_model
            }
        }
        None => of_model,
    };

    let row_bytes = logits.width * 4;
    let named = rows.iter().enumerate();
    let named = named.filter(|(_, row)| {
        row.params.top_logprobs.is_some() && !row.params.logprob_token_ids.is_empty()
    });
    let named = named.map(|(row, of)| {
        Ok(NamedTokens {
            row,
            tokens: Arc::clone(&of.params.logprob_token_ids),
            logits: device.fetch(of_model.logits.at(row * row_bytes), row_bytes)?,
        })
    });
    let wanted = Wanted {
        vocab_size: logits.width,
        top_logprobs: rows.iter().map(|row| row.params.top_logprobs).collect(),
        named: named.collect::<Result<_>>()?,
    };
    let down = backend.alloc(num_rows * Wanted::ROW_WORDS * 4)?;
    sampler::sample(device, &of_request, down.at())?;
    let num_words = if wanted.top_logprobs.iter().any(Option::is_some) {
        sampler::log_probabilities(device, &of_model, &wanted.places(down.at()))?;
        num_rows * Wanted::ROW_WORDS
    } else {
        2 * num_rows
    };
    let fetch = device.fetch(down.at(), num_words * 4)?;
    Ok(CudaSampledTokens {
        down,
        pending: Mutex::new(Pending::UnderWay(fetch, wanted)),
    })
}

/// Computes the log-probability of one known token per row of `logits (rows, vocab)`.
pub(super) fn score<D: Device>(
    backend: &CudaBackend<D>,
    logits: &CudaTensor,
    rows: &[ScoreRow],
) -> Result<CudaSampledTokens> {
    let device = &backend.device;
    let num_rows = rows.len();
    let in_vocabulary = |row: &ScoreRow| (row.token.0 as usize) < logits.width;
    if logits.num_rows != num_rows || !rows.iter().all(in_vocabulary) {
        return Err(Error::Backend(format!("{num_rows} scores of {logits:?}")));
    }
    let up = SampleParams::of_scores(rows)?;
    let params = backend.alloc(up.bytes.len())?;
    device.upload(&up.bytes, params.at())?;
    let of_model = Logits {
        logits: logits.typed(Dtype::F32, "logits")?,
        params: params.at(),
        num_rows: count(num_rows),
        vocab: count(logits.width),
    };
    let wanted = Wanted {
        vocab_size: logits.width,
        top_logprobs: rows.iter().map(|row| Some(row.num_top)).collect(),
        named: Vec::new(),
    };
    let down = backend.alloc(num_rows * Wanted::ROW_WORDS * 4)?;
    // Stored in place of samples; assumed finite until their numbers say otherwise.
    let tokens = rows.iter().map(|row| row.token.0);
    let tokens: Vec<u8> = tokens
        .chain(std::iter::repeat_n(1, num_rows))
        .flat_map(u32::to_le_bytes)
        .collect();
    device.upload(&tokens, down.at())?;
    sampler::log_probabilities(device, &of_model, &wanted.places(down.at()))?;
    let fetch = device.fetch(down.at(), num_rows * Wanted::ROW_WORDS * 4)?;
    Ok(CudaSampledTokens {
        down,
        pending: Mutex::new(Pending::UnderWay(fetch, wanted)),
    })
}

impl Wanted {
    /// Maximum number of result words per row.
    const ROW_WORDS: usize = 4 + 2 * MAX_TOP as usize;

    /// Addresses of log-probabilities, behind the samples at `down`.
    fn places(&self, down: DevicePtr) -> LogProbabilities {
        let num_rows = self.top_logprobs.len();
        let at = |word: usize| down.at(word * num_rows * 4);
        LogProbabilities {
            sampled_tokens: down,
            chosen: at(2),
            ranks: at(3),
            top_tokens: at(4),
            top: at(4 + MAX_TOP as usize),
        }
    }

    fn read(self, bytes: &[u8]) -> Result<Vec<Sampled>> {
        let words = bytes.as_chunks::<4>().0;
        let whole = |idx: usize| u32::from_le_bytes(words[idx]);
        let real = |idx: usize| f32::from_le_bytes(words[idx]);
        let num_rows = self.top_logprobs.len();
        let max_top = MAX_TOP as usize;
        let sampled = self.top_logprobs.iter().enumerate();
        let sampled = sampled.map(|(row, num_top)| Sampled {
            token: TokenId(whole(row)),
            is_finite: whole(num_rows + row) != 0
                && (num_top.is_none() || !real(2 * num_rows + row).is_nan()),
            logprobs: num_top.map(|num_top| TokenLogprobs {
                logprob: real(2 * num_rows + row),
                rank: whole(3 * num_rows + row),
                top: (0..num_top.min(self.vocab_size))
                    .map(|place| {
                        let token = 4 * num_rows + row * max_top + place;
                        let logprob = token + max_top * num_rows;
                        (TokenId(whole(token)), real(logprob))
                    })
                    .collect(),
            }),
        });
        let mut sampled: Vec<Sampled> = sampled.collect();
        for NamedTokens {
            row,
            tokens,
            logits,
        } in self.named
        {
            let logits = logits()?;
            let logits = logits.as_chunks::<4>().0.iter();
            let logits: Vec<f32> = logits.map(|word| f32::from_le_bytes(*word)).collect();
            let Sampled {
                token, logprobs, ..
            } = &mut sampled[row];
            *logprobs = logprobs
                .take()
                .map(|logprobs| name_tokens(logprobs, *token, &tokens, &logits));
        }
        Ok(sampled)
    }
}
