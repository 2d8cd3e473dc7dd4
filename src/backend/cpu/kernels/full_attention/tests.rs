//! Compares attention without a mask with an f64 triple loop.

use super::super::fixtures::{attention, check_close, numbers};
use super::*;

#[test]
fn equals_plain_loops() {
    for (seed, (images, patches, heads, head_dim)) in [
        (1, 1, 1, 72),
        (1, 16, 2, 72),
        (2, 37, 3, 72),
        (1, 300, 2, 72),
        (3, 128, 1, 32),
        (1, 97, 2, 9),
    ]
    .into_iter()
    .enumerate()
    {
        let hidden = heads * head_dim;
        let qkv: Vec<f32> = numbers(seed as u64, images * patches * 3 * hidden)
            .into_iter()
            .map(|x| 2.0 * x)
            .collect();
        let mut out = vec![f32::NAN; images * patches * hidden];
        full_attention(&qkv, images, heads, head_dim, &mut out);

        let part = |row: usize, part: usize, head: usize| {
            &qkv[(row * 3 + part) * hidden + head * head_dim..][..head_dim]
        };
        let scale = 1.0 / (head_dim as f32).sqrt();
        let mut truth = Vec::new();
        for row in 0..images * patches {
            let image = row / patches * patches..(row / patches + 1) * patches;
            for head in 0..heads {
                let gather = |idx: usize| image.clone().map(|row| part(row, idx, head)).collect();
                let (keys, values): (Vec<_>, Vec<_>) = (gather(1), gather(2));
                truth.extend(attention(part(row, 0, head), &keys, &values, scale));
            }
        }
        check_close(
            &out,
            &truth,
            2e-6,
            &format!("{images} × {patches}, {heads} × {head_dim}"),
        );
    }
}

#[test]
fn no_images_are_no_rows() {
    full_attention(&[], 0, 16, 72, &mut []);
}
