//! Kernels that work on rows: embedding, norms, matmuls for few rows, activations, moves.

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cuda::device::Device;
use medgemma::backend::cuda::kernels::elementwise::{self, AveragePool, Patches, SelectRows};
use medgemma::backend::cuda::kernels::embed::{self, Embed};
use medgemma::backend::cuda::kernels::gemv::{self, Gemv, Input, Output};
use medgemma::backend::cuda::kernels::norm::{
    self, AddNormNorm, LayerNorm, NormOutput, RmsNorm, Rows,
};
use medgemma::backend::{NormPair, TextOps, VisionOps};

use super::emulated;
use super::gemm::Matmul;
use super::workbench::{
    BF16, Random, Workbench, assert_close, numbers_of, reference, reference_step, reference_weight,
};

const EPS: f32 = 1e-6;
/// Sums of f32 in another order.
const F32: (f32, f32) = (1e-5, 1e-5);

pub(super) fn check_embed<D: Device>(device: &D, width: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(1);
    let vocab = 50;
    let table = random.numbers(vocab * width);
    let table_at = bench.bf16(&table);
    let ids_at = bench.u32(&[3, 49, 0, 3, 7]);
    // Rows 1 and 4 take samples 2 and 0 of the step before.
    let sampled_tokens = bench.u32(&[11, 12, 13]);
    let pairs = bench.u32(&[1, 2, 4, 0]);
    embed::feed(device, pairs, 2, sampled_tokens, ids_at).expect("launches");
    let out = bench.empty(5 * width * 4);
    let op = Embed {
        token_ids: ids_at,
        table: table_at,
        scale: 8.5,
        num_rows: 5,
        width: width as u32,
        out,
    };
    embed::embed(device, &op).expect("launches");
    let expected: Vec<f32> = [3, 13, 0, 3, 11]
        .iter()
        .flat_map(|id| table[id * width..(id + 1) * width].iter().map(|x| x * 8.5))
        .collect();
    assert_eq!(bench.read_f32(out, 5 * width), expected);
}

#[test]
fn embedding_and_feeding() {
    emulated(|device| check_embed(device, 72));
}

pub(super) fn check_norms<D: Device>(device: &D, num_rows: usize, width: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(width as u64);
    let cpu = CandleBackend::cpu();
    let step = reference_step(num_rows);
    let shape = [num_rows, width];
    let (residual, branch) = (
        random.numbers(num_rows * width),
        random.numbers(num_rows * width),
    );
    let (post, next) = (random.numbers(width), random.numbers(width));
    let count = num_rows * width;
    let rows = Rows {
        num_rows: num_rows as u32,
        width: width as u32,
    };
    let (residual_at, branch_at) = (bench.f32(&residual), bench.f32(&branch));
    let (post_at, next_at) = (bench.f32(&post), bench.f32(&next));
    let out = bench.empty(count * 2);

    let op = RmsNorm {
        x: residual_at,
        weight: post_at,
        eps: EPS,
        out,
    };
    norm::rms_norm(device, rows, &op).expect("launches");
    let expected = cpu
        .rms_norm(
            &step,
            &reference(&shape, &residual),
            &reference(&[width], &post),
            f64::from(EPS),
        )
        .expect("shapes fit");
    let tolerance = (BF16, 1e-5);
    assert_close(
        "rms_norm",
        &bench.read_bf16(out, count),
        &numbers_of(&expected),
        tolerance,
    );

    for output in [NormOutput::Bf16, NormOutput::F32] {
        let wide = bench.empty(count * 4);
        let op = LayerNorm {
            x: residual_at,
            weight: post_at,
            bias: next_at,
            eps: EPS,
            out: wide,
            output,
        };
        norm::layer_norm(device, rows, &op).expect("launches");
        let expected = cpu
            .layer_norm(
                &reference(&shape, &residual),
                &reference(&[width], &post),
                &reference(&[width], &next),
                f64::from(EPS),
            )
            .expect("shapes fit");
        let expected = numbers_of(&expected);
        match output {
            NormOutput::Bf16 => {
                assert_close(
                    "layer_norm",
                    &bench.read_bf16(wide, count),
                    &expected,
                    tolerance,
                );
            }
            NormOutput::F32 => {
                assert_close("layer_norm", &bench.read_f32(wide, count), &expected, F32)
            }
        }
    }

    // Last, since the sum goes where the residual was.
    let op = AddNormNorm {
        residual: residual_at,
        branch: branch_at,
        post: post_at,
        next: next_at,
        eps: EPS,
        sum: residual_at,
        out,
    };
    norm::add_norm_norm(device, rows, &op).expect("launches");
    let (sum, normed) = cpu
        .add_norm_norm(
            &step,
            &reference(&shape, &residual),
            &reference(&shape, &branch),
            &NormPair {
                post: &reference(&[width], &post),
                next: &reference(&[width], &next),
                eps: f64::from(EPS),
            },
        )
        .expect("shapes fit");
    assert_close(
        "sum",
        &bench.read_f32(residual_at, count),
        &numbers_of(&sum),
        F32,
    );
    assert_close(
        "normed",
        &bench.read_bf16(out, count),
        &numbers_of(&normed),
        tolerance,
    );
}

#[test]
fn norms() {
    emulated(|device| {
        for (num_rows, width) in [(1, 2560), (3, 20), (2, 1152)] {
            check_norms(device, num_rows, width);
        }
    });
}

pub(super) fn check_gemv<D: Device>(device: &D, matmul: Matmul, output: Output, with_norms: bool) {
    let Matmul {
        num_rows,
        width,
        num_out,
        num_multiprocessors,
    } = matmul;
    let bench = Workbench::new(device);
    let mut random = Random((width * num_out + num_rows) as u64);
    let cpu = CandleBackend::cpu();
    let num_weight_rows = match output {
        Output::Geglu => 2 * num_out,
        Output::F32 | Output::Bf16 => num_out,
    };
    let weight = random.numbers(num_weight_rows * width);
    let x = random.numbers(num_rows * width);
    let branch = random.numbers(num_rows * width);
    let (post, next) = (random.numbers(width), random.numbers(width));
    let norm = AddNormNorm {
        residual: bench.f32(&x),
        branch: bench.f32(&branch),
        post: bench.f32(&post),
        next: bench.f32(&next),
        eps: EPS,
        sum: bench.empty(num_rows * width * 4),
        out: bench.empty(16),
    };
    let op = Gemv {
        num_rows: num_rows as u32,
        width: width as u32,
        num_out: num_out as u32,
        input: if with_norms {
            Input::AddNormNorm(&norm)
        } else {
            Input::Given(bench.bf16(&x))
        },
        weight: bench.bf16(&weight),
        output,
        out: bench.empty(num_rows * num_out * 4),
        num_multiprocessors,
    };
    gemv::gemv(device, &op).expect("launches");

    let step = &reference_step(num_rows);
    let mut input = reference(&[num_rows, width], &x);
    if with_norms {
        let (sum, normed) = cpu
            .add_norm_norm(
                step,
                &input,
                &reference(&[num_rows, width], &branch),
                &NormPair {
                    post: &reference(&[width], &post),
                    next: &reference(&[width], &next),
                    eps: f64::from(EPS),
                },
            )
            .expect("shapes fit");
        let sum = numbers_of(&sum);
        assert_close(
            "sum",
            &bench.read_f32(norm.sum, num_rows * width),
            &sum,
            F32,
        );
        // As the kernel hands it on; where the two sums differ, a number may round the other way.
        let narrowed: Vec<f32> = numbers_of(&normed)
            .iter()
            .map(|x| half::bf16::from_f32(*x).to_f32())
            .collect();
        input = reference(&[num_rows, width], &narrowed);
    }
    let weight = reference_weight(&[num_weight_rows, width], &weight);
    let mut expected = cpu.linear(step, &input, &weight).expect("shapes fit");
    if output == Output::Geglu {
        expected = cpu.geglu(step, &expected).expect("even width");
    }
    let expected = numbers_of(&expected);
    let count = num_rows * num_out;
    let actual = match output {
        Output::F32 => bench.read_f32(op.out, count),
        Output::Bf16 | Output::Geglu => bench.read_bf16(op.out, count),
    };
    // One number of the input that rounds the other way is worth up to 2 · BF16 in a sum; gate and
    // up are each up to 20.
    let tolerance = match (with_norms, output) {
        (false, Output::F32) => (1e-5, 1e-4),
        (false, _) => (2.0 * BF16, 1e-4),
        (true, Output::Geglu) => (2.0 * BF16, 40.0 * BF16),
        (true, _) => (2.0 * BF16, 4.0 * BF16),
    };
    assert_close(
        &format!("{matmul:?} {output:?}"),
        &actual,
        &expected,
        tolerance,
    );
}

#[test]
fn matmuls_for_few_rows() {
    emulated(|device| {
        let matmul = |num_rows, width, num_out, num_multiprocessors| Matmul {
            num_rows,
            width,
            num_out,
            num_multiprocessors,
        };
        check_gemv(device, matmul(1, 2560, 37, 2), Output::F32, false);
        check_gemv(device, matmul(1, 520, 301, 2), Output::Geglu, true);
        check_gemv(device, matmul(3, 264, 90, 3), Output::Bf16, false);
        check_gemv(device, matmul(3, 24, 5, 132), Output::F32, true);
        check_gemv(device, matmul(8, 1032, 61, 1), Output::Geglu, true);
        check_gemv(device, matmul(8, 16, 128, 132), Output::F32, false);
    });
}

pub(super) fn check_elementwise<D: Device>(device: &D, num_rows: usize, width: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(4);
    let cpu = CandleBackend::cpu();
    let count = num_rows * width;
    let x: Vec<f32> = random.numbers(2 * count).iter().map(|x| 6.0 * x).collect();
    let x_at = bench.f32(&x);
    // Of all rows, or of the four that are selected.
    let out = bench.empty(2 * width * num_rows.max(4) * 4);
    let tolerance = (BF16, 1e-6);

    elementwise::geglu(device, x_at, num_rows as u32, width as u32, out).expect("launches");
    let expected = cpu
        .geglu(
            &reference_step(num_rows),
            &reference(&[num_rows, 2 * width], &x),
        )
        .expect("even width");
    assert_close(
        "geglu",
        &bench.read_bf16(out, count),
        &numbers_of(&expected),
        tolerance,
    );

    elementwise::gelu(device, x_at, count as u64, out).expect("launches");
    let expected = cpu
        .gelu(reference(&[count], &x[..count]))
        .expect("any shape");
    assert_close(
        "gelu",
        &bench.read_bf16(out, count),
        &numbers_of(&expected),
        tolerance,
    );

    elementwise::add(device, x_at, x_at.at(count * 4), count as u64, out).expect("launches");
    let expected: Vec<f32> = (0..count).map(|idx| x[idx] + x[count + idx]).collect();
    assert_eq!(bench.read_f32(out, count), expected);

    // Inputs are bf16 times six, so narrowing rounds, and widening brings back what was narrowed.
    elementwise::to_bf16(device, x_at, count as u64, out).expect("launches");
    let narrowed: Vec<f32> = x[..count]
        .iter()
        .map(|x| half::bf16::from_f32(*x).to_f32())
        .collect();
    assert_eq!(bench.read_bf16(out, count), narrowed);
    let wide = bench.empty(count * 4);
    elementwise::to_f32(device, out, count as u64, wide).expect("launches");
    assert_eq!(bench.read_f32(wide, count), narrowed);

    let last = num_rows as u32 - 1;
    let rows = [last / 2, 0, last / 2, last];
    let op = SelectRows {
        x: x_at,
        rows: bench.u32(&rows),
        num_selected: 4,
        row_bytes: 2 * width as u32 * 4,
        out,
    };
    elementwise::select_rows(device, &op).expect("launches");
    let expected: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &x[row as usize * 2 * width..][..2 * width])
        .copied()
        .collect();
    assert_eq!(bench.read_f32(out, 8 * width), expected);
}

#[test]
fn activations_sums_and_moves() {
    emulated(|device| check_elementwise(device, 7, 90));
}

pub(super) fn check_pool<D: Device>(device: &D, grid: usize, kernel: usize, width: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(5);
    let num_images = 2;
    let x = random.numbers(num_images * grid * grid * width);
    let pooled = grid / kernel;
    let count = num_images * pooled * pooled * width;
    let op = AveragePool {
        x: bench.f32(&x),
        num_images: num_images as u32,
        grid: grid as u32,
        kernel: kernel as u32,
        width: width as u32,
        out: bench.empty(count * 4),
    };
    elementwise::average_pool(device, &op).expect("launches");
    let expected = CandleBackend::cpu()
        .average_pool(
            &reference(&[num_images * grid * grid, width], &x),
            grid,
            kernel,
        )
        .expect("the kernel divides the grid");
    assert_close(
        "pool",
        &bench.read_f32(op.out, count),
        &numbers_of(&expected),
        F32,
    );
}

#[test]
fn pooling() {
    emulated(|device| check_pool(device, 12, 4, 10));
}

pub(super) fn check_patches<D: Device>(device: &D, grid: usize, patch: usize, padded: usize) {
    let bench = Workbench::new(device);
    let mut random = Random(6);
    let (size, num_patches) = (grid * patch, grid * grid);
    let rgb: Vec<u8> = (0..size * size * 3).map(|_| random.bits() as u8).collect();
    let op = Patches {
        rgb: bench.bytes(&rgb),
        size: size as u32,
        patch: patch as u32,
        padded: padded as u32,
        out: bench.empty(num_patches * padded * 2),
    };
    elementwise::patches(device, &op).expect("launches");
    let mut expected = vec![0.0; num_patches * padded];
    for (idx, level) in rgb.iter().enumerate() {
        let (channel, x, y) = (idx % 3, idx / 3 % size, idx / 3 / size);
        let row = y / patch * grid + x / patch;
        let column = channel * patch * patch + y % patch * patch + x % patch;
        expected[row * padded + column] = (f32::from(*level) - 127.5) / 127.5;
    }
    assert_close(
        "patches",
        &bench.read_bf16(op.out, num_patches * padded),
        &expected,
        (BF16, 0.0),
    );
}

#[test]
fn patches_of_an_image() {
    emulated(|device| check_patches(device, 2, 14, 592));
}
