//! Compares attention over the cache with an f64 loop over keys, and bit by bit with other chunks.

use super::super::fixtures::{attention, check_close, numbers};
use super::super::rope::{RopeArgs, rope_and_cache};
use super::*;
use crate::backend::attention::AttentionShape;
use crate::core::{BlockId, BlockTable};

/// Kinds of layers, by the keys that a query sees.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LayerKind {
    Global,
    Sliding,
}

fn shape(num_heads: usize, num_kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape {
        num_heads,
        num_kv_heads,
        head_dim,
        scale: 0.1,
        window: Some(40),
        eps: 1e-6,
    }
}

/// A sequence with all its keys and values, `(positions, kv_heads, head_dim)`, and its queries
/// `(positions, heads, head_dim)`, after RoPE.
struct History {
    shape: AttentionShape,
    len: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    table: BlockTable,
    image_spans: Vec<Range<usize>>,
}

impl History {
    /// `first_block` determines which blocks of the pool it uses: every third one, downwards.
    fn new(shape: AttentionShape, seed: u64, len: usize, first_block: u32) -> Self {
        let rows = |seed, heads: usize| numbers(seed, len * heads * shape.head_dim);
        let num_blocks = len.div_ceil(BLOCK_SIZE) as u32;
        Self {
            shape,
            len,
            q: rows(seed, shape.num_heads),
            k: rows(seed + 1, shape.num_kv_heads),
            v: rows(seed + 2, shape.num_kv_heads),
            table: BlockTable::new(
                BLOCK_SIZE,
                0,
                (0..num_blocks)
                    .rev()
                    .map(|idx| BlockId(first_block + 3 * idx))
                    .collect(),
            ),
            image_spans: Vec::new(),
        }
    }

    /// Returns its positions `range` as a sequence of a step.
    fn step(&self, row: usize, range: Range<usize>) -> StepSequence {
        let inside = |span: &&Range<usize>| span.start >= range.start && span.end <= range.end;
        StepSequence {
            row,
            start: range.start,
            len: range.len(),
            tables: vec![self.table.clone()],
            image_spans: self.image_spans.iter().filter(inside).cloned().collect(),
        }
    }

    fn rows<'a>(numbers: &'a [f32], width: usize, range: &Range<usize>) -> &'a [f32] {
        &numbers[range.start * width..range.end * width]
    }

    /// Writes `range` of the keys and values to the pool, following the layout as documented.
    fn write(&self, pool: &mut KvPool, range: Range<usize>) {
        let shape = self.shape;
        let head_dim = shape.head_dim;
        for position in range {
            let (panel_size, block) = (
                16 * head_dim,
                pool_block(&self.table, position / BLOCK_SIZE),
            );
            for head in 0..shape.num_kv_heads {
                let first = (block * shape.num_kv_heads + head) * BLOCK_SIZE * head_dim;
                let place = position % BLOCK_SIZE;
                for dim in 0..head_dim {
                    let from = (position * shape.num_kv_heads + head) * head_dim + dim;
                    let key = first + place / 16 * panel_size + dim * 16 + place % 16;
                    let value = first + dim / 16 * 16 * BLOCK_SIZE + place * 16 + dim % 16;
                    pool.keys[key] = self.k[from];
                    pool.values[value] = self.v[from];
                }
            }
        }
    }

    /// Returns the expected results for the queries of `range`.
    fn truth(&self, kind: LayerKind, range: Range<usize>) -> Vec<f64> {
        let AttentionShape {
            num_heads,
            num_kv_heads,
            head_dim,
            scale,
            window,
            ..
        } = self.shape;
        let part = |numbers: &'_ [f32], heads: usize, position: usize, head: usize| {
            numbers[(position * heads + head) * head_dim..][..head_dim].to_vec()
        };
        let mut truth = Vec::new();
        for position in range {
            let span = self
                .image_spans
                .iter()
                .find(|span| span.contains(&position));
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                // Written out instead of using `key_range`.
                let visible = |key: &usize| {
                    let behind = *key <= position || span.is_some_and(|span| span.contains(key));
                    let inside = kind == LayerKind::Global
                        || window.is_none_or(|window| key + window > position);
                    behind && inside
                };
                let seen: Vec<usize> = (0..self.len).filter(visible).collect();
                let gather = |numbers: &[f32]| -> Vec<Vec<f32>> {
                    seen.iter()
                        .map(|key| part(numbers, num_kv_heads, *key, kv_head))
                        .collect()
                };
                let (keys, values) = (gather(&self.k), gather(&self.v));
                let keys: Vec<&[f32]> = keys.iter().map(Vec::as_slice).collect();
                let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
                let q = part(&self.q, num_heads, position, head);
                truth.extend(attention(&q, &keys, &values, scale));
            }
        }
        truth
    }
}

/// Creates a pool full of numbers that must never be seen.
fn stale_pool(num_blocks: usize, shape: &AttentionShape) -> KvPool {
    let mut pool = KvPool::new(num_blocks, shape.num_kv_heads, shape.head_dim);
    pool.keys.fill(f32::NAN);
    pool.values.fill(f32::NAN);
    pool
}

fn attend(
    shape: &AttentionShape,
    kind: LayerKind,
    pool: &KvPool,
    sequences: &[StepSequence],
    q: &[f32],
) -> Vec<f32> {
    let window = shape.window.filter(|_| kind == LayerKind::Sliding);
    let step = LayerStep {
        sequences,
        group: 0,
        shape: &AttentionShape { window, ..*shape },
    };
    let mut out = vec![f32::NAN; q.len()];
    paged_attention(step, q, pool, &mut out);
    out
}

const KINDS: [LayerKind; 2] = [LayerKind::Global, LayerKind::Sliding];

#[test]
fn equals_plain_loops_on_every_shape() {
    for (seed, (heads, kv_heads, head_dim)) in [
        (4, 1, 256),
        (8, 4, 128),
        (2, 2, 32),
        (3, 1, 64),
        (16, 16, 16),
        (60, 1, 16),
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shape(heads, kv_heads, head_dim);
        for len in [1, 31, 32, 33, 83] {
            let history = History::new(shape, 100 + seed as u64, len, 1);
            let mut pool = stale_pool(12, &shape);
            history.write(&mut pool, 0..len);
            for kind in KINDS {
                let out = attend(&shape, kind, &pool, &[history.step(0, 0..len)], &history.q);
                let truth = history.truth(kind, 0..len);
                check_close(
                    &out,
                    &truth,
                    1e-6,
                    &format!("{shape:?}, {len} keys, {kind:?}"),
                );
            }
        }
    }
}

#[test]
fn windows_cut_at_every_edge() {
    for window in [1, 2, 31, 32, 33, 64, 200] {
        let mut shape = shape(2, 1, 32);
        shape.window = Some(window);
        let history = History::new(shape, 7, 130, 0);
        let mut pool = stale_pool(16, &shape);
        history.write(&mut pool, 0..130);
        let sequences = [history.step(0, 0..130)];
        let out = attend(&shape, LayerKind::Sliding, &pool, &sequences, &history.q);
        let truth = history.truth(LayerKind::Sliding, 0..130);
        check_close(&out, &truth, 1e-6, &format!("window {window}"));
    }
}

#[test]
fn images_look_both_ways() {
    let shape = shape(4, 2, 32);
    let mut history = History::new(shape, 11, 150, 0);
    history.image_spans = vec![3..19, 60..124];
    let mut pool = stale_pool(16, &shape);
    history.write(&mut pool, 0..150);
    for kind in KINDS {
        let out = attend(&shape, kind, &pool, &[history.step(0, 0..150)], &history.q);
        check_close(
            &out,
            &history.truth(kind, 0..150),
            1e-6,
            &format!("{kind:?}"),
        );
    }
}

#[test]
fn released_blocks_are_not_needed() {
    let shape = shape(4, 1, 64);
    let history = History::new(shape, 13, 300, 0);
    let mut pool = stale_pool(32, &shape);
    history.write(&mut pool, 0..300);
    let mut step = history.step(0, 290..300);
    // The first query sees keys from 251 on.
    assert_eq!(step.tables[0].release_before(251).count(), 7);
    let q = &history.q[290 * 256..];
    let out = attend(&shape, LayerKind::Sliding, &pool, &[step], q);
    check_close(
        &out,
        &history.truth(LayerKind::Sliding, 290..300),
        1e-6,
        "released",
    );
}

/// Different chunks, batches, threads and segments must not change a single bit.
#[test]
fn a_row_is_the_same_bits_however_it_is_computed() {
    let mut shape = shape(4, 1, 32);
    shape.window = Some(1100);
    let len = 2600;
    let mut history = History::new(shape, 17, len, 0);
    history.image_spans = vec![100..356, 1000..1256];
    let neighbour = History::new(shape, 19, 77, 1);
    let mut pool = stale_pool(300, &shape);
    history.write(&mut pool, 0..len);
    neighbour.write(&mut pool, 0..77);
    let width = shape.num_heads * shape.head_dim;

    for kind in KINDS {
        let whole = attend(&shape, kind, &pool, &[history.step(0, 0..len)], &history.q);
        let mut first = 0;
        for chunk in [99, 257, 1, 643, 256, 1044, 5, 1, 1, 1, 292] {
            let range = first..first + chunk;
            let rows = History::rows(&history.q, width, &range);
            let alone = attend(&shape, kind, &pool, &[history.step(0, range.clone())], rows);
            let expected = History::rows(&whole, width, &range);
            assert_eq!(alone, expected, "{range:?} {kind:?}");

            let sequences = [neighbour.step(0, 70..77), history.step(7, range.clone())];
            let q = [History::rows(&neighbour.q, width, &(70..77)), rows].concat();
            let both = attend(&shape, kind, &pool, &sequences, &q);
            assert_eq!(
                &both[7 * width..],
                expected,
                "{range:?} {kind:?} beside another"
            );

            for num_threads in [1, 5] {
                let threads = rayon::ThreadPoolBuilder::new()
                    .num_threads(num_threads)
                    .build();
                let sequences = [history.step(0, range.clone())];
                let out = threads
                    .unwrap()
                    .install(|| attend(&shape, kind, &pool, &sequences, rows));
                assert_eq!(out, expected, "{range:?} {kind:?} on {num_threads} threads");
            }
            first += chunk;
        }
        assert_eq!(first, len);
        // Only some positions, since plain loops in f64 are slow.
        for first in [0, 99, 1023, 1100, 2047, 2590] {
            let range = first..first + 3;
            let truth = history.truth(kind, range.clone());
            let rows = History::rows(&whole, width, &range);
            check_close(rows, &truth, 1e-6, &format!("{range:?} {kind:?}"));
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut shape = shape(2, 1, 32);
    shape.scale = 60.0;
    let history = History::new(shape, 23, 90, 0);
    let mut pool = stale_pool(16, &shape);
    history.write(&mut pool, 0..90);
    let out = attend(
        &shape,
        LayerKind::Global,
        &pool,
        &[history.step(0, 0..90)],
        &history.q,
    );
    // With scores up to 600, their rounding of 4e-5 affects the weights.
    check_close(
        &out,
        &history.truth(LayerKind::Global, 0..90),
        1e-3,
        "large scores",
    );
}

#[test]
fn a_broken_number_is_not_swallowed() {
    let shape = shape(1, 1, 16);
    let history = History::new(shape, 29, 40, 0);
    let mut pool = stale_pool(8, &shape);
    history.write(&mut pool, 0..40);
    let mut q = history.q.clone();
    q[35 * 16] = f32::NAN;
    let out = attend(
        &shape,
        LayerKind::Global,
        &pool,
        &[history.step(0, 0..40)],
        &q,
    );
    for (row, out) in out.chunks(16).enumerate() {
        assert_eq!(
            out.iter().all(|number| number.is_nan()),
            row == 35,
            "row {row}"
        );
    }
}

/// Compares norm, RoPE and cache writes with plain loops, then reads back through attention.
#[test]
fn what_is_rotated_and_stored_is_what_attention_reads() {
    let shape = shape(4, 2, 32);
    let (num_heads, num_kv_heads, head_dim) = (4, 2, 32);
    for (first_len, second_len) in [(3, 1), (70, 45), (1, 1)] {
        let mut histories = [
            History::new(shape, 31, first_len, 0),
            History::new(shape, 37, 50 + second_len, 1),
        ];
        let num_tokens = first_len + second_len;
        let qkv = numbers(41, num_tokens * 8 * head_dim);
        let (query_norm, key_norm) = (numbers(43, head_dim), numbers(47, head_dim));
        let cos_sin = numbers(53, num_tokens * head_dim / 2);
        let cos: Vec<f32> = cos_sin.iter().map(|angle| (3.0 * angle).cos()).collect();
        let sin: Vec<f32> = cos_sin.iter().map(|angle| (3.0 * angle).sin()).collect();

        let turned = |token: usize, head: usize, weight: &[f32]| -> Vec<f32> {
            let x: Vec<f64> = qkv[(token * 8 + head) * head_dim..][..head_dim]
                .iter()
                .map(|x| f64::from(*x))
                .collect();
            let mean = x.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
            let normed: Vec<f64> = x
                .iter()
                .zip(weight)
                .map(|(x, w)| x / (mean + shape.eps).sqrt() * f64::from(*w))
                .collect();
            (0..head_dim)
                .map(|dim| {
                    let angle = token * head_dim / 2 + dim % (head_dim / 2);
                    let (cos, sin) = (f64::from(cos[angle]), f64::from(sin[angle]));
                    let other = normed[(dim + head_dim / 2) % head_dim];
                    let other = if dim < head_dim / 2 { -other } else { other };
                    (normed[dim] * cos + other * sin) as f32
                })
                .collect()
        };

        // Sequence 0 is new, sequence 1 has 50 cached positions.
        let mut pool = stale_pool(24, &shape);
        histories[1].write(&mut pool, 0..50);
        let sequences = [
            histories[0].step(0, 0..first_len),
            histories[1].step(first_len, 50..50 + second_len),
        ];
        let mut expected_q = Vec::new();
        for token in 0..num_tokens {
            let q = (0..num_heads).flat_map(|head| turned(token, head, &query_norm));
            expected_q.extend(q.map(f64::from));
            let (history, position) = match token.checked_sub(first_len) {
                None => (&mut histories[0], token),
                Some(idx) => (&mut histories[1], 50 + idx),
            };
            for head in 0..num_kv_heads {
                let to = (position * num_kv_heads + head) * head_dim;
                history.k[to..][..head_dim].copy_from_slice(&turned(
                    token,
                    num_heads + head,
                    &key_norm,
                ));
                history.v[to..][..head_dim].copy_from_slice(
                    &qkv[(token * 8 + num_heads + num_kv_heads + head) * head_dim..][..head_dim],
                );
            }
        }

        let mut q = vec![f32::NAN; num_tokens * num_heads * head_dim];
        let rope = RopeArgs {
            query_norm: &query_norm,
            key_norm: &key_norm,
            cos: &cos,
            sin: &sin,
        };
        let step = LayerStep {
            sequences: &sequences,
            group: 0,
            shape: &shape,
        };
        rope_and_cache(step, &qkv, rope, &mut pool, &mut q);
        check_close(&q, &expected_q, 2e-6, "q");

        let out = attend(
            &shape,
            LayerKind::Global,
            &pool,
            &sequences,
            &numbers(59, q.len()),
        );
        histories[0].q = numbers(59, q.len())[..first_len * 128].to_vec();
        histories[1].q = [
            vec![0.0; 50 * 128],
            numbers(59, q.len())[first_len * 128..].to_vec(),
        ]
        .concat();
        let truth = [
            histories[0].truth(LayerKind::Global, 0..first_len),
            histories[1].truth(LayerKind::Global, 50..50 + second_len),
        ]
        .concat();
        check_close(&out, &truth, 2e-6, "attention over what was stored");
    }
}
