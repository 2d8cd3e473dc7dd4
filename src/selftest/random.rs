//! Random inputs, identical for both backends.

use std::borrow::Cow;

use half::bf16;

use crate::backend::{
    BLOCK_SIZE, Backend, HostDtype, HostLinear, HostTensor, Role, Rope, StepInput, StepSequence,
};
use crate::core::{BlockId, BlockTable, TokenId};
use crate::error::Result;

/// Returns numbers that bf16 represents exactly, roughly normally distributed around 0 with the
/// given width. So differences come from the arithmetic, not from rounding of the inputs.
pub(super) fn numbers(random: &mut fastrand::Rng, count: usize, width: f32) -> Vec<f32> {
    (0..count)
        .map(|_| {
            // The sum of four uniform numbers is close enough to normal.
            let sum: f32 = (0..4).map(|_| random.f32() - 0.5).sum();
            bf16::from_f32(sum * width * 1.7).to_f32()
        })
        .collect()
}

/// Creates a bf16 tensor as in a checkpoint.
pub(super) fn tensor(shape: &[usize], numbers: &[f32]) -> HostTensor<'static> {
    assert_eq!(shape.iter().product::<usize>(), numbers.len());
    let data: Vec<u8> = (numbers.iter())
        .flat_map(|&number| bf16::from_f32(number).to_le_bytes())
        .collect();
    HostTensor {
        dtype: HostDtype::Bf16,
        shape: shape.to_vec(),
        data: Cow::Owned(data),
    }
}

/// Creates a random weight of this shape.
pub(super) fn weight(
    random: &mut fastrand::Rng,
    shape: &[usize],
    width: f32,
) -> HostTensor<'static> {
    let count = shape.iter().product();
    tensor(shape, &numbers(random, count, width))
}

/// Creates random rows `(rows, width)` on the device by an embedding lookup, as in a model.
pub(super) fn activations<B: Backend>(
    backend: &B,
    random: &mut fastrand::Rng,
    rows: usize,
    width: usize,
) -> Result<B::Tensor> {
    let table = HostLinear::new(Role::Head, weight(random, &[rows, width], 1.0));
    let table = backend.load_linear(table)?;
    backend.embed(&step(backend, rows)?, &table, 1.0)
}

/// Begins a step of one sequence with `rows` tokens: the ids from 0 on, at the positions from 0 on.
pub(super) fn step<B: Backend>(backend: &B, rows: usize) -> Result<B::Step> {
    let count = u32::try_from(rows).expect("a check has few rows");
    let blocks = vec![BlockId(0); rows.div_ceil(BLOCK_SIZE)];
    let table_of_rows = BlockTable::new(BLOCK_SIZE, 0, blocks);
    let input = StepInput {
        token_ids: (0..count).map(TokenId).collect(),
        positions: (0..count).collect(),
        sequences: vec![StepSequence {
            row: 0,
            start: 0,
            len: rows,
            tables: vec![table_of_rows; 2],
            image_spans: Vec::new(),
        }],
        ..StepInput::default()
    };
    let rope = Rope {
        inv_freq: vec![1.0; 8],
    };
    backend.begin_step(&input, None, &[rope])
}
