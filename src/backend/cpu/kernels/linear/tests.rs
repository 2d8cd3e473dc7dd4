//! Compares matmuls with an f64 triple loop, and bit by bit with themselves in other batches.

use std::borrow::Cow;

use super::super::fixtures::numbers;
use super::super::lanes::Plain;
use super::*;
use crate::backend::host_tensor::{HostDtype, HostTensor};

fn f32_tensor(rows: usize, columns: usize, numbers: &[f32]) -> HostTensor<'static> {
    HostTensor {
        dtype: HostDtype::F32,
        shape: vec![rows, columns],
        data: numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect(),
    }
}

/// Creates a bfloat16 tensor; also rounds `numbers` in place.
fn bf16_tensor(rows: usize, columns: usize, numbers: &mut [f32]) -> HostTensor<'static> {
    let mut bytes = Vec::new();
    for number in numbers {
        let half = (number.to_bits() >> 16) as u16;
        *number = f32::from_bits(u32::from(half) << 16);
        bytes.extend(half.to_le_bytes());
    }
    HostTensor {
        dtype: HostDtype::Bf16,
        shape: vec![rows, columns],
        data: Cow::Owned(bytes),
    }
}

fn transpose(rows: usize, columns: usize, numbers: &[f32]) -> Vec<f32> {
    (0..rows * columns)
        .map(|idx| numbers[idx % rows * columns + idx / rows])
        .collect()
}

/// Checks that every number of `y` is within f32 rounding of the f64 result.
fn check_product(x: &[f32], weight: &[f32], n: usize, k: usize, y: &[f32]) {
    let m = x.len() / k;
    assert_eq!(y.len(), m * n);
    for row in 0..m {
        for column in 0..n {
            let terms = || {
                x[row * k..][..k]
                    .iter()
                    .zip(&weight[column * k..][..k])
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
            };
            let truth: f64 = terms().sum();
            let size: f64 = terms().map(f64::abs).sum();
            let error = (f64::from(y[row * n + column]) - truth).abs();
            assert!(
                error <= 1e-6 * size + 1e-30,
                "({m}, {n}, {k}) at {row}, {column}: {error:e}"
            );
        }
    }
}

const SHAPES: [(usize, usize); 8] = [
    (1, 1),
    (16, 256),
    (17, 257),
    (5, 640),
    (100, 31),
    (64, 513),
    (333, 300),
    (48, 1025),
];

#[test]
fn products_equal_plain_loops() {
    for (n, k) in SHAPES {
        let mut w = numbers(1, n * k);
        for weight in [
            PackedMatrix::stacked(&[f32_tensor(n, k, &w)]),
            PackedMatrix::stacked(&[bf16_tensor(n, k, &mut w.clone())]),
        ] {
            if matches!(weight.storage, Storage::Bf16(_)) {
                bf16_tensor(n, k, &mut w);
            }
            for m in [0, 1, 2, 3, 6, 7, 8, 13, 31, 70, 97] {
                let x = numbers(m as u64 + 2, m * k);
                let mut y = vec![f32::NAN; m * n];
                linear(&x, &weight, &mut y);
                check_product(&x, &w, n, k, &y);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_bits_alone_and_beside_others() {
    for (n, k) in SHAPES {
        for weight in [
            PackedMatrix::stacked(&[f32_tensor(n, k, &numbers(3, n * k))]),
            PackedMatrix::stacked(&[bf16_tensor(n, k, &mut numbers(3, n * k))]),
        ] {
            let x = numbers(4, 200 * k);
            let mut alone = vec![0.0; 200 * n];
            for (x, y) in x.chunks(k).zip(alone.chunks_mut(n)) {
                linear(x, &weight, y);
            }
            for m in (2..40).chain([64, 96, 97, 150, 200]) {
                let first = 200 - m;
                let mut y = vec![0.0; m * n];
                linear(&x[first * k..], &weight, &mut y);
                assert!(
                    y.iter()
                        .zip(&alone[first * n..])
                        .all(|(a, b)| a.to_bits() == b.to_bits()),
                    "({m}, {n}, {k})"
                );
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (n, k, m) = (4096, 640, 9);
    let weight = PackedMatrix::stacked(&[f32_tensor(n, k, &numbers(5, n * k))]);
    let x = numbers(6, m * k);
    let mut expected = vec![0.0; m * n];
    linear(&x, &weight, &mut expected);
    for num_threads in [1, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .build()
            .unwrap();
        let mut y = vec![0.0; m * n];
        pool.install(|| linear(&x, &weight, &mut y));
        assert_eq!(y, expected, "{num_threads} threads");
    }
}

#[test]
fn bf16_gives_the_numbers_of_its_f32() {
    let (n, k) = (65, 700);
    let mut w = numbers(7, n * k);
    let narrow = PackedMatrix::stacked(&[bf16_tensor(n, k, &mut w)]);
    let wide = PackedMatrix::stacked(&[f32_tensor(n, k, &w)]);
    assert_eq!(narrow.num_bytes() * 2, wide.num_bytes());
    for m in [1, 2, 8, 40] {
        let x = numbers(8, m * k);
        let (mut a, mut b) = (vec![0.0; m * n], vec![0.0; m * n]);
        linear(&x, &narrow, &mut a);
        linear(&x, &wide, &mut b);
        assert_eq!(a, b);
    }
}

#[test]
fn parts_stack_and_transposes_turn() {
    let k = 37;
    let (mut q, kv, o) = (numbers(9, 21 * k), numbers(10, 5 * k), numbers(11, 30 * k));
    let parts = [
        bf16_tensor(21, k, &mut q),
        f32_tensor(5, k, &kv),
        f32_tensor(30, k, &o),
    ];
    let stacked = PackedMatrix::stacked(&parts);
    let rows = [q, kv, o].concat();
    let x = numbers(12, 3 * k);
    let mut y = vec![0.0; 3 * 56];
    linear(&x, &stacked, &mut y);
    check_product(&x, &rows, 56, k, &y);

    let mut turned = transpose(56, k, &rows);
    let transposed = PackedMatrix::transposed(&f32_tensor(k, 56, &turned));
    let mut again = vec![0.0; 3 * 56];
    linear(&x, &transposed, &mut again);
    assert_eq!(again, y);

    let narrow = PackedMatrix::transposed(&bf16_tensor(k, 56, &mut turned));
    linear(&x, &narrow, &mut again);
    check_product(&x, &transpose(k, 56, &turned), 56, k, &again);
}

#[test]
fn rows_are_gathered_from_panels() {
    let (n, k) = (35, 19);
    let mut w = numbers(13, n * k);
    for weight in [
        PackedMatrix::stacked(&[bf16_tensor(n, k, &mut w)]),
        PackedMatrix::stacked(&[f32_tensor(n, k, &w)]),
    ] {
        for row in 0..n {
            let mut out = vec![0.0; k];
            weight.gather_row(row, 1.5, &mut out);
            let expected: Vec<f32> = w[row * k..][..k].iter().map(|w| w * 1.5).collect();
            assert_eq!(out, expected, "row {row}");
        }
    }
}

#[test]
fn bias_is_added_to_every_row() {
    let (n, k, m) = (18, 20, 5);
    let weight = PackedMatrix::stacked(&[f32_tensor(n, k, &numbers(14, n * k))]);
    let (x, bias) = (numbers(15, m * k), numbers(16, n));
    let (mut y, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
    linear(&x, &weight, &mut expected);
    for row in expected.chunks_mut(n) {
        row.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
    }
    linear_bias(&x, &weight, &bias, &mut y);
    assert_eq!(y, expected);
}

/// Code for machines without AVX2.
#[test]
fn plain_lanes_agree() {
    let (n, k, m) = (40, 600, 8);
    let w = numbers(17, n * k);
    let weight = PackedMatrix::stacked(&[f32_tensor(n, k, &w)]);
    let Storage::F32(packed) = &weight.storage else {
        panic!("f32 stays f32");
    };
    let x = numbers(18, m * k);
    let mut y = vec![0.0; m * n];
    let plan = Plan::new(m, n, k, 1);
    let x_packed = pack(&x, &plan);
    TaskKernel {
        task: Task {
            x: &x_packed,
            first_panel: 0,
            y: y.chunks_mut(n).collect(),
        },
        weight: packed,
        k,
    }
    .run(Plain);
    check_product(&x, &w, n, k, &y);
}
