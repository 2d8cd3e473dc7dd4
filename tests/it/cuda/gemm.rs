//! Matmuls on the tensor cores against the reference's.

use medgemma::backend::candle::CandleBackend;
use medgemma::backend::cuda::device::Device;
use medgemma::backend::cuda::kernels::gemm::{
    self, Addend, Epilogue, Gemm, SplitSpace, num_counters, num_splits, partial_bytes,
};
use medgemma::backend::{TextOps, VisionOps};

use super::emulated;
use super::workbench::{
    BF16, Random, Workbench, assert_close, numbers_of, reference, reference_step, reference_weight,
};

/// Sizes of one matmul.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matmul {
    pub(super) num_rows: usize,
    pub(super) width: usize,
    pub(super) num_out: usize,
    pub(super) num_multiprocessors: u32,
}

/// What is added to a matmul before its epilogue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Added {
    Nothing,
    Bias,
    /// And rows that repeat.
    BiasAndRows(usize),
}

#[derive(Clone, Copy, Debug)]
enum Splits {
    None,
    Some,
}

pub(super) fn check<D: Device>(device: &D, matmul: Matmul, epilogue: Epilogue, added: Added) {
    check_split(device, matmul, epilogue, added, Splits::None);
}

fn check_split<D: Device>(
    device: &D,
    matmul: Matmul,
    epilogue: Epilogue,
    added: Added,
    splits: Splits,
) {
    let Matmul {
        num_rows,
        width,
        num_out,
        num_multiprocessors,
    } = matmul;
    let bench = Workbench::new(device);
    let mut random = Random((width * num_out + num_rows) as u64);
    let cpu = CandleBackend::cpu();
    let num_weight_rows = match epilogue {
        Epilogue::Geglu => 2 * num_out,
        Epilogue::F32 | Epilogue::Bf16 | Epilogue::Gelu => num_out,
    };
    let x = random.numbers(num_rows * width);
    let weight = random.numbers(num_weight_rows * width);
    let bias = random.numbers(num_out);
    let period = match added {
        Added::BiasAndRows(period) => period,
        Added::Nothing | Added::Bias => 1,
    };
    let rows = random.numbers(period * num_out);
    let count = num_rows * num_out;
    let op = Gemm {
        num_rows: num_rows as u32,
        width: width as u32,
        num_out: num_out as u32,
        x: bench.bf16(&x),
        weight: bench.bf16(&weight),
        bias: (added != Added::Nothing).then(|| bench.f32(&bias)),
        addend: matches!(added, Added::BiasAndRows(_)).then(|| Addend {
            rows: bench.f32(&rows),
            period: period as u32,
        }),
        epilogue,
        out: bench.empty(count * 4),
        num_multiprocessors,
    };
    let num_counters = num_counters(&op);
    let space = SplitSpace {
        partial: bench.empty(partial_bytes(&op)),
        counters: bench.zeros(num_counters * 4),
    };
    match splits {
        Splits::None => gemm::gemm(device, &op).expect("launches"),
        Splits::Some => {
            assert!(num_splits(&op) > 1, "{matmul:?} is not split");
            // Twice: the counters must be as they were.
            gemm::gemm_split(device, &op, &space).expect("launches");
            gemm::gemm_split(device, &op, &space).expect("launches");
            let counters = bench.read_u32(space.counters, num_counters);
            assert_eq!(counters, vec![0; num_counters]);
        }
    }

    let step = &reference_step(num_rows);
    let weight = reference_weight(&[num_weight_rows, width], &weight);
    let x = reference(&[num_rows, width], &x);
    let mut expected = cpu.linear(step, &x, &weight).expect("shapes fit");
    if added != Added::Nothing {
        let bias = reference(&[num_out], &bias);
        expected = cpu.linear_bias(&x, &weight, &bias).expect("shapes fit");
    }
    if let Added::BiasAndRows(period) = added {
        let repeated: Vec<f32> = (0..num_rows)
            .flat_map(|row| &rows[row % period * num_out..][..num_out])
            .copied()
            .collect();
        let repeated = reference(&[num_rows, num_out], &repeated);
        expected = cpu.add(expected, &repeated).expect("shapes fit");
    }
    let expected = match epilogue {
        Epilogue::F32 | Epilogue::Bf16 => expected,
        Epilogue::Geglu => cpu.geglu(step, &expected).expect("even width"),
        Epilogue::Gelu => cpu.gelu(expected).expect("any shape"),
    };
    // Inputs are the same on both sides; sums of f32 are in another order, and a bf16 rounds.
    let (actual, tolerance) = match epilogue {
        Epilogue::F32 => (bench.read_f32(op.out, count), (1e-5, 1e-4)),
        _ => (bench.read_bf16(op.out, count), (BF16, 1e-3)),
    };
    let what = format!("{matmul:?} {epilogue:?} {added:?}");
    assert_close(&what, &actual, &numbers_of(&expected), tolerance);
}

#[test]
fn matmuls_for_many_rows() {
    emulated(|device| {
        let matmul = |num_rows, width, num_out, num_multiprocessors| Matmul {
            num_rows,
            width,
            num_out,
            num_multiprocessors,
        };
        check(device, matmul(9, 72, 50, 4), Epilogue::F32, Added::Nothing);
        check(
            device,
            matmul(64, 136, 70, 1),
            Epilogue::Geglu,
            Added::Nothing,
        );
        check(
            device,
            matmul(33, 8, 33, 132),
            Epilogue::Bf16,
            Added::Nothing,
        );
        check(
            device,
            matmul(33, 40, 19, 132),
            Epilogue::Geglu,
            Added::Nothing,
        );
        check(device, matmul(300, 264, 131, 1), Epilogue::F32, Added::Bias);
        check(
            device,
            matmul(50, 592, 40, 2),
            Epilogue::F32,
            Added::BiasAndRows(25),
        );
        check(device, matmul(50, 48, 129, 2), Epilogue::Gelu, Added::Bias);
    });
}

#[test]
fn matmuls_whose_columns_are_split() {
    emulated(|device| {
        let matmul = |num_rows, width, num_out, num_multiprocessors| Matmul {
            num_rows,
            width,
            num_out,
            num_multiprocessors,
        };
        // Three splits of 29 slices, and as many as columns allow.
        let few = matmul(17, 1832, 60, 3);
        check_split(device, few, Epilogue::F32, Added::Bias, Splits::Some);
        let many = matmul(40, 1032, 20, 132);
        check_split(device, many, Epilogue::Geglu, Added::Nothing, Splits::Some);
    });
}
