//! What transformers computed, as `tests/golden/generate.py` wrote it down.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use medgemma::core::TokenId;
use safetensors::SafeTensors;
use serde::Deserialize;

/// A file below `tests/golden`.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(relative)
}

/// Everything written down for one tiny model.
pub(crate) struct Numbers {
    pub(crate) cases: HashMap<String, Case>,
    /// With the head of `models/untied_head.safetensors`; multimodal model only.
    pub(crate) untied: Option<Untied>,
    tensors: Vec<u8>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) images: Vec<String>,
    pub(crate) ids: Vec<TokenId>,
    /// Tokens at which hidden states were kept.
    pub(crate) positions: Vec<usize>,
    pub(crate) greedy: Vec<GreedyToken>,
}

#[derive(Deserialize)]
pub(crate) struct Untied {
    pub(crate) case: String,
    pub(crate) greedy: Vec<GreedyToken>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct GreedyToken {
    pub(crate) token: TokenId,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<(TokenId, f32)>,
}

impl Numbers {
    pub(crate) fn of(model: &str) -> Self {
        let json = fs::read(path(&format!("numbers/{model}.json"))).expect("goldens are there");
        let mut entries: HashMap<String, serde_json::Value> =
            serde_json::from_slice(&json).expect("goldens are JSON");
        let untied = entries
            .remove("untied_head")
            .map(|entry| serde_json::from_value(entry).expect("an untied entry"));
        let cases = entries
            .into_iter()
            .map(|(name, case)| (name, serde_json::from_value(case).expect("a case")))
            .collect();
        let tensors =
            fs::read(path(&format!("numbers/{model}.safetensors"))).expect("goldens are there");
        Self {
            cases,
            untied,
            tensors,
        }
    }

    /// Shape and values.
    pub(crate) fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.bytes(name);
        let values = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        (shape, values)
    }

    /// Shape and raw bytes.
    pub(crate) fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.tensors).expect("goldens are safetensors");
        let view = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no golden called {name}"));
        (view.shape().to_vec(), view.data().to_vec())
    }
}

/// Fails with the worst difference if any exceeds `tolerance`.
#[track_caller]
pub(crate) fn assert_close(what: &str, ours: &[f32], reference: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), reference.len(), "{what}: different sizes");
    let (index, worst) = ours
        .iter()
        .zip(reference)
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        // NaN must lose, so it counts as the largest.
        .fold((0, 0.0_f32), |worst, (index, difference)| {
            if difference > worst.1 || difference.is_nan() {
                (index, difference)
            } else {
                worst
            }
        });
    assert!(
        worst <= tolerance,
        "{what}: {} at {index} where the reference has {}, off by {worst} (allowed {tolerance})",
        ours[index],
        reference[index]
    );
}
