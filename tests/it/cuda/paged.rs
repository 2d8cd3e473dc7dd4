//! Sequences in a paged cache, on the reference and on a device at once.

use medgemma::backend::candle::{CandleBackend, CandleKvCache};
use medgemma::backend::cuda::device::{Device, DevicePtr};
use medgemma::backend::cuda::kernels::kv_args::{HeadShape, PagedRows, Pools};
use medgemma::backend::cuda::kernels::rope::{self, RopeArgs, RopeKernel};
use medgemma::backend::{
    AttentionShape, BLOCK_SIZE, BackendTypes, KvLayout, LayerSpec, Loading, PoolLayout, QkNorm,
    Rope, StepInput, StepSequence, TextOps,
};
use medgemma::core::{BlockId, BlockTable, TokenId};

use super::workbench::{BF16, Random, Workbench, assert_close, numbers_of, reference};

const EPS: f32 = 1e-6;

/// One sequence: what is cached, what is new, and images among the new.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) image_spans: Vec<std::ops::Range<usize>>,
}

/// `len` new tokens after `start` cached ones.
pub(super) fn part(start: usize, len: usize) -> Part {
    Part {
        start,
        len,
        image_spans: Vec::new(),
    }
}

/// A layer's shape and a step's sequences.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) heads: HeadShape,
    /// `None` is a global layer.
    pub(super) window: Option<usize>,
    pub(super) parts: Vec<Part>,
}

/// After the cached tokens have gone through both sides' caches, and the new ones too.
pub(super) struct Prepared {
    pub(super) rows: PagedRows,
    /// First row and rows of each.
    pub(super) sequences: Vec<(u32, u32)>,
    pub(super) pools: Pools,
    /// `(rows, heads·head_dim)` bf16
    pub(super) q: DevicePtr,
    /// What q, and the new keys and values in the pools, were made of.
    pub(super) rope: RopeArgs,
    /// Blocks in each pool.
    pub(super) num_blocks: usize,
    /// Where each sequence's last token lies.
    last_blocks: Vec<u32>,
    pub(super) scale: f32,
    /// The reference's attention of the step's rows.
    pub(super) attended: Vec<f32>,
}

impl Prepared {
    /// Clears what `pool` has of each sequence's last token.
    pub(super) fn forget_last_tokens<D: Device>(
        &self,
        bench: &Workbench<'_, D>,
        case: &Case,
        pool: DevicePtr,
    ) {
        let head_bytes = case.heads.head_dim as usize * 2;
        let num_kv_heads = case.heads.num_kv_heads as usize;
        for (part, block) in case.parts.iter().zip(&self.last_blocks) {
            let place = (part.start + part.len - 1) % BLOCK_SIZE;
            for head in 0..num_kv_heads {
                let row = (*block as usize * num_kv_heads + head) * BLOCK_SIZE + place;
                let zeros = vec![0; head_bytes];
                (bench.device)
                    .upload(&zeros, pool.at(row * head_bytes))
                    .expect("a place of the pool");
            }
        }
    }
}

impl Case {
    fn layer(&self) -> LayerSpec {
        LayerSpec {
            shape: self.shape(),
            group: 0,
            rope: 0,
            pool: 0,
        }
    }

    fn shape(&self) -> AttentionShape {
        AttentionShape {
            num_heads: self.heads.num_heads as usize,
            num_kv_heads: self.heads.num_kv_heads as usize,
            head_dim: self.heads.head_dim as usize,
            // Larger than a model's, so that single keys count.
            scale: 2.0 * (self.heads.head_dim as f32).powf(-0.5),
            window: self.window,
            eps: f64::from(EPS),
        }
    }

    /// Runs both sides up to the attention of the new rows, comparing q on the way.
    pub(super) fn prepare<D: Device>(&self, bench: &Workbench<'_, D>) -> Prepared {
        let mut random = Random(
            self.parts
                .iter()
                .map(|part| part.start + 7 * part.len)
                .sum::<usize>() as u64,
        );
        let shape = self.shape();
        let cpu = CandleBackend::cpu();
        // Each sequence's blocks, scattered over a pool with some to spare.
        let num_blocks_of = |part: &Part| (part.start + part.len).div_ceil(BLOCK_SIZE);
        let num_blocks = self.parts.iter().map(num_blocks_of).sum::<usize>() + 3;
        let mut free = random.shuffled(num_blocks as u32);
        let blocks: Vec<Vec<u32>> = self
            .parts
            .iter()
            .map(|part| free.split_off(free.len() - num_blocks_of(part)))
            .collect();

        let mut cache = cpu
            .kv_cache(&KvLayout {
                pools: vec![PoolLayout {
                    group: 0,
                    num_kv_heads: shape.num_kv_heads,
                    head_dim: shape.head_dim,
                }],
                num_blocks: vec![num_blocks],
            })
            .expect("small pools");
        let pool_bytes = num_blocks * BLOCK_SIZE * shape.num_kv_heads * shape.head_dim * 2;
        let pools = Pools {
            keys: bench.empty(pool_bytes),
            values: bench.empty(pool_bytes),
        };
        let history: Vec<Part> = self.parts.iter().map(|now| part(0, now.start)).collect();
        let norms = Norms {
            query: random.numbers(shape.head_dim),
            key: random.numbers(shape.head_dim),
        };
        if history.iter().any(|part| part.len > 0) {
            let step = self.step(&history, &blocks, false);
            self.store(bench, &mut random, &step, &norms, &pools, &mut cache);
        }
        let input = self.step(&self.parts, &blocks, true);
        let stored = self.store(bench, &mut random, &input, &norms, &pools, &mut cache);
        let step = begin(&cpu, &input, shape.head_dim);
        let attended = cpu
            .paged_attention(&step, &stored.reference_q, &self.layer(), &cache)
            .expect("shapes fit");
        Prepared {
            rows: stored.rows,
            sequences: input
                .sequences
                .iter()
                .map(|sequence| (sequence.row as u32, sequence.len as u32))
                .collect(),
            pools,
            q: stored.q,
            rope: stored.rope,
            num_blocks,
            last_blocks: (blocks.iter())
                .map(|blocks| *blocks.last().expect("every sequence has tokens"))
                .collect(),
            scale: shape.scale,
            attended: numbers_of(&attended),
        }
    }

    fn step(&self, parts: &[Part], blocks: &[Vec<u32>], releases: bool) -> StepInput {
        let mut input = StepInput::default();
        for (part, blocks) in parts.iter().zip(blocks) {
            if part.len == 0 {
                continue;
            }
            let needed = (part.start + part.len).div_ceil(BLOCK_SIZE);
            let num_released = match self.window {
                Some(window) if releases => (part.start + 1).saturating_sub(window) / BLOCK_SIZE,
                _ => 0,
            };
            let held = blocks[num_released..needed].iter();
            let held = held.map(|block| BlockId(*block)).collect();
            let table = BlockTable::new(BLOCK_SIZE, num_released, held);
            input.sequences.push(StepSequence {
                row: input.token_ids.len(),
                start: part.start,
                len: part.len,
                tables: vec![table; 2],
                image_spans: part.image_spans.clone(),
            });
            for position in part.start..part.start + part.len {
                input.token_ids.push(TokenId(0));
                input.positions.push(position as u32);
            }
        }
        input
    }

    /// Puts new keys and values into both caches and returns q of both sides.
    fn store<D: Device>(
        &self,
        bench: &Workbench<'_, D>,
        random: &mut Random,
        input: &StepInput,
        norms: &Norms,
        pools: &Pools,
        cache: &mut CandleKvCache,
    ) -> Stored {
        let shape = self.shape();
        let cpu = CandleBackend::cpu();
        let num_rows = input.token_ids.len();
        let width = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
        let qkv = random.numbers(num_rows * width);
        let norm = QkNorm {
            query: reference(&[shape.head_dim], &norms.query),
            key: reference(&[shape.head_dim], &norms.key),
        };
        let step = begin(&cpu, input, shape.head_dim);
        let reference_qkv = reference(&[num_rows, width], &qkv);
        let reference_q = cpu
            .rope_and_cache(&step, &reference_qkv, &norm, &self.layer(), cache)
            .expect("shapes fit");

        let rows = upload_rows(bench, input, self.window);
        let inv_freq = bench.f32(&rope(shape.head_dim).inv_freq);
        let cos_sin = bench.empty(num_rows * shape.head_dim * 4);
        rope::cos_sin(bench.device, &rows, &self.heads, inv_freq, cos_sin).expect("launches");
        let q_len = num_rows * shape.num_heads * shape.head_dim;
        let rope = RopeArgs {
            qkv: bench.f32(&qkv),
            cos_sin,
            query_norm: bench.f32(&norms.query),
            key_norm: bench.f32(&norms.key),
            eps: EPS,
        };
        let op = RopeKernel {
            rope,
            q: bench.empty(q_len * 2),
        };
        rope::rope_and_cache(bench.device, &rows, &self.heads, pools, &op).expect("launches");
        let q = bench.read_bf16(op.q, q_len);
        assert_close("q", &q, &numbers_of(&reference_q), (BF16, 1e-4));
        Stored {
            rows,
            q: op.q,
            rope,
            reference_q,
        }
    }
}

struct Norms {
    query: Vec<f32>,
    key: Vec<f32>,
}

struct Stored {
    rows: PagedRows,
    q: DevicePtr,
    rope: RopeArgs,
    reference_q: super::workbench::Reference,
}

fn rope(head_dim: usize) -> Rope {
    let inv_freq = (0..head_dim / 2)
        .map(|idx| 1e4_f32.powf(-2.0 * idx as f32 / head_dim as f32))
        .collect();
    Rope { inv_freq }
}

fn begin(
    cpu: &CandleBackend,
    input: &StepInput,
    head_dim: usize,
) -> <CandleBackend as BackendTypes>::Step {
    let rope = rope(head_dim);
    cpu.begin_step(input, None, &[rope]).expect("a valid step")
}

/// A step's metadata of the sliding group, as the kernels want it.
fn upload_rows<D: Device>(
    bench: &Workbench<'_, D>,
    input: &StepInput,
    window: Option<usize>,
) -> PagedRows {
    let table_stride = input
        .sequences
        .iter()
        .map(|sequence| sequence.tables[0].blocks().len())
        .max()
        .unwrap_or(0);
    let (mut sequence_of_row, mut key_ranges, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for (idx, sequence) in input.sequences.iter().enumerate() {
        for position in sequence.start..sequence.start + sequence.len {
            let range = sequence.key_range(position, window);
            sequence_of_row.push(idx as u32);
            key_ranges.extend([range.start as u32, range.end as u32]);
        }
        let mut table: Vec<u32> = sequence.tables[0]
            .blocks()
            .iter()
            .map(|block| block.0)
            .collect();
        // No kernel may use what is past a table's end.
        table.resize(table_stride, u32::MAX);
        tables.extend(table);
    }
    let num_released: Vec<u32> = input
        .sequences
        .iter()
        .map(|sequence| sequence.tables[0].num_released() as u32)
        .collect();
    PagedRows {
        num_rows: input.token_ids.len() as u32,
        positions: bench.u32(&input.positions),
        sequence_of_row: bench.u32(&sequence_of_row),
        key_ranges: bench.u32(&key_ranges),
        tables: bench.u32(&tables),
        table_stride: table_stride as u32,
        num_released: bench.u32(&num_released),
    }
}
