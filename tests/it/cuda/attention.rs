//! Attention over the paged cache against the reference's.

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cuda::device::Device;
use medgemma::backend::cuda::kernels::attention::{self, ImageAttention, PagedAttention, tiles_of};
use medgemma::backend::cuda::kernels::decode_attention::{
    self, DecodeAttention, Queries, SplitSpace, partial_bytes, stats_bytes,
};
use medgemma::backend::cuda::kernels::kv_args::HeadShape;
use medgemma::backend::{BLOCK_SIZE, VisionOps};

use super::emulated;
use super::paged::{Case, Part, part};
use super::workbench::{Random, Workbench, assert_close, numbers_of, reference};

/// q, k and v are bf16 here and f32 in the reference: scores of size 4 are off by about 0.01, and
/// so are the shares; values are at most 1. A key too many or too few among 40 shows as 0.03 or
/// more in some number.
const TOLERANCE: (f32, f32) = (0.0, 0.025);

pub(super) fn heads(num_heads: u32, num_kv_heads: u32, head_dim: u32) -> HeadShape {
    HeadShape {
        num_heads,
        num_kv_heads,
        head_dim,
    }
}

/// Whether queries, keys and values are made on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fusion {
    Apart,
    Fused,
}

pub(super) fn check_decode<D: Device>(device: &D, case: &Case, num_splits: u32, fusion: Fusion) {
    let bench = Workbench::new(device);
    let prepared = case.prepare(&bench);
    let pool_len =
        prepared.num_blocks * BLOCK_SIZE * (case.heads.num_kv_heads * case.heads.head_dim) as usize;
    let pools = [prepared.pools.keys, prepared.pools.values];
    let stored = pools.map(|pool| bench.read_u16(pool, pool_len));
    if fusion == Fusion::Fused {
        // What is to be written must not be there yet.
        for pool in pools {
            prepared.forget_last_tokens(&bench, case, pool);
        }
    }
    let num_rows = prepared.rows.num_rows;
    let num_counters = (num_rows * case.heads.num_kv_heads) as usize;
    let space = SplitSpace {
        partial: bench.empty(partial_bytes(num_rows, &case.heads, num_splits)),
        stats: bench.empty(stats_bytes(num_rows, &case.heads, num_splits)),
        counters: bench.zeros(num_counters * 4),
    };
    let count = prepared.attended.len();
    // Twice: the counters must be as they were.
    for _ in 0..2 {
        let op = DecodeAttention {
            queries: match fusion {
                Fusion::Apart => Queries::Given(prepared.q),
                Fusion::Fused => Queries::Rotated(prepared.rope),
            },
            scale: prepared.scale,
            num_splits,
            space,
            out: bench.empty(count * 2),
        };
        decode_attention::decode_attention(
            device,
            &prepared.rows,
            &case.heads,
            &prepared.pools,
            &op,
        )
        .expect("launches");
        let actual = bench.read_bf16(op.out, count);
        let what = format!("{case:?}, {fusion:?}, {num_splits} splits");
        assert_close(&what, &actual, &prepared.attended, TOLERANCE);
    }
    assert_eq!(pools.map(|pool| bench.read_u16(pool, pool_len)), stored);
    assert_eq!(
        bench.read_u32(space.counters, num_counters),
        vec![0; num_counters]
    );
}

#[test]
fn decode_attention_over_blocks() {
    emulated(|device| {
        let parts = vec![part(0, 1), part(31, 1), part(32, 1), part(70, 1)];
        for (heads, window) in [
            (heads(4, 2, 256), Some(33)),
            (heads(2, 2, 128), None),
            (heads(4, 1, 32), Some(8)),
            (heads(2, 1, 16), Some(64)),
        ] {
            let case = Case {
                heads,
                window,
                parts: parts.clone(),
            };
            for fusion in [Fusion::Apart, Fusion::Fused] {
                check_decode(device, &case, 1, fusion);
                check_decode(device, &case, 3, fusion);
            }
        }
    });
}

#[test]
fn decode_attention_takes_more_splits_than_keys() {
    emulated(|device| {
        let case = Case {
            heads: heads(2, 1, 32),
            window: None,
            parts: vec![part(3, 1), part(300, 2)],
        };
        check_decode(device, &case, 9, Fusion::Apart);
        let case = Case {
            parts: vec![part(3, 1), part(300, 1)],
            ..case
        };
        check_decode(device, &case, 9, Fusion::Fused);
    });
}

pub(super) fn check_prefill<D: Device>(device: &D, case: &Case) {
    let bench = Workbench::new(device);
    let prepared = case.prepare(&bench);
    let count = prepared.attended.len();
    let tiles = tiles_of(prepared.sequences.iter().copied());
    let op = PagedAttention {
        q: prepared.q,
        tiles: bench.u32(tiles.as_flattened()),
        num_tiles: tiles.len() as u32,
        scale: prepared.scale,
        out: bench.empty(count * 2),
    };
    attention::paged_attention(device, &prepared.rows, &case.heads, &prepared.pools, &op)
        .expect("launches");
    let actual = bench.read_bf16(op.out, count);
    assert_close(&format!("{case:?}"), &actual, &prepared.attended, TOLERANCE);
}

#[test]
fn prefill_attention_over_blocks() {
    emulated(|device| {
        let image = |start, len, spans: &[(usize, usize)]| Part {
            image_spans: spans.iter().map(|&(first, end)| first..end).collect(),
            ..part(start, len)
        };
        for (heads, window, parts) in [
            (heads(2, 1, 256), Some(20), vec![part(0, 70), part(45, 3)]),
            (
                heads(4, 1, 32),
                None,
                vec![image(5, 90, &[(10, 40), (50, 80)]), part(0, 1)],
            ),
            // The window cuts an image's own tokens behind, not ahead.
            (heads(2, 2, 16), Some(9), vec![image(33, 66, &[(40, 70)])]),
            (heads(1, 1, 128), Some(40), vec![part(64, 64), part(31, 2)]),
            (heads(1, 1, 32), Some(64), vec![part(0, 300)]),
        ] {
            check_prefill(
                device,
                &Case {
                    heads,
                    window,
                    parts,
                },
            );
        }
    });
}

pub(super) fn check_images<D: Device>(
    device: &D,
    num_patches: usize,
    num_heads: usize,
    head_dim: usize,
) {
    let bench = Workbench::new(device);
    let mut random = Random(num_patches as u64);
    let num_images = 2;
    let hidden = num_heads * head_dim;
    let shape = [num_images * num_patches, 3 * hidden];
    let qkv: Vec<f32> = random
        .numbers(shape[0] * shape[1])
        .iter()
        .map(|x| 2.0 * x)
        .collect();
    let count = num_images * num_patches * hidden;
    let op = ImageAttention {
        qkv: bench.bf16(&qkv),
        num_images: num_images as u32,
        num_patches: num_patches as u32,
        num_heads: num_heads as u32,
        head_dim: head_dim as u32,
        out: bench.empty(count * 2),
    };
    attention::image_attention(device, &op).expect("launches");
    let expected = CandleBackend::cpu()
        .full_attention(&reference(&shape, &qkv), num_images, num_heads)
        .expect("shapes fit");
    // Inputs are the same here: only the shares and the result are rounded.
    let what = format!("{num_patches} patches, head_dim {head_dim}");
    assert_close(
        &what,
        &bench.read_bf16(op.out, count),
        &numbers_of(&expected),
        (0.0, 0.01),
    );
}

#[test]
fn attention_within_images() {
    emulated(|device| {
        check_images(device, 16, 2, 16);
        check_images(device, 81, 2, 72);
        check_images(device, 64, 1, 8);
    });
}
