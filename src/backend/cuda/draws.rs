//! Drawn tokens: on the device for the next step, and on their way to the host.
//!
//! ```text
//! up:    params (rows, 64 bytes) │ bans
//! down:  tokens (rows) │ soundness (rows) │ log-probabilities (rows) │ top tokens (rows, 20) │
//!        theirs (rows, 20)
//! ```

use std::sync::Mutex;

use super::arena::Region;
use super::backend::{CudaBackend, count};
use super::device::{Device, DevicePtr, Fetch};
use super::kernels::sampler::{
    self, Adjust, LogProbabilities, Logits, MAX_TOP, ROW_BYTES, RowParams,
};
use super::tensor::{CudaTensor, Dtype};
use crate::backend::{SampleRow, Sampled};
use crate::core::{TokenId, TokenLogprobs};
use crate::error::{Error, Result};

/// One step's draws.
pub struct CudaDraws {
    /// What the device wrote, the tokens first.
    down: Region,
    pending: Mutex<Pending>,
}

/// Draws on their way.
enum Pending {
    UnderWay(Fetch, Wanted),
    Here(Vec<Sampled>),
    /// The copy failed; what it said was told.
    Lost,
}

/// What the rows asked for.
struct Wanted {
    vocab_size: usize,
    /// One entry per row.
    top_logprobs: Vec<Option<usize>>,
}

impl CudaDraws {
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
            *pending = Pending::Here(wanted.read(&fetch()?));
        }
        match &*pending {
            Pending::Here(sampled) => Ok(sampled.clone()),
            _ => Err(Error::Backend("these draws were lost before".to_owned())),
        }
    }
}

/// Draws a token per row of `logits (rows, vocab)`.
pub(super) fn sample<D: Device>(
    backend: &CudaBackend<D>,
    logits: &CudaTensor,
    rows: &[SampleRow<'_>],
) -> Result<CudaDraws> {
    let device = &backend.device;
    let num_rows = rows.len();
    if logits.num_rows != num_rows {
        return Err(Error::Backend(format!("{num_rows} draws of {logits:?}")));
    }
    let (up, has_bans) = pack(rows)?;
    let params = backend.cut(up.len())?;
    device.upload(&up, params.at())?;
    let of_model = Logits {
        logits: logits.typed(Dtype::F32, "logits")?,
        params: params.at(),
        num_rows: count(num_rows),
        vocab: count(logits.width),
    };
    let unused = of_model.logits;

    let adjusted = has_bans
        .then(|| backend.room(num_rows, logits.width, Dtype::F32))
        .transpose()?;
    let of_request = match &adjusted {
        Some(adjusted) => {
            let op = Adjust {
                biases: unused,
                bans: params.at().at(num_rows * ROW_BYTES),
                masks: unused,
                counts: unused,
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

    let wanted = Wanted {
        vocab_size: logits.width,
        top_logprobs: rows.iter().map(|row| row.params.top_logprobs).collect(),
    };
    let down = backend.cut(num_rows * Wanted::ROW_WORDS * 4)?;
    sampler::draw(device, &of_request, unused, down.at())?;
    let num_words = if wanted.top_logprobs.iter().any(Option::is_some) {
        let at = |word: usize| down.at().at(word * 4);
        let op = LogProbabilities {
            draws: down.at(),
            chosen: at(2 * num_rows),
            top_tokens: at(3 * num_rows),
            top: at((3 + MAX_TOP as usize) * num_rows),
        };
        sampler::log_probabilities(device, &of_model, &op)?;
        num_rows * Wanted::ROW_WORDS
    } else {
        2 * num_rows
    };
    let fetch = device.fetch(down.at(), num_words * 4)?;
    Ok(CudaDraws {
        down,
        pending: Mutex::new(Pending::UnderWay(fetch, wanted)),
    })
}

/// The rows' parameters and their bans, and whether there are any.
fn pack(rows: &[SampleRow<'_>]) -> Result<(Vec<u8>, bool)> {
    let mut params = Vec::with_capacity(rows.len() * ROW_BYTES);
    let mut bans: Vec<u32> = Vec::new();
    for row in rows {
        let first_ban = count(bans.len());
        if row.num_generated < row.params.min_tokens {
            let mut banned: Vec<u32> = row.params.stop_token_ids.iter().map(|id| id.0).collect();
            banned.sort_unstable();
            banned.dedup();
            bans.extend(banned);
        }
        let num_top = row.params.top_logprobs;
        if num_top.is_some_and(|num_top| num_top > MAX_TOP as usize) {
            return Err(Error::Backend(format!(
                "{num_top:?} log-probabilities of a token; {MAX_TOP} is the most"
            )));
        }
        let packed = RowParams {
            temperature: row.params.temperature,
            top_p: row.params.top_p,
            min_p: row.params.min_p,
            top_k: row.params.top_k,
            seed: row.params.seed,
            position: row.position,
            penalties: None,
            mask_row: None,
            bans: first_ban..count(bans.len()),
            biases: 0..0,
            num_top: num_top.map(count),
        };
        params.extend(packed.to_bytes());
    }
    let has_bans = !bans.is_empty();
    params.extend(bans.iter().flat_map(|ban| ban.to_le_bytes()));
    Ok((params, has_bans))
}

impl Wanted {
    /// Words that come back per row at most.
    const ROW_WORDS: usize = 3 + 2 * MAX_TOP as usize;

    fn read(&self, bytes: &[u8]) -> Vec<Sampled> {
        let words = bytes.as_chunks::<4>().0;
        let whole = |idx: usize| u32::from_le_bytes(words[idx]);
        let real = |idx: usize| f32::from_le_bytes(words[idx]);
        let num_rows = self.top_logprobs.len();
        let max_top = MAX_TOP as usize;
        self.top_logprobs
            .iter()
            .enumerate()
            .map(|(row, num_top)| Sampled {
                token: TokenId(whole(row)),
                is_sound: whole(num_rows + row) != 0,
                logprobs: num_top.map(|num_top| TokenLogprobs {
                    rank: 1,
                    logprob: real(2 * num_rows + row),
                    top: (0..num_top.min(self.vocab_size))
                        .map(|place| {
                            let token = 3 * num_rows + row * max_top + place;
                            let logprob = token + max_top * num_rows;
                            (TokenId(whole(token)), real(logprob))
                        })
                        .collect(),
                }),
            })
            .collect()
    }
}
