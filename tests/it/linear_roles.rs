//! What a backend is told of each weight, and that what it is told is enough to divide a model.

use std::fs;
use std::sync::Mutex;

use medgemma::backend::cpu::CpuBackend;
use medgemma::backend::{
    BLOCK_SIZE, BackendTypes, HostDtype, HostLinear, HostTensor, KvLayout, Linear, LinearSpec,
    Loading, Role, Rope, StepInput, StepSequence, StoredLinear, TextOps,
};
use medgemma::core::{BlockId, BlockTable, TokenId};
use medgemma::error::Result;
use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;
use medgemma::model::{Decoder, Projector, VisionEncoder};

use crate::golden::{self, assert_close};

/// A backend that can only be loaded, and keeps nothing but what it was told.
#[derive(Default)]
struct Recorder(Mutex<Vec<LinearSpec>>);

struct Recorded(LinearSpec);

impl Linear for Recorded {
    fn spec(&self) -> LinearSpec {
        self.0
    }
}

impl BackendTypes for Recorder {
    type Tensor = Vec<usize>;
    type Linear = Recorded;
    type KvCache = ();
    type Step = ();
    type SampledTokens = ();

    fn read(&self, x: &Vec<usize>) -> Result<(Vec<usize>, Vec<f32>)> {
        Ok((x.clone(), vec![0.0; x.iter().product()]))
    }
}

impl Loading for Recorder {
    fn parameter(&self, tensor: HostTensor<'_>) -> Result<Vec<usize>> {
        Ok(tensor.shape)
    }

    fn norm_weight(&self, tensor: HostTensor<'_>) -> Result<Vec<usize>> {
        Ok(tensor.shape)
    }

    fn load_linear(&self, weight: HostLinear<'_>) -> Result<Recorded> {
        let spec = weight.spec()?;
        self.0.lock().unwrap().push(spec);
        Ok(Recorded(spec))
    }

    fn kv_cache(&self, _layout: &KvLayout) -> Result<()> {
        Ok(())
    }
}

#[test]
fn every_weight_is_loaded_with_its_role() {
    let file = golden::path("models/multimodal/config.json");
    let config = ModelConfig::from_json(&file, &fs::read(&file).unwrap()).unwrap();
    let weights = Weights::blank();
    let roles = |load: &dyn Fn(&Recorder)| -> Vec<Role> {
        let recorder = Recorder::default();
        load(&recorder);
        let specs = recorder.0.into_inner().unwrap();
        specs.iter().map(|spec| spec.role).collect()
    };

    let decoder = roles(&|recorder| drop(Decoder::load(recorder, &config, &weights).unwrap()));
    let layer = [Role::Column, Role::Row, Role::Column, Role::Row];
    let (table, layers) = decoder.split_first().unwrap();
    assert_eq!(*table, Role::Head);
    assert_eq!(layers, layer.repeat(config.text.num_hidden_layers));

    let vision = config.vision.as_ref().unwrap();
    let encoder = roles(&|recorder| drop(VisionEncoder::load(recorder, vision, &weights).unwrap()));
    let (layers, patches) = encoder.split_at(encoder.len() - 1);
    assert_eq!(patches, [Role::Replicated]);
    assert_eq!(layers, layer.repeat(vision.num_hidden_layers));

    let hidden = config.text.hidden_size;
    let projector = roles(&|recorder| {
        drop(Projector::load(recorder, vision, hidden, &weights).unwrap());
    });
    assert_eq!(projector, [Role::Replicated]);
}

/// Returns one device's share of a weight, as its role says.
fn share(weight: &HostLinear<'_>, device: usize, num_devices: usize) -> HostLinear<'static> {
    let StoredLinear::Stacked(parts) = &weight.stored else {
        panic!("only replicated weights are stored transposed");
    };
    let cut = |part: &HostTensor<'_>| {
        let (rows, width) = (part.shape[0], part.shape[1]);
        let row_bytes = part.dtype.blocks().row_bytes(width).unwrap();
        let (shape, data) = match weight.role {
            Role::Column => {
                let num_rows = rows / num_devices;
                let bytes = num_rows * row_bytes;
                let data = part.data[device * bytes..][..bytes].to_vec();
                (vec![num_rows, width], data)
            }
            Role::Row => {
                let bytes = row_bytes / num_devices;
                let rows_of_bytes = part.data.chunks_exact(row_bytes);
                let data = rows_of_bytes.flat_map(|row| row[device * bytes..][..bytes].to_vec());
                (vec![rows, width / num_devices], data.collect())
            }
            Role::Replicated | Role::Head => (part.shape.clone(), part.data.to_vec()),
        };
        HostTensor {
            dtype: part.dtype,
            shape,
            data: data.into(),
        }
    };
    HostLinear::stacked(weight.role, parts.iter().map(cut).collect())
}

fn step(num_tokens: u32) -> <CpuBackend as BackendTypes>::Step {
    let table = BlockTable::new(BLOCK_SIZE, 0, vec![BlockId(0)]);
    let input = StepInput {
        token_ids: (0..num_tokens).map(TokenId).collect(),
        positions: (0..num_tokens).collect(),
        sequences: vec![StepSequence {
            row: 0,
            start: 0,
            len: num_tokens as usize,
            tables: vec![table; 2],
            image_spans: Vec::new(),
        }],
        ..StepInput::default()
    };
    let rope = Rope {
        inv_freq: vec![1.0; 8],
    };
    CpuBackend.begin_step(&input, None, &[rope]).unwrap()
}

fn random(shape: &[usize], seed: u64) -> HostTensor<'static> {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = shape.iter().product::<usize>();
    let numbers = (0..count).map(|_| random.f32() - 0.5);
    HostTensor {
        dtype: HostDtype::F32,
        shape: shape.to_vec(),
        data: numbers.flat_map(f32::to_le_bytes).collect(),
    }
}

#[test]
fn two_devices_with_their_shares_compute_what_one_computes() {
    let (hidden, mlp) = (48, 80);
    let gate_up = HostLinear::stacked(
        Role::Column,
        vec![random(&[mlp, hidden], 1), random(&[mlp, hidden], 2)],
    );
    let down = HostLinear::new(Role::Row, random(&[hidden, mlp], 3));
    let step = step(5);
    let x = CpuBackend.parameter(random(&[5, hidden], 4)).unwrap();
    let compute = |gate_up: HostLinear<'_>, down: HostLinear<'_>| {
        let gate_up = CpuBackend.load_linear(gate_up).unwrap();
        let down = CpuBackend.load_linear(down).unwrap();
        let inner = CpuBackend.linear(&step, &x, &gate_up).unwrap();
        let inner = CpuBackend.geglu(&step, &inner).unwrap();
        let out = CpuBackend.linear(&step, &inner, &down).unwrap();
        CpuBackend.read(&out).unwrap().1
    };
    let mut sum = vec![0.0; 5 * hidden];
    for device in 0..2 {
        let part = compute(share(&gate_up, device, 2), share(&down, device, 2));
        for (sum, part) in sum.iter_mut().zip(part) {
            *sum += part;
        }
    }
    let whole = compute(gate_up, down);
    assert_close("the MLP", &sum, &whole, 1e-5);
}

#[test]
fn a_weight_that_does_not_fit_is_a_message() {
    let step = step(2);
    let weight = HostLinear::new(Role::Column, random(&[16, 48], 1));
    let weight = CpuBackend.load_linear(weight).unwrap();
    let tensor = |shape: &[usize]| CpuBackend.parameter(random(shape, 2)).unwrap();
    for (result, message) in [
        (
            CpuBackend.linear(&step, &tensor(&[2, 40]), &weight),
            "(2, 40) cannot be multiplied by a Column weight of 48 inputs and 16 outputs",
        ),
        (
            CpuBackend.linear(&step, &tensor(&[3, 48]), &weight),
            "(3, 48) has more rows than its step of 2 tokens",
        ),
        (
            CpuBackend.rms_norm(&step, &tensor(&[2, 48]), &tensor(&[47]), 1e-6),
            "a norm's weight is (1, 47); it must be (1, 48)",
        ),
        (
            CpuBackend.put_image_features(&step, tensor(&[2, 48]), &tensor(&[2, 48]), 1),
            "rows 1..3 of (2, 48) do not exist",
        ),
        (
            CpuBackend.geglu(&step, &tensor(&[2, 47])),
            "gate and up is (2, 47); it must be (2, 46)",
        ),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
