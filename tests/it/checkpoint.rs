//! Tensors: every layout of names, shards, and files that are not what they should be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use medgemma::backend::HostDtype;
use medgemma::model::config::ModelConfig;
use medgemma::model::tensor_names::{EMBEDDING, LM_HEAD};
use medgemma::model::weights::Weights;
use serde_json::{Value, json};
use tempfile::TempDir;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/models")
        .join(path)
}

/// A safetensors file taken apart: its header and what follows.
#[derive(Clone)]
struct TensorFile {
    header: BTreeMap<String, Value>,
    data: Vec<u8>,
}

impl TensorFile {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        Self {
            header: serde_json::from_slice(header).unwrap(),
            data: data.to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(&self.data);
        bytes
    }

    fn names(&self) -> Vec<String> {
        self.header
            .keys()
            .filter(|name| *name != "__metadata__")
            .cloned()
            .collect()
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        serde_json::from_value(self.header[name]["shape"].clone()).unwrap()
    }

    fn tensor(&self, name: &str) -> &[u8] {
        let offsets: [usize; 2] =
            serde_json::from_value(self.header[name]["data_offsets"].clone()).unwrap();
        &self.data[offsets[0]..offsets[1]]
    }

    fn rename(&mut self, from: &str, to: &str) {
        let entry = self.header.remove(from).unwrap();
        self.header.insert(to.to_owned(), entry);
    }

    fn add(&mut self, name: &str, dtype: &str, shape: &[usize], tensor: &[u8]) {
        let start = self.data.len();
        self.data.extend(tensor);
        self.header.insert(
            name.to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, self.data.len()]}),
        );
    }

    /// Only these tensors.
    fn part(&self, names: &[String]) -> Self {
        let mut part = Self {
            header: BTreeMap::new(),
            data: Vec::new(),
        };
        for name in names {
            let dtype = self.header[name]["dtype"].as_str().unwrap();
            part.add(name, dtype, &self.shape(name), self.tensor(name));
        }
        part
    }
}

fn multimodal() -> TensorFile {
    TensorFile::read(&golden("multimodal/model.safetensors"))
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn single(bytes: Vec<u8>) -> TempDir {
    folder(&[("model.safetensors", bytes)])
}

/// Two shards and their index, as `save_pretrained` writes them.
fn sharded(file: &TensorFile) -> TempDir {
    let names = file.names();
    let (first, second) = names.split_at(names.len() / 3);
    let shards = [
        ("model-00001-of-00002.safetensors", first),
        ("model-00002-of-00002.safetensors", second),
    ];
    let mut files = Vec::new();
    let mut weight_map = BTreeMap::new();
    for (shard, names) in shards {
        files.push((shard, file.part(names).bytes()));
        weight_map.extend(names.iter().map(|name| (name.clone(), shard)));
    }
    let index = json!({"metadata": {"total_size": file.data.len()}, "weight_map": weight_map});
    files.push((
        "model.safetensors.index.json",
        index.to_string().into_bytes(),
    ));
    folder(&files)
}

/// Every tensor of `original` under its (hub's, so canonical) name, byte for byte.
fn check_same(weights: &Weights, original: &TensorFile) {
    for name in original.names() {
        let tensor = weights.tensor(&name, &original.shape(&name)).unwrap();
        assert_eq!(tensor.data.as_ref(), original.tensor(&name), "{name}");
        assert_eq!(tensor.shape, original.shape(&name), "{name}");
    }
    assert_eq!(weights.unexpected(), Vec::<String>::new());
}

fn error_of<T>(result: medgemma::error::Result<T>) -> String {
    result.err().expect("this must be refused").to_string()
}

fn open_error(dir: &TempDir) -> String {
    error_of(Weights::open(dir.path()))
}

#[test]
fn every_layout_of_names_is_the_same_model() {
    let mut original = multimodal();
    let head = TensorFile::read(&golden("untied_head.safetensors"));
    original.add(LM_HEAD, "F32", &head.shape(LM_HEAD), head.tensor(LM_HEAD));
    let layouts: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&std::fs::read(golden("layouts.json")).unwrap()).unwrap();
    assert_eq!(layouts.len(), 3);
    for (layout, names) in layouts {
        let mut file = original.clone();
        for (hub, other) in &names {
            file.rename(hub, other);
        }
        for dir in [single(file.bytes()), sharded(&file)] {
            let weights = Weights::open(dir.path()).unwrap();
            assert!(weights.contains(LM_HEAD), "{layout}");
            check_same(&weights, &original);
        }
    }
}

#[test]
fn text_only_names_are_the_same_model() {
    for name in ["text1b", "text27b"] {
        let file = TensorFile::read(&golden(name).join("model.safetensors"));
        assert!(file.names().iter().all(|name| name.starts_with("model.")));
        let weights = Weights::open(&golden(name)).unwrap();
        let mut renamed = file.clone();
        for name in file.names() {
            renamed.rename(&name, &format!("language_model.{name}"));
        }
        check_same(&weights, &renamed);
        assert!(!weights.contains(LM_HEAD));
        let norm = "language_model.model.norm.weight";
        assert_eq!(
            weights.tensor(norm, &renamed.shape(norm)).unwrap().dtype,
            HostDtype::Bf16
        );
    }
}

#[test]
fn configs_count_the_numbers_of_their_files() {
    for (name, size) in [("multimodal", 4), ("text1b", 2), ("text27b", 2)] {
        let file = TensorFile::read(&golden(name).join("model.safetensors"));
        let config = golden(name).join("config.json");
        let config = ModelConfig::from_json(&config, &std::fs::read(&config).unwrap()).unwrap();
        assert_eq!(
            config.num_parameters(),
            (file.data.len() / size) as u64,
            "{name}"
        );
    }
}

#[test]
fn a_files_own_vocabulary_is_known() {
    let weights = Weights::open(&golden("text1b")).unwrap();
    let file = TensorFile::read(&golden("text1b/model.safetensors"));
    assert_eq!(
        weights.shape(EMBEDDING).unwrap(),
        file.shape("model.embed_tokens.weight")
    );
}

#[test]
fn tensors_that_nobody_wants_are_named() {
    let mut file = multimodal();
    file.add("vision_tower.vision_model.head.probe", "F32", &[1], &[0; 4]);
    // An odd type is no reason to refuse what is not used.
    file.add("position_ids", "I64", &[1], &[0; 8]);
    let dir = single(file.bytes());
    let weights = Weights::open(dir.path()).unwrap();
    for name in multimodal().names() {
        weights.tensor(&name, &file.shape(&name)).unwrap();
    }
    assert_eq!(
        weights.unexpected(),
        ["position_ids", "vision_tower.vision_model.head.probe"]
    );
}

const NORM: &str = "language_model.model.layers.0.input_layernorm.weight";

#[test]
fn a_missing_tensor_is_named_with_its_file() {
    let mut file = multimodal();
    file.rename(
        NORM,
        "language_model.model.layers.0.input_layer_norm.weight",
    );
    let dir = single(file.bytes());
    let weights = Weights::open(dir.path()).unwrap();
    assert!(!weights.contains(NORM));
    let message = error_of(weights.tensor(NORM, &[48]));
    assert!(message.contains("model.safetensors: "), "{message}");
    assert!(
        message.contains(&format!("tensor {NORM} is missing")),
        "{message}"
    );
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let weights = Weights::open(&golden("multimodal")).unwrap();
    for shape in [&[49][..], &[48, 1], &[]] {
        let message = error_of(weights.tensor(NORM, shape));
        for part in ["model.safetensors: ", NORM, "[48]", &format!("{shape:?}")] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_type_that_is_not_read_is_named() {
    let mut file = multimodal();
    file.add("lm_head.weight", "I16", &[2, 2], &[0; 8]);
    let dir = single(file.bytes());
    let weights = Weights::open(dir.path()).unwrap();
    let message = error_of(weights.tensor(LM_HEAD, &[2, 2]));
    for part in [
        "model.safetensors: ",
        "lm_head.weight",
        "I16",
        "BF16, F16 and F32",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn f16_is_exact_in_what_it_becomes() {
    let mut file = multimodal();
    // 1, −2⁻²⁴ (the least of all), 65,504 (the greatest) and 1 + 2⁻¹⁰, for which bf16 is too coarse.
    let (exact, finer) = (
        [0x3C00u16, 0x8001, 0x3C00, 0],
        [0x3C00u16, 0x8001, 0x7BFF, 0x3C01],
    );
    let bytes = |bits: [u16; 4]| bits.map(u16::to_le_bytes).concat();
    file.add("lm_head.weight", "F16", &[2, 2], &bytes(finer));
    file.add("exact.weight", "F16", &[4], &bytes(exact));
    let dir = single(file.bytes());
    let weights = Weights::open(dir.path()).unwrap().checked();
    assert_eq!(weights.num_f16_bytes(), 16);
    let least = -(2f32.powi(-24));
    let tensor = weights.tensor("exact.weight", &[4]).unwrap();
    assert_eq!(tensor.dtype, HostDtype::Bf16);
    assert_eq!(tensor.to_f32(), [1.0, least, 1.0, 0.0]);
    assert_eq!(weights.num_finer_than_bf16(), 0);
    let tensor = weights.tensor(LM_HEAD, &[2, 2]).unwrap();
    assert_eq!(tensor.dtype, HostDtype::F32);
    assert_eq!(tensor.to_f32(), [1.0, least, 65_504.0, 1.0 + 1.0 / 1024.0]);
    assert_eq!(weights.num_finer_than_bf16(), 1);
    weights.check_numbers().unwrap();

    let infinite = [0x3C00u16, 0x7C00, 0x3C00, 0x3C00];
    let mut file = multimodal();
    file.add("lm_head.weight", "F16", &[2, 2], &bytes(infinite));
    let dir = single(file.bytes());
    let weights = Weights::open(dir.path()).unwrap().checked();
    let message = error_of(weights.tensor(LM_HEAD, &[2, 2]));
    assert!(message.contains("the first at 1 of 4"), "{message}");
}

#[test]
fn what_training_wraps_around_a_model_is_the_same_model() {
    let original = multimodal();
    for prefix in [
        "base_model.model.",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
    ] {
        let mut file = original.clone();
        for name in original.names() {
            file.rename(&name, &format!("{prefix}{name}"));
        }
        for dir in [single(file.bytes()), sharded(&file)] {
            check_same(&Weights::open(dir.path()).unwrap(), &original);
        }
    }
}

#[test]
fn two_tensors_with_one_meaning_are_both_named() {
    let mut file = multimodal();
    let other = "model.language_model.layers.0.input_layernorm.weight";
    let tensor = file.tensor(NORM).to_vec();
    file.add(other, "F32", &[48], &tensor);
    for dir in [single(file.bytes()), sharded(&file)] {
        let message = open_error(&dir);
        assert!(
            message.contains(NORM) && message.contains(other),
            "{message}"
        );
    }
}

#[test]
fn a_file_cut_off_anywhere_is_named_with_its_sizes() {
    let file = multimodal();
    let bytes = file.bytes();
    let header_end = bytes.len() - file.data.len();
    for len in [
        0,
        1,
        7,
        8,
        100,
        header_end - 1,
        header_end,
        header_end + 1,
        bytes.len() - 1,
    ] {
        let message = open_error(&single(bytes[..len].to_vec()));
        assert!(message.contains("model.safetensors: "), "{len}: {message}");
        assert!(message.contains(&format!("{len}")), "{len}: {message}");
        if len >= header_end {
            assert!(message.contains("truncated"), "{message}");
            assert!(message.contains(&format!("of {} bytes, and tensor ", bytes.len())));
        }
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(open_error(&single(longer)).contains("its header describes"));
}

#[test]
fn hostile_headers_are_refused() {
    let file = multimodal();
    let entry = |shape: Value, offsets: Value| {
        let mut file = file.clone();
        file.header.insert(
            NORM.to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": offsets}),
        );
        file.bytes()
    };
    let huge = u64::MAX;
    let mut cases = vec![
        entry(json!([48]), json!([0, huge])),
        entry(json!([48]), json!([huge, huge])),
        entry(json!([48]), json!([192, 0])),
        entry(json!([48]), json!([0, 192])),
        entry(json!([1u64 << 62, 4]), json!([0, 0])),
        entry(json!([huge, huge]), json!([0, 192])),
        entry(json!([-1]), json!([0, 192])),
        entry(json!("48"), json!([0, 192])),
    ];
    for header in [&b"{"[..], b"[]", b"\xff\xff", b"{\"a\": 1}", b"null"] {
        cases.push([&(header.len() as u64).to_le_bytes(), header].concat());
    }
    for length in [u64::MAX, 100_000_001, 1 << 40] {
        cases.push([&length.to_le_bytes()[..], b"{}"].concat());
    }
    for bytes in cases {
        let message = open_error(&single(bytes));
        assert!(message.contains("model.safetensors: "), "{message}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n".to_vec();
    assert!(open_error(&single(pointer)).contains("Git LFS"));
}

#[test]
fn a_shard_that_is_missing_or_lies_elsewhere_is_named() {
    let index = |shard: &str| {
        json!({"weight_map": {"model.norm.weight": shard}})
            .to_string()
            .into_bytes()
    };
    let open = |shard| open_error(&folder(&[("model.safetensors.index.json", index(shard))]));

    let message = open("model-00001-of-00002.safetensors");
    assert!(
        message.contains("model-00001-of-00002.safetensors: cannot be read"),
        "{message}"
    );
    for shard in [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
    ] {
        let message = open(shard);
        assert!(
            message.contains("index.json: ") && message.contains("not a file beside the index"),
            "{message}"
        );
    }
    let message = open_error(&folder(&[
        ("model.safetensors.index.json", index("a.safetensors")),
        ("a.safetensors", multimodal().bytes()),
    ]));
    assert!(
        message.contains("tensor model.norm.weight is not in a.safetensors"),
        "{message}"
    );
    for bad in [
        "",
        "{}",
        "[]",
        "{\"weight_map\": {\"a\": 3}}",
        "{\"weight_map\": []}",
    ] {
        let dir = folder(&[("model.safetensors.index.json", bad.into())]);
        assert!(
            open_error(&dir).contains("model.safetensors.index.json: "),
            "{bad}"
        );
    }
}

#[test]
fn a_folder_without_weights_is_named() {
    let dir = folder(&[("pytorch_model.bin", vec![1, 2, 3])]);
    let message = open_error(&dir);
    assert!(message.contains("only safetensors are read"), "{message}");
    assert!(
        message.contains(&dir.path().display().to_string()),
        "{message}"
    );
}

#[test]
fn dummy_weights_are_the_same_each_time_and_look_normal() {
    let shape = [300, 1001];
    let name = "language_model.model.layers.0.mlp.up_proj.weight";
    let tensor = Weights::dummy(7);
    let tensor = tensor.tensor(name, &shape).unwrap();
    assert_eq!(tensor.dtype, HostDtype::Bf16);
    assert_eq!(tensor.data.len(), 300 * 1001 * 2);
    let values: Vec<f64> = tensor
        .data
        .chunks_exact(2)
        .map(|b| f64::from(half::bf16::from_le_bytes([b[0], b[1]])))
        .collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    assert!(mean.abs() < 3e-4, "mean {mean}");
    assert!(
        (variance.sqrt() - 0.02).abs() < 3e-4,
        "standard deviation {}",
        variance.sqrt()
    );

    let same = |seed: u64, name: &str| {
        let other = Weights::dummy(seed);
        other.tensor(name, &shape).unwrap().data == tensor.data
    };
    assert!(same(7, name));
    assert!(!same(8, name));
    assert!(!same(7, "language_model.model.layers.1.mlp.up_proj.weight"));
    assert!(!Weights::dummy(7).contains(LM_HEAD));
    assert!(Weights::dummy(7).contains(name));
}

#[test]
fn dummy_layer_norms_lie_around_one() {
    let weights = Weights::dummy(7);
    let name = "vision_tower.vision_model.post_layernorm.weight";
    let tensor = weights.tensor(name, &[64]).unwrap();
    for value in tensor.data.chunks_exact(2) {
        let value = half::bf16::from_le_bytes([value[0], value[1]]).to_f32();
        assert!((0.8..1.2).contains(&value), "{value}");
    }
}
