//! The emulator itself: faults that a GPU would hide, or turn into wrong numbers now and then,
//! must fail a launch here.

use medgemma::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Launch, Overlap, Source};

use super::emulator::Emulator;
use super::workbench::Workbench;

static FAULTS: Source = Source {
    name: "faults.cu",
    text: r"
KERNEL reverse(const float* from, float* to, u32 waits) {
    SHARED_MEMORY(memory);
    float* shared = reinterpret_cast<float*>(memory);
    shared[threadIdx.x] = from[threadIdx.x];
    if (waits) {
        __syncthreads();
    }
    to[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

KERNEL late_copy(const float* from, float* to, u32 waits) {
    SHARED_MEMORY(memory);
    float* shared = reinterpret_cast<float*>(memory);
    copy16_async(shared + threadIdx.x * 4, from + threadIdx.x * 4, true);
    copies_commit();
    if (waits) {
        copies_wait<0>();
    }
    to[threadIdx.x] = shared[threadIdx.x * 4];
}

KERNEL overrun(u32 offset) {
    SHARED_MEMORY(memory);
    memory[offset] = 1;
}

KERNEL diverging() {
    if (threadIdx.x % 2 == 0) {
        __shfl_sync(ALL_LANES, 1u, 0);
    } else {
        __syncthreads();
    }
}

KERNEL misaligned(const float* from, float* to) {
    store16(to, load16(from + 1));
}

KERNEL outside(float* to, u32 offset) {
    to[offset] = 1.0f;
}
",
};

const THREADS: u32 = 64;

/// These are faults of the emulator's own: no GPU is asked.
fn emulated(check: impl FnOnce(&Emulator)) {
    if let Some(device) = Emulator::new() {
        check(&device);
    }
}

fn run(device: &Emulator, function: &'static str, args: &[Arg]) -> Result<(), String> {
    let launch = Launch {
        kernel: KernelId {
            source: &FAULTS,
            function,
            defines: &[],
        },
        grid: [1, 1, 1],
        block: [THREADS, 1, 1],
        shared_bytes: THREADS * 16,
        args,
        overlap: Overlap::Wait,
    };
    device.launch(&launch).map_err(|error| error.to_string())
}

fn numbers() -> Vec<f32> {
    (0..THREADS * 4).map(|idx| idx as f32).collect()
}

#[test]
fn a_missing_barrier_shows() {
    emulated(|device| {
        let bench = Workbench::new(device);
        let from = bench.f32(&numbers());
        let to = bench.empty(THREADS as usize * 4);
        let reversed: Vec<f32> = (0..THREADS).rev().map(|idx| idx as f32).collect();
        for (waits, is_right) in [(1, true), (0, false)] {
            let args = [Arg::Ptr(from), Arg::Ptr(to), Arg::U32(waits)];
            run(device, "reverse", &args).expect("it runs, right or wrong");
            assert_eq!(bench.read_f32(to, THREADS as usize) == reversed, is_right);
        }
    });
}

#[test]
fn a_missing_wait_for_copies_shows() {
    emulated(|device| {
        let bench = Workbench::new(device);
        let from = bench.f32(&numbers());
        let to = bench.empty(THREADS as usize * 4);
        let expected: Vec<f32> = (0..THREADS).map(|idx| (idx * 4) as f32).collect();
        // Every second launch has copies that take until their wait.
        let right = |waits: u32| {
            (0..2)
                .filter(|_| {
                    let args = [Arg::Ptr(from), Arg::Ptr(to), Arg::U32(waits)];
                    run(device, "late_copy", &args).expect("it runs, right or wrong");
                    bench.read_f32(to, THREADS as usize) == expected
                })
                .count()
        };
        assert_eq!(right(1), 2);
        assert_eq!(right(0), 1);
    });
}

#[test]
fn faults_are_named() {
    emulated(|device| {
        let bench = Workbench::new(device);
        let numbers = Arg::Ptr(bench.f32(&numbers()));
        for (function, args, says) in [
            (
                "overrun",
                vec![Arg::U32(THREADS * 16)],
                "outside its 1024 bytes",
            ),
            ("diverging", vec![], "never come"),
            ("misaligned", vec![numbers, numbers], "not 16-byte aligned"),
            (
                "outside",
                vec![numbers],
                "takes 2 arguments and was given 1",
            ),
        ] {
            let error = run(device, function, &args).expect_err(function);
            assert!(error.contains(says), "{error}");
        }
        run(device, "overrun", &[Arg::U32(THREADS * 16 - 1)]).expect("the last byte is inside");
    });
}

#[test]
#[should_panic(expected = "wrote outside a buffer of 16 bytes")]
fn a_write_behind_a_buffer_shows() {
    let Some(device) = Emulator::new() else {
        panic!("wrote outside a buffer of 16 bytes: not checked without a compiler");
    };
    let buffer = device.allocate(16).expect("there is memory");
    let at: DevicePtr = device.address(&buffer);
    run(&device, "outside", &[Arg::Ptr(at), Arg::U32(4)]).expect("it runs");
    drop(buffer);
}
