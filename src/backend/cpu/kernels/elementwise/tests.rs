//! Compares norms, activations and reductions with f64.

use super::super::fixtures::{check_close, numbers};
use super::*;

/// Widths and row counts on both sides of every threshold.
const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 7), (1, 640), (5, 33), (70, 1152), (2, 40_000)];

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|number| f64::from(*number)).collect()
}

fn rms_truth(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scaled = x.iter().zip(weight);
    scaled
        .map(|(x, w)| x / (mean + eps).sqrt() * f64::from(*w))
        .collect()
}

#[test]
fn rms_norm_equals_its_formula() {
    for (rows, width) in SHAPES {
        let (x, weight) = (numbers(1, rows * width), numbers(2, width));
        for (factor, eps) in [(1.0, 1e-6), (1e-3, 1e-6), (300.0, 1e-6)] {
            let x: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let mut out = vec![f32::NAN; x.len()];
            rms_norm(&x, &weight, eps, &mut out);
            for (x, out) in x.chunks(width).zip(out.chunks(width)) {
                check_close(out, &rms_truth(&wide(x), &weight, eps), 1e-6, "norm");
            }
        }
    }
}

#[test]
fn residual_and_norms_equal_their_formula() {
    for (rows, width) in SHAPES {
        let len = rows * width;
        let (residual, branch) = (numbers(3, len), numbers(4, len));
        let (post, next) = (numbers(5, width), numbers(6, width));
        let (mut sum, mut normed) = (vec![f32::NAN; len], vec![f32::NAN; len]);
        add_norm_norm(
            [&residual, &branch],
            [&post, &next],
            1e-6,
            [&mut sum, &mut normed],
        );
        for row in 0..rows {
            let at = row * width..(row + 1) * width;
            let mut truth = rms_truth(&wide(&branch[at.clone()]), &post, 1e-6);
            truth
                .iter_mut()
                .zip(&residual[at.clone()])
                .for_each(|(t, r)| *t += f64::from(*r));
            check_close(&sum[at.clone()], &truth, 1e-6, "sum");
            check_close(&normed[at], &rms_truth(&truth, &next, 1e-6), 4e-6, "normed");
        }
    }
}

#[test]
fn layer_norm_equals_its_formula() {
    for (rows, width) in SHAPES {
        let x: Vec<f32> = numbers(7, rows * width).iter().map(|x| x + 3.0).collect();
        let (weight, bias) = (numbers(8, width), numbers(9, width));
        let mut out = vec![f32::NAN; x.len()];
        layer_norm(&x, &weight, &bias, 1e-6, &mut out);
        for (x, out) in x.chunks(width).zip(out.chunks(width)) {
            let x = wide(x);
            let mean = x.iter().sum::<f64>() / width as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let truth: Vec<f64> = x
                .iter()
                .zip(weight.iter().zip(&bias))
                .map(|(x, (w, b))| {
                    (x - mean) / (variance + 1e-6).sqrt() * f64::from(*w) + f64::from(*b)
                })
                .collect();
            check_close(out, &truth, 4e-6, "norm");
        }
    }
}

fn gelu_truth(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

#[test]
fn activations_equal_their_formula() {
    for (rows, width) in SHAPES {
        let gate_up: Vec<f32> = numbers(10, rows * width * 2)
            .iter()
            .map(|x| 6.0 * x)
            .collect();
        let mut out = vec![f32::NAN; rows * width];
        geglu(&gate_up, width, &mut out);
        for (out, gate_up) in out.chunks(width).zip(gate_up.chunks(2 * width)) {
            let truth: Vec<f64> = (0..width)
                .map(|idx| gelu_truth(f64::from(gate_up[idx])) * f64::from(gate_up[width + idx]))
                .collect();
            check_close(out, &truth, 5e-6, "geglu");
        }
        let mut x = gate_up.clone();
        gelu(&mut x);
        let truth: Vec<f64> = wide(&gate_up).into_iter().map(gelu_truth).collect();
        check_close(&x, &truth, 1e-6, "gelu");
    }
}

#[test]
fn sums_add() {
    for (rows, width) in SHAPES {
        let (a, b) = (numbers(11, rows * width), numbers(12, rows * width));
        let mut sum = a.clone();
        add(&mut sum, &b);
        assert!(
            sum.iter()
                .zip(a.iter().zip(&b))
                .all(|(sum, (a, b))| *sum == a + b)
        );
        let mut biased = a.clone();
        add_bias(&mut biased, &b[..width]);
        for (biased, a) in biased.chunks(width).zip(a.chunks(width)) {
            assert!(
                biased
                    .iter()
                    .zip(a.iter().zip(&b))
                    .all(|(sum, (a, b))| *sum == a + b)
            );
        }
    }
}

#[test]
fn softmax_equals_its_formula() {
    for (rows, width) in SHAPES {
        let x: Vec<f32> = numbers(13, rows * width).iter().map(|x| 20.0 * x).collect();
        let mut out = x.clone();
        softmax(&mut out, width);
        for (x, out) in x.chunks(width).zip(out.chunks(width)) {
            let powers: Vec<f64> = wide(x).into_iter().map(f64::exp).collect();
            let sum: f64 = powers.iter().sum();
            let truth: Vec<f64> = powers.into_iter().map(|power| power / sum).collect();
            check_close(out, &truth, 4e-7, "softmax");
        }
    }
}

#[test]
fn log_sum_exp_equals_its_formula() {
    for len in [1, 7, 32, 1000, 262_144] {
        for shift in [-500.0, 0.0, 500.0] {
            let x: Vec<f32> = numbers(14, len).iter().map(|x| 10.0 * x + shift).collect();
            let shifted = wide(&x).into_iter().map(|x| (x - f64::from(shift)).exp());
            let truth = shifted.sum::<f64>().ln() + f64::from(shift);
            check_close(
                &[log_sum_exp(&x)],
                &[truth],
                1e-7 * truth.abs().max(4.0),
                "sum",
            );
        }
    }
    assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
    assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
    assert_eq!(log_sum_exp(&[2.5, f32::NEG_INFINITY]), 2.5);
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    for len in [1, 2, 31, 33, 100, 5000] {
        let x = numbers(15, len);
        let expected = (0..len).fold(0, |best, idx| if x[idx] > x[best] { idx } else { best });
        assert_eq!(argmax(&x), expected);
    }
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax(&[f32::NAN, -1.0, f32::NAN]), 1);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 4]), 0);
}

#[test]
fn a_row_is_the_same_bits_beside_others() {
    let (rows, width) = (60, 1152);
    let (x, weight) = (numbers(16, rows * width), numbers(17, width));
    let (mut all, mut one) = (vec![0.0; rows * width], vec![0.0; width]);
    rms_norm(&x, &weight, 1e-6, &mut all);
    for (x, all) in x.chunks(width).zip(all.chunks(width)) {
        rms_norm(x, &weight, 1e-6, &mut one);
        assert_eq!(one, all);
    }
    let mut all = x.clone();
    softmax(&mut all, width);
    for (x, all) in x.chunks(width).zip(all.chunks(width)) {
        let mut one = x.to_vec();
        softmax(&mut one, width);
        assert_eq!(one, all);
    }
}
