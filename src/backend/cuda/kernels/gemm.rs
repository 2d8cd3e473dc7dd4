//! A matmul for any number of rows, with a fused epilogue.

use super::{Shape, launch, require, require_aligned};
use crate::backend::cuda::device::{Arg, Device, DevicePtr, KernelId, Source};
use crate::error::Result;

/// `gemm.cu`
pub static SOURCE: Source = Source {
    name: "gemm.cu",
    text: include_str!("gemm.cu"),
};

/// Constant of the kernel.
const THREADS: u32 = 128;
/// Minimum number of columns of a split: fewer are not worth another pass over its sums.
const MIN_SPLIT_WIDTH: u32 = 256;

/// Output of a matmul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `(rows, out)` f32
    F32,
    /// `(rows, out)` bf16
    Bf16,
    /// The weight is `(2·out, width)`, gate first: `gelu_tanh(gate) · up (rows, out)` bf16. Takes
    /// neither bias nor addend.
    Geglu,
    /// `gelu_tanh (rows, out)` bf16
    Gelu,
}

/// Rows that are added to a matmul's output periodically.
#[derive(Clone, Copy, Debug)]
pub struct Addend {
    /// `(period, out)` f32
    pub rows: DevicePtr,
    /// Row r takes row r % period.
    pub period: u32,
}

/// `out = x · weightᵀ + bias + addend`
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Number of rows; any.
    pub num_rows: u32,
    /// Number of values per row, a multiple of 8.
    pub width: u32,
    /// Number of values per row of `out`.
    pub num_out: u32,
    /// `(rows, width)` bf16
    pub x: DevicePtr,
    /// `(num_out, width)` bf16, or twice as many rows for [`Epilogue::Geglu`]
    pub weight: DevicePtr,
    /// `(num_out)` f32
    pub bias: Option<DevicePtr>,
    /// Rows to add, such as learned positions.
    pub addend: Option<Addend>,
    /// Kind of output.
    pub epilogue: Epilogue,
    /// `(rows, num_out)`
    pub out: DevicePtr,
    /// Number of multiprocessors of the device, all of which should have work.
    pub num_multiprocessors: u32,
}

/// Tile sizes of a matmul; they depend only on its sizes and the device.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    block_m: u32,
    block_n: u32,
    block_k: u32,
    stages: u32,
    /// Number of tiles along the outputs and along the rows.
    tiles: [u32; 2],
}

impl Tiling {
    fn of(op: &Gemm) -> Self {
        let block_m = match op.num_rows {
            0..=32 => 32,
            33..=256 => 64,
            _ => 128,
        };
        let tiles = |block_n: u32| {
            let block_out = match op.epilogue {
                Epilogue::Geglu => block_n / 2,
                Epilogue::F32 | Epilogue::Bf16 | Epilogue::Gelu => block_n,
            };
            [
                op.num_out.div_ceil(block_out),
                op.num_rows.div_ceil(block_m),
            ]
        };
        // The largest tile for which every multiprocessor still gets a block.
        let block_n = [128, 64]
            .into_iter()
            .find(|&block_n| tiles(block_n).iter().product::<u32>() >= op.num_multiprocessors)
            .unwrap_or(32);
        // Small tiles are limited by memory latency, so they have more loads in flight. Large ones
        // need the registers.
        let (block_k, stages) = if block_m + block_n <= 128 {
            (64, 4)
        } else {
            (32, 3)
        };
        Self {
            block_m,
            block_n,
            block_k,
            stages,
            tiles: tiles(block_n),
        }
    }

    fn num_tiles(&self) -> u32 {
        self.tiles.iter().product()
    }

    fn shared_bytes(&self) -> u32 {
        self.stages * (self.block_m + self.block_n) * (self.block_k + 8) * 2
    }
}

/// Buffers through which splits of a matmul pass their sums to the last one.
#[derive(Clone, Copy, Debug)]
pub struct SplitSpace {
    /// [`partial_bytes`]
    pub partial: DevicePtr,
    /// [`num_counters`] u32, zero before the first launch and again after each.
    pub counters: DevicePtr,
}

/// Number of splits that give every multiprocessor two blocks; 1 if tiles alone do.
pub fn num_splits(op: &Gemm) -> u32 {
    let wanted = (2 * op.num_multiprocessors) / Tiling::of(op).num_tiles().max(1);
    wanted.min(op.width / MIN_SPLIT_WIDTH).max(1)
}

/// Number of bytes of [`SplitSpace::partial`].
pub fn partial_bytes(op: &Gemm) -> usize {
    let tiling = Tiling::of(op);
    let tile_bytes = (tiling.block_m * tiling.block_n) as usize * size_of::<f32>();
    tiling.num_tiles() as usize * num_splits(op) as usize * tile_bytes
}

/// Length of [`SplitSpace::counters`].
pub fn num_counters(op: &Gemm) -> usize {
    Tiling::of(op).num_tiles() as usize
}

/// Runs the matmul with one block per tile.
///
/// # Errors
/// Fails for shapes or addresses that the kernel does not support; returns the device's errors.
pub fn gemm<D: Device>(device: &D, op: &Gemm) -> Result<()> {
    run(device, op, None)
}

/// Runs the matmul with [`num_splits`] blocks per tile: for few rows, whose tiles alone leave most
/// of the device idle.
///
/// # Errors
/// Fails for shapes or addresses that the kernel does not support; returns the device's errors.
pub fn gemm_split<D: Device>(device: &D, op: &Gemm, space: &SplitSpace) -> Result<()> {
    run(device, op, Some(space))
}

fn run<D: Device>(device: &D, op: &Gemm, space: Option<&SplitSpace>) -> Result<()> {
    require(op.width > 0 && op.width.is_multiple_of(8), || {
        format!("gemm: width {} is not a multiple of 8", op.width)
    })?;
    let plain = op.bias.is_none() && op.addend.is_none();
    require(plain || op.epilogue != Epilogue::Geglu, || {
        "gemm: GeGLU takes neither bias nor addend".to_owned()
    })?;
    require(op.addend.is_none_or(|addend| addend.period > 0), || {
        "gemm: an addend of no rows".to_owned()
    })?;
    require_aligned("gemm", &[op.x, op.weight])?;

    let tiling = Tiling::of(op);
    let defines = [
        ("BLOCK_M", tiling.block_m),
        ("BLOCK_N", tiling.block_n),
        ("BLOCK_K", tiling.block_k),
        ("STAGES", tiling.stages),
        (
            "EPILOGUE",
            match op.epilogue {
                Epilogue::F32 => 0,
                Epilogue::Bf16 => 1,
                Epilogue::Geglu => 2,
                Epilogue::Gelu => 3,
            },
        ),
        ("BIAS", u32::from(op.bias.is_some())),
        ("ADDEND", u32::from(op.addend.is_some())),
    ];
    let kernel = KernelId {
        source: &SOURCE,
        function: "gemm",
        defines: &defines,
    };
    // Arguments that are compiled out or belong to splits are never read.
    let (addend, period) = op
        .addend
        .map_or((op.out, 1), |addend| (addend.rows, addend.period));
    let (num_splits, partial, counters) = match space {
        Some(space) => (num_splits(op), space.partial, space.counters),
        None => (1, op.out, op.out),
    };
    let args = [
        Arg::Ptr(op.x),
        Arg::Ptr(op.weight),
        Arg::U32(op.num_rows),
        Arg::U32(op.width),
        Arg::U32(op.num_out),
        Arg::Ptr(op.bias.unwrap_or(op.out)),
        Arg::Ptr(addend),
        Arg::U32(period),
        Arg::Ptr(partial),
        Arg::Ptr(counters),
        Arg::Ptr(op.out),
    ];
    let [out_tiles, row_tiles] = tiling.tiles;
    let shape = Shape {
        grid: [out_tiles, row_tiles, num_splits],
        threads: THREADS,
    };
    launch(device, kernel, shape, tiling.shared_bytes(), &args)
}
