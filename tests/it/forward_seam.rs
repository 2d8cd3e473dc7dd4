//! A second family of models, whose layers have heads of their own, through everything that the
//! engine does with a model.

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cpu::CpuBackend;
use medgemma::backend::{
    AttentionShape, BLOCK_SIZE, Backend, HostDtype, HostLinear, HostTensor, KvLayout, LayerSpec,
    NormPair, QkNorm, Role, Rope, ScoreRow, StepInput, StepSequence,
};
use medgemma::core::{BlockCount, BlockId, BlockTable, PixelValues, TokenId};
use medgemma::error::Result;
use medgemma::model::{Forward, ImageShape, Model, Observer, ScoredRun, StepOf};

use crate::golden::assert_close;

const VOCAB: usize = 64;
const HIDDEN: usize = 48;
const EPS: f64 = 1e-6;

struct Layer<B: Backend> {
    spec: LayerSpec,
    input_norm: B::Tensor,
    post_norm: B::Tensor,
    qk_norm: QkNorm<B::Tensor>,
    qkv: B::Linear,
    output: B::Linear,
}

/// Attention layers of different shapes, without an MLP.
struct Uneven<B: Backend> {
    table: B::Linear,
    layers: Vec<Layer<B>>,
    final_norm: B::Tensor,
    ropes: Vec<Rope>,
}

fn specs() -> [LayerSpec; 3] {
    let shape = |num_heads, num_kv_heads, head_dim, window| AttentionShape {
        num_heads,
        num_kv_heads,
        head_dim,
        scale: 0.3,
        window,
        eps: EPS,
    };
    let layer = |shape, group, pool| LayerSpec {
        shape,
        group,
        // The frequencies of a head size; the groups have nothing to do with it.
        rope: usize::from(shape.head_dim == 32),
        pool,
    };
    [
        layer(shape(4, 2, 16, None), 0, 0),
        layer(shape(2, 1, 32, Some(5)), 1, 2),
        layer(shape(3, 3, 32, None), 0, 1),
    ]
}

impl<B: Backend> Uneven<B> {
    fn load(backend: &B) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(9);
        let mut tensor = |shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let numbers = (0..count).map(|_| random.f32() - 0.5);
            HostTensor {
                dtype: HostDtype::F32,
                shape: shape.to_vec(),
                data: numbers.flat_map(f32::to_le_bytes).collect(),
            }
        };
        let mut layers = Vec::new();
        for spec in specs() {
            let AttentionShape {
                num_heads,
                num_kv_heads,
                head_dim,
                ..
            } = spec.shape;
            let (query, kv) = (num_heads * head_dim, num_kv_heads * head_dim);
            let qkv = vec![
                tensor(&[query, HIDDEN]),
                tensor(&[kv, HIDDEN]),
                tensor(&[kv, HIDDEN]),
            ];
            layers.push(Layer {
                spec,
                input_norm: backend.norm_weight(tensor(&[HIDDEN]))?,
                post_norm: backend.norm_weight(tensor(&[HIDDEN]))?,
                qk_norm: QkNorm {
                    query: backend.norm_weight(tensor(&[head_dim]))?,
                    key: backend.norm_weight(tensor(&[head_dim]))?,
                },
                qkv: backend.load_linear(HostLinear::stacked(Role::Column, qkv))?,
                output: backend
                    .load_linear(HostLinear::new(Role::Row, tensor(&[HIDDEN, query])))?,
            });
        }
        let rope = |head_dim: usize| Rope {
            inv_freq: (0..head_dim / 2)
                .map(|idx| 100_f32.powf(-2.0 * idx as f32 / head_dim as f32))
                .collect(),
        };
        Ok(Self {
            table: backend.load_linear(HostLinear::new(Role::Head, tensor(&[VOCAB, HIDDEN])))?,
            layers,
            final_norm: backend.norm_weight(tensor(&[HIDDEN]))?,
            ropes: vec![rope(16), rope(32)],
        })
    }
}

impl<B: Backend> Forward<B> for Uneven<B> {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn attention_layers(&self) -> Vec<LayerSpec> {
        self.layers.iter().map(|layer| layer.spec).collect()
    }

    fn ropes(&self) -> &[Rope] {
        &self.ropes
    }

    fn image_shape(&self) -> Option<ImageShape> {
        None
    }

    fn hidden(
        &self,
        backend: &B,
        _step_of: &StepOf<'_, B>,
        step: &B::Step,
        cache: &mut B::KvCache,
        _observe: &mut Observer<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let mut residual = backend.embed(step, &self.table, 1.0)?;
        let mut normed = backend.rms_norm(step, &residual, &self.layers[0].input_norm, EPS)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = backend.linear(step, &normed, &layer.qkv)?;
            let mixed = backend.attend(step, &qkv, &layer.qk_norm, &layer.spec, cache)?;
            let branch = backend.linear(step, &mixed, &layer.output)?;
            let next = self.layers.get(index + 1);
            let norms = NormPair {
                post: &layer.post_norm,
                next: next.map_or(&self.final_norm, |next| &next.input_norm),
                eps: EPS,
            };
            (residual, normed) = backend.add_norm_norm(step, &residual, &branch, &norms)?;
        }
        Ok(Some(normed))
    }

    fn logits(&self, backend: &B, step: &B::Step, hidden: &B::Tensor) -> Result<B::Tensor> {
        backend.linear(step, hidden, &self.table)
    }

    fn encode_images(&self, _backend: &B, _images: &[PixelValues]) -> Result<B::Tensor> {
        panic!("there is no vision encoder")
    }
}

const LEN: usize = 40;

/// A step over `start..end` of one sequence, with logits of every row.
fn input(start: usize, end: usize) -> StepInput {
    let table = |blocks: [u32; 2]| {
        let blocks = blocks[..end.div_ceil(BLOCK_SIZE)].iter();
        BlockTable::new(BLOCK_SIZE, 0, blocks.map(|&block| BlockId(block)).collect())
    };
    StepInput {
        token_ids: (start..end)
            .map(|position| TokenId((position * 29 % VOCAB) as u32))
            .collect(),
        positions: (start as u32..end as u32).collect(),
        sequences: vec![StepSequence {
            row: 0,
            start,
            len: end - start,
            tables: vec![table([2, 0]), table([1, 2])],
            image_spans: Vec::new(),
        }],
        sampled_inputs: Vec::new(),
        logit_rows: (0..(end - start) as u32).collect(),
    }
}

/// Returns the logits of the whole sequence, computed in these chunks.
fn logits<B: Backend>(backend: B, ends: &[usize]) -> Vec<f32> {
    let family = Uneven::load(&backend).expect("it loads");
    let model = Model::new(backend, family);
    let mut cache = model
        .kv_cache(BlockCount::new(&[3; 2]))
        .expect("a small cache");
    let mut all = Vec::new();
    let mut start = 0;
    for &end in ends {
        let step = StepOf {
            input: &input(start, end),
            previous: None,
            images: &[],
        };
        let logits = model.forward(step, &mut cache).expect("a step");
        let logits = logits.expect("rows were asked for");
        all.extend(model.backend().read(&logits).expect("readable").1);
        start = end;
    }
    all
}

#[test]
fn layers_may_differ_in_heads_window_and_frequencies() {
    let reference = logits(CandleBackend::cpu(), &[LEN]);
    assert_eq!(reference.len(), LEN * VOCAB);
    let whole = logits(CpuBackend, &[LEN]);
    assert_close("the whole prompt", &whole, &reference, 1e-4);
    // Chunks that end within a block and at its end, then one token at a time: the keys of each
    // layer come back from its own pool.
    let chunks = logits(CpuBackend, &[7, 32, 37, 38, 39, 40]);
    assert_eq!(chunks, whole);
}

#[test]
fn every_family_is_scored_and_warmed_up_alike() {
    let family = Uneven::load(&CpuBackend).expect("it loads");
    let model = Model::new(CpuBackend, family);
    let mut cache = model
        .kv_cache(BlockCount::new(&[3; 2]))
        .expect("a small cache");
    model.warm_up(&mut cache).expect("nothing is in the way");
    let whole = logits(CpuBackend, &[LEN]);
    let rows: Vec<_> = (1..LEN as u32)
        .map(|position| ScoreRow {
            token: TokenId(position * 29 % VOCAB as u32),
            num_top: 1,
        })
        .collect();
    let run = ScoredRun {
        row: 0,
        rows: &rows,
    };
    let step = StepOf {
        input: &input(0, LEN),
        previous: None,
        images: &[],
    };
    let computed = model.forward_scored(step, &[run], &mut cache);
    let scores = computed.expect("a step").scores;
    let scores: Vec<_> = scores.into_iter().flatten().collect();
    assert_eq!(scores.len(), LEN - 1);
    for (score, logits) in scores.iter().zip(whole.chunks(VOCAB)) {
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let expected = logits[score.token.0 as usize] - sum.ln();
        let scored = score.logprobs.as_ref().expect("it was scored").logprob;
        assert!((scored - expected).abs() < 1e-4, "{scored}, {expected}");
    }
}

#[test]
fn pools_that_do_not_fit_the_layers_are_refused() {
    let mut layers = specs();
    assert_eq!(KvLayout::pools_of(&layers).unwrap().len(), 3);
    // Two layers of the same shape may share keys and values, others may not.
    layers[2].pool = 2;
    KvLayout::pools_of(&layers).unwrap_err();
    layers[2] = layers[1];
    layers[1].pool = 1;
    layers[2].pool = 1;
    assert_eq!(KvLayout::pools_of(&layers).unwrap().len(), 2);
}
