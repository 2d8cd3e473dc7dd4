//! Every kernel at sizes that nobody picked: sampled, the same on every machine.

use medgemma::backend::BLOCK_SIZE;
use medgemma::backend::cuda::kernels::gemm::Epilogue;
use medgemma::backend::cuda::kernels::gemv::{self, Output};
use medgemma::backend::cuda::kernels::kv_args::HeadShape;

use super::attention::{Fusion, check_decode, check_images, check_prefill, heads};
use super::gemm::{self, Added, Matmul};
use super::paged::{Case, Part, part};
use super::workbench::Random;
use super::{emulated, rows, sampler};

/// Longest sequence.
const MAX_LEN: usize = 300;

/// Few that differ in what is compiled, for all sizes that are not.
fn some_heads(random: &mut Random) -> HeadShape {
    let all = [heads(4, 2, 256), heads(2, 2, 128), heads(4, 1, 32)];
    all[random.below(all.len())]
}

/// None, or one whose edge is near a block's or near the first key of a part.
fn window(random: &mut Random, parts: &[Part]) -> Option<usize> {
    let nearby = |at: usize, random: &mut Random| (at + random.below(3)).saturating_sub(1).max(1);
    match random.below(4) {
        0 => None,
        1 => Some(nearby(BLOCK_SIZE * (1 + random.below(4)), random)),
        2 => Some(nearby(parts[random.below(parts.len())].start + 1, random)),
        _ => Some(1 + random.below(MAX_LEN)),
    }
}

/// `len` tokens at most behind as many cached ones as leave the sequence short enough, every third
/// time none.
fn new_tokens(random: &mut Random, max_len: usize) -> Part {
    let len = 1 + random.below(max_len);
    match random.below(3) {
        0 => part(0, len),
        _ => part(random.below(MAX_LEN - len + 1), len),
    }
}

/// Up to two images among the new tokens.
fn with_images(random: &mut Random, mut part: Part) -> Part {
    let mut next = part.start;
    for _ in 0..random.below(3) {
        let first = next + random.below(20);
        let end = first + 1 + random.below(60);
        if end > part.start + part.len {
            break;
        }
        part.image_spans.push(first..end);
        // Not touching the next one.
        next = end + 1;
    }
    part
}

#[test]
fn prefill_attention() {
    emulated(|device| {
        let mut random = Random(1);
        for _ in 0..10 {
            let heads = some_heads(&mut random);
            // Emulated, large heads take their time.
            let max_len = if heads.head_dim > 32 { 80 } else { MAX_LEN };
            let parts: Vec<Part> = (0..1 + random.below(3))
                .map(|_| {
                    let part = new_tokens(&mut random, max_len);
                    with_images(&mut random, part)
                })
                .collect();
            let window = window(&mut random, &parts);
            let case = Case {
                heads,
                window,
                parts,
            };
            check_prefill(device, &case);
        }
    });
}

#[test]
fn decode_attention() {
    emulated(|device| {
        let mut random = Random(2);
        for fusion in [Fusion::Apart, Fusion::Fused].into_iter().cycle().take(12) {
            let heads = some_heads(&mut random);
            let max_rows = if heads.head_dim > 32 { 6 } else { 64 };
            let parts: Vec<Part> = (0..1 + random.below(max_rows))
                .map(|_| part(random.below(MAX_LEN), 1))
                .collect();
            let window = window(&mut random, &parts);
            let case = Case {
                heads,
                window,
                parts,
            };
            check_decode(device, &case, 1 + random.below(8) as u32, fusion);
        }
    });
}

#[test]
fn attention_within_images() {
    emulated(|device| {
        let mut random = Random(3);
        for _ in 0..5 {
            check_images(device, 1 + random.below(130), 2, 72);
        }
    });
}

/// As many rows as decoding ever has, each number at a size of its own.
#[test]
fn matmuls_of_one_to_64_rows() {
    emulated(|device| {
        let mut random = Random(4);
        for num_rows in 1..=64 {
            let matmul = Matmul {
                num_rows,
                width: 8 * (1 + random.below(60)),
                num_out: 33 + random.below(120),
                num_multiprocessors: 1,
            };
            if num_rows <= gemv::MAX_ROWS as usize {
                rows::check_gemv(device, matmul, Output::F32, false);
                rows::check_gemv(device, matmul, Output::Geglu, true);
            } else {
                gemm::check(device, matmul, Epilogue::F32, Added::Nothing);
                gemm::check(device, matmul, Epilogue::Geglu, Added::Nothing);
            }
        }
    });
}

#[test]
fn rows_and_images() {
    emulated(|device| {
        let mut random = Random(5);
        for _ in 0..8 {
            rows::check_norms(device, 1 + random.below(64), 4 * (1 + random.below(300)));
            rows::check_elementwise(device, 1 + random.below(64), 2 * (1 + random.below(100)));
            rows::check_embed(device, 8 * (1 + random.below(60)));
            let (kernel, pooled) = (1 + random.below(4), 1 + random.below(5));
            rows::check_pool(device, kernel * pooled, kernel, 1 + random.below(40));
            let patch = 1 + random.below(16);
            let padded = (3 * patch * patch).next_multiple_of(8);
            rows::check_patches(device, 1 + random.below(5), patch, padded);
        }
    });
}

#[test]
fn sampled_tokens() {
    emulated(|device| {
        let mut random = Random(6);
        for levels in [6, 60, 1 << 20] {
            // From a few to more than a block's threads many times over.
            let vocab = 21 + random.below(40 * levels.min(100));
            sampler::check_samples(device, vocab, levels);
        }
    });
}
