//! Checks of the operations without a cache: matmuls, norms, activations, and the vision encoder's.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::random::{activations, numbers, step, tensor, weight};
use super::{Effort, Sizes};
use crate::backend::{
    Backend, HostLinear, HostTensor, KvLayout, NormPair, PoolLayout, Role, SampleRow,
};
use crate::core::{ImageHash, PixelValues, SamplingParams};
use crate::error::Result;

const EPS: f64 = 1e-6;

/// A check of one operation at one shape.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// `(rows, k) · (n, k)ᵀ`
    Linear {
        rows: usize,
        n: usize,
        k: usize,
    },
    /// A matmul with a bias.
    LinearBias {
        rows: usize,
        n: usize,
        k: usize,
    },
    /// A matmul with a weight that is stored `(k, n)`.
    Transposed {
        rows: usize,
        n: usize,
        k: usize,
    },
    RmsNorm {
        rows: usize,
        width: usize,
    },
    /// Both results, one after the other.
    AddNormNorm {
        rows: usize,
        width: usize,
    },
    Geglu {
        rows: usize,
        width: usize,
    },
    KeepRows {
        rows: usize,
        width: usize,
    },
    PutImageFeatures {
        rows: usize,
        width: usize,
    },
    LayerNorm {
        rows: usize,
        width: usize,
    },
    Gelu {
        rows: usize,
        width: usize,
    },
    Add {
        rows: usize,
        width: usize,
    },
    /// A norm, then a matmul with a weight that is stored `(k, n)`.
    NormLinear {
        rows: usize,
        n: usize,
        k: usize,
    },
    PatchEmbed {
        images: usize,
        patch: usize,
    },
    FullAttention {
        images: usize,
        patches: usize,
        heads: usize,
        head_dim: usize,
    },
    /// Tokens and log-probabilities, greedy and random, with and without filters.
    Sample {
        rows: usize,
        vocab: usize,
    },
    AveragePool {
        images: usize,
        grid: usize,
        kernel: usize,
    },
}

/// All operations, at the sizes at which kernels switch strategy: one row, a few, a tile and one
/// more, many.
pub(super) fn all(effort: Effort) -> Vec<Operation> {
    use Operation::*;

    let mut all = Vec::new();
    let (all_rows, some_rows, products): (&[usize], &[usize], &[(usize, usize)]) = match effort {
        Effort::Full => (
            &[1, 2, 5, 8, 9, 16, 33, 64, 300],
            &[1, 7, 64, 300],
            // The models' own sizes, and one that no tile divides.
            &[(2560, 640), (640, 2048), (152, 72)],
        ),
        Effort::Brief => (&[1, 2, 5, 8, 9, 33], &[1, 7, 40], &[(152, 72), (96, 320)]),
    };
    for &rows in all_rows {
        for &(n, k) in products {
            all.push(Linear { rows, n, k });
        }
    }
    for &rows in some_rows {
        all.extend([
            LinearBias {
                rows,
                n: 304,
                k: 144,
            },
            Transposed {
                rows,
                n: 320,
                k: 144,
            },
            RmsNorm { rows, width: 2560 },
            AddNormNorm { rows, width: 640 },
            Geglu { rows, width: 2048 },
            KeepRows { rows, width: 640 },
            LayerNorm { rows, width: 1152 },
            Gelu { rows, width: 304 },
            Add { rows, width: 640 },
            NormLinear {
                rows,
                n: 320,
                k: 144,
            },
        ]);
    }
    all.extend([
        PutImageFeatures {
            rows: 300,
            width: 640,
        },
        PatchEmbed {
            images: 1,
            patch: 14,
        },
        PatchEmbed {
            images: 3,
            patch: 7,
        },
        FullAttention {
            images: 1,
            patches: 256,
            heads: 2,
            head_dim: 72,
        },
        FullAttention {
            images: 3,
            patches: 49,
            heads: 4,
            head_dim: 16,
        },
        Sample {
            rows: 12,
            vocab: 3000,
        },
        AveragePool {
            images: 2,
            grid: 16,
            kernel: 4,
        },
    ]);
    all
}

/// A cache of minimal size, in both groups.
pub(super) fn cache_layout(sizes: Sizes) -> KvLayout {
    let pool = |group| PoolLayout {
        group,
        num_kv_heads: sizes.num_kv_heads,
        head_dim: sizes.head_dim,
    };
    KvLayout {
        pools: vec![pool(0), pool(1)],
        num_blocks: vec![1, 1],
    }
}

impl Operation {
    pub(super) fn name(&self) -> String {
        format!("{self:?}")
    }

    /// Runs the operation on a backend. The inputs depend only on the operation.
    pub(super) fn run<B: Backend>(&self, backend: &B) -> Result<Vec<f32>> {
        let mut random = fastrand::Rng::with_seed(7);
        let random = &mut random;
        let out = match *self {
            Self::Linear { rows, n, k } => {
                let x = activations(backend, random, rows, k)?;
                let weight = backend.load_linear(column(weight(random, &[n, k], scale(k))))?;
                backend.linear(&step(backend, rows)?, &x, &weight)?
            }
            Self::LinearBias { rows, n, k } => {
                let x = activations(backend, random, rows, k)?;
                let bias = backend.parameter(weight(random, &[n], 1.0))?;
                let weight = backend.load_linear(column(weight(random, &[n, k], scale(k))))?;
                backend.linear_bias(&x, &weight, &bias)?
            }
            Self::Transposed { rows, n, k } => {
                let x = activations(backend, random, rows, k)?;
                let weight = weight(random, &[k, n], scale(k));
                let weight = HostLinear::transposed(Role::Replicated, weight);
                let weight = backend.load_linear(weight)?;
                backend.linear(&step(backend, rows)?, &x, &weight)?
            }
            Self::RmsNorm { rows, width } => {
                let x = activations(backend, random, rows, width)?;
                let weight = backend.norm_weight(weight(random, &[width], 0.3))?;
                backend.rms_norm(&step(backend, rows)?, &x, &weight, EPS)?
            }
            Self::AddNormNorm { rows, width } => {
                let residual = activations(backend, random, rows, width)?;
                let branch = activations(backend, random, rows, width)?;
                let post = backend.norm_weight(weight(random, &[width], 0.3))?;
                let next = backend.norm_weight(weight(random, &[width], 0.3))?;
                let norms = NormPair {
                    post: &post,
                    next: &next,
                    eps: EPS,
                };
                let step = step(backend, rows)?;
                let (sum, normed) = backend.add_norm_norm(&step, &residual, &branch, &norms)?;
                let mut both = backend.read(&sum)?.1;
                both.extend(backend.read(&normed)?.1);
                return Ok(both);
            }
            Self::Geglu { rows, width } => {
                let gate_up = activations(backend, random, rows, 2 * width)?;
                backend.geglu(&step(backend, rows)?, &gate_up)?
            }
            Self::KeepRows { rows, width } => {
                let x = activations(backend, random, rows, width)?;
                backend.keep_rows(&x, rows / 3..rows)?
            }
            Self::PutImageFeatures { rows, width } => {
                let hidden = activations(backend, random, rows, width)?;
                let features = activations(backend, random, rows / 3, width)?;
                backend.put_image_features(&step(backend, rows)?, hidden, &features, rows / 4)?
            }
            Self::LayerNorm { rows, width } => {
                let x = activations(backend, random, rows, width)?;
                let gain: Vec<f32> = numbers(random, width, 0.25)
                    .iter()
                    .map(|x| x + 1.0)
                    .collect();
                let gain = backend.parameter(tensor(&[width], &gain))?;
                let bias = backend.parameter(weight(random, &[width], 0.25))?;
                backend.layer_norm(&x, &gain, &bias, EPS)?
            }
            Self::Gelu { rows, width } => {
                backend.gelu(activations(backend, random, rows, width)?)?
            }
            Self::Add { rows, width } => {
                let a = activations(backend, random, rows, width)?;
                backend.add(a, &activations(backend, random, rows, width)?)?
            }
            Self::NormLinear { rows, n, k } => {
                let x = activations(backend, random, rows, k)?;
                let norm = backend.norm_weight(weight(random, &[k], 0.3))?;
                let weight = weight(random, &[k, n], scale(k));
                let weight = HostLinear::transposed(Role::Replicated, weight);
                let weight = backend.load_linear(weight)?;
                backend.norm_linear(&x, &norm, EPS, &weight)?
            }
            Self::PatchEmbed { images, patch } => {
                const GRID: usize = 4;
                const HIDDEN: usize = 144;
                let inputs = 3 * patch * patch;
                let images: Vec<_> = (0..images).map(|_| image(random, GRID * patch)).collect();
                let bias = backend.parameter(weight(random, &[HIDDEN], 0.1))?;
                let positions = backend.parameter(weight(random, &[GRID * GRID, HIDDEN], 0.5))?;
                let kernel = weight(random, &[HIDDEN, inputs], scale(inputs));
                let kernel = backend.load_linear(column(kernel))?;
                backend.patch_embed(&images, patch, &kernel, &bias, &positions)?
            }
            Self::Sample { rows, vocab } => {
                let logits = activations(backend, random, rows, vocab)?;
                return sampled_tokens(backend, &logits, rows);
            }
            Self::FullAttention {
                images,
                patches,
                heads,
                head_dim,
            } => {
                let qkv = activations(backend, random, images * patches, 3 * heads * head_dim)?;
                backend.full_attention(&qkv, images, heads)?
            }
            Self::AveragePool {
                images,
                grid,
                kernel,
            } => {
                let x = activations(backend, random, images * grid * grid, 144)?;
                backend.average_pool(&x, grid, kernel)?
            }
        };
        Ok(backend.read(&out)?.1)
    }
}

/// Samples each row in several ways; returns its token, scrambled so that neighbouring ids are far
/// apart, and the best log-probabilities.
fn sampled_tokens<B: Backend>(backend: &B, logits: &B::Tensor, rows: usize) -> Result<Vec<f32>> {
    let warm = |top_k, top_p, min_p| SamplingParams {
        temperature: 0.8,
        top_k: NonZeroU32::new(top_k),
        top_p,
        min_p,
        seed: 5,
        top_logprobs: Some(3),
        ..SamplingParams::greedy(1)
    };
    let ways = [
        SamplingParams {
            top_logprobs: Some(3),
            ..SamplingParams::greedy(1)
        },
        warm(0, 1.0, 0.0),
        warm(40, 1.0, 0.0),
        warm(0, 0.9, 0.0),
        warm(0, 1.0, 0.05),
        warm(64, 0.95, 0.01),
    ];
    let rows: Vec<SampleRow<'_>> = (0..rows)
        .map(|row| SampleRow::new(&ways[row % ways.len()], row, 0))
        .collect();
    let sampled_tokens = backend.sample(logits, &rows)?;
    let mut out = Vec::new();
    for sampled in backend.sampled(&sampled_tokens)? {
        let scrambled = sampled.token.0.wrapping_mul(2_654_435_761) >> 8;
        out.push(scrambled as f32 / (1 << 24) as f32);
        let logprobs = sampled.logprobs.expect("every row asked for them");
        out.extend(logprobs.top.iter().map(|(_, logprob)| logprob / 10.0));
    }
    Ok(out)
}

fn column(weight: HostTensor<'_>) -> HostLinear<'_> {
    HostLinear::new(Role::Column, weight)
}

/// Returns a factor that keeps dot products of `k` terms near 1.
fn scale(k: usize) -> f32 {
    (k as f32).sqrt().recip()
}

fn image(random: &mut fastrand::Rng, size: usize) -> PixelValues {
    let rgb: Vec<u8> = (0..size * size * 3).map(|_| random.u8(..)).collect();
    PixelValues {
        size,
        rgb: Arc::from(rgb),
        hash: ImageHash([0; 32]),
    }
}
