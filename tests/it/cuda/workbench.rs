//! Numbers on a device and back, for tests.

use std::cell::RefCell;

use half::bf16;
use medgemma::backend::candle::{CandleBackend, CandleLinear, CandleStep};
use medgemma::backend::cuda::device::{Device, DevicePtr};
use medgemma::backend::{
    BLOCK_SIZE, BackendTypes, HostDtype, HostLinear, HostTensor, Loading, Role, Rope, StepInput,
    StepSequence, TextOps,
};
use medgemma::core::{BlockId, BlockTable, TokenId};

/// A bf16 number is within this of what it was rounded from, relative to it.
pub(super) const BF16: f32 = 1.0 / 256.0;

/// Keeps what a test allocates until it ends.
pub(super) struct Workbench<'d, D: Device> {
    pub(super) device: &'d D,
    buffers: RefCell<Vec<D::Buffer>>,
}

impl<'d, D: Device> Workbench<'d, D> {
    pub(super) fn new(device: &'d D) -> Self {
        Self {
            device,
            buffers: RefCell::default(),
        }
    }

    /// Memory with whatever happens to be in it.
    pub(super) fn empty(&self, num_bytes: usize) -> DevicePtr {
        let buffer = self.device.allocate(num_bytes).expect("there is memory");
        let address = self.device.address(&buffer);
        self.buffers.borrow_mut().push(buffer);
        address
    }

    pub(super) fn zeros(&self, num_bytes: usize) -> DevicePtr {
        let address = self.empty(num_bytes);
        self.device
            .fill_zero(address, num_bytes)
            .expect("just allocated");
        address
    }

    pub(super) fn bytes(&self, data: &[u8]) -> DevicePtr {
        let address = self.empty(data.len());
        self.device.upload(data, address).expect("just allocated");
        address
    }

    pub(super) fn f32(&self, numbers: &[f32]) -> DevicePtr {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    pub(super) fn bf16(&self, numbers: &[f32]) -> DevicePtr {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        self.bytes(&bytes)
    }

    pub(super) fn u32(&self, numbers: &[u32]) -> DevicePtr {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    fn read<const N: usize>(&self, at: DevicePtr, count: usize) -> Vec<[u8; N]> {
        let mut bytes = vec![0; count * N];
        self.device
            .download(at, &mut bytes)
            .expect("it was allocated");
        bytes.as_chunks::<N>().0.to_vec()
    }

    pub(super) fn read_f32(&self, at: DevicePtr, count: usize) -> Vec<f32> {
        self.read::<4>(at, count)
            .into_iter()
            .map(f32::from_le_bytes)
            .collect()
    }

    pub(super) fn read_bf16(&self, at: DevicePtr, count: usize) -> Vec<f32> {
        self.read::<2>(at, count)
            .into_iter()
            .map(|bytes| bf16::from_le_bytes(bytes).to_f32())
            .collect()
    }

    /// bf16 numbers as their bits.
    pub(super) fn read_u16(&self, at: DevicePtr, count: usize) -> Vec<u16> {
        self.read::<2>(at, count)
            .into_iter()
            .map(u16::from_le_bytes)
            .collect()
    }

    pub(super) fn read_u32(&self, at: DevicePtr, count: usize) -> Vec<u32> {
        self.read::<4>(at, count)
            .into_iter()
            .map(u32::from_le_bytes)
            .collect()
    }
}

/// SplitMix64: the same numbers on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// From −1 to 1, rounded to bf16 so that both sides see the same inputs.
    pub(super) fn number(&mut self) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1_u64 << 24) as f32;
        bf16::from_f32(2.0 * unit - 1.0).to_f32()
    }

    pub(super) fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }

    pub(super) fn shuffled(&mut self, count: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count).collect();
        for idx in (1..order.len()).rev() {
            order.swap(idx, self.below(idx + 1));
        }
        order
    }
}

/// A tensor of the reference.
pub(super) type Reference = <CandleBackend as BackendTypes>::Tensor;

pub(super) fn host(shape: &[usize], numbers: &[f32]) -> HostTensor<'static> {
    HostTensor {
        dtype: HostDtype::F32,
        shape: shape.to_vec(),
        data: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

pub(super) fn reference(shape: &[usize], numbers: &[f32]) -> Reference {
    CandleBackend::cpu()
        .parameter(host(shape, numbers))
        .expect("the shape fits")
}

/// A weight of the reference.
pub(super) fn reference_weight(shape: &[usize], numbers: &[f32]) -> CandleLinear {
    CandleBackend::cpu()
        .load_linear(HostLinear::new(Role::Column, host(shape, numbers)))
        .expect("the shape fits")
}

/// A step of the reference: one sequence of `num_rows` tokens, from its first on.
pub(super) fn reference_step(num_rows: usize) -> CandleStep {
    let count = num_rows as u32;
    let blocks = vec![BlockId(0); num_rows.div_ceil(BLOCK_SIZE)];
    let table = BlockTable::new(BLOCK_SIZE, 0, blocks);
    let input = StepInput {
        token_ids: (0..count).map(TokenId).collect(),
        positions: (0..count).collect(),
        sequences: vec![StepSequence {
            row: 0,
            start: 0,
            len: num_rows,
            tables: vec![table; 2],
            image_spans: Vec::new(),
        }],
        ..StepInput::default()
    };
    let rope = Rope {
        inv_freq: vec![1.0],
    };
    CandleBackend::cpu()
        .begin_step(&input, None, &[rope])
        .expect("a valid step")
}

pub(super) fn numbers_of(tensor: &Reference) -> Vec<f32> {
    CandleBackend::cpu()
        .read(tensor)
        .expect("it is on the CPU")
        .1
}

/// Every number within `relative` of the expected one's size plus `absolute`.
pub(super) fn assert_close(
    what: &str,
    actual: &[f32],
    expected: &[f32],
    (relative, absolute): (f32, f32),
) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (idx, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let allowed = relative * expected.abs() + absolute;
        // Written so that NaN fails.
        assert!(
            (actual - expected).abs() <= allowed,
            "{what}: number {idx} is {actual}, expected {expected} ± {allowed}"
        );
    }
}
