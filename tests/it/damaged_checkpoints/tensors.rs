//! Damage to safetensors files and to the index of shards.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Damage;
use super::folder::{Content, Folder};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A safetensors file taken apart. A name may be in the header twice.
struct Parts {
    header: Vec<(String, Value)>,
    data: Vec<u8>,
}

impl Parts {
    fn of(folder: &Folder) -> Self {
        let bytes = folder.bytes(FILE);
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
        Self {
            header: header.into_iter().collect(),
            data: data.to_vec(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let fields = self.header.iter();
        let fields: Vec<_> = fields
            .map(|(name, entry)| format!("{}:{entry}", json!(name)))
            .collect();
        file(&format!("{{{}}}", fields.join(",")), &self.data)
    }

    /// A tensor of the header.
    fn any(&mut self, rng: &mut fastrand::Rng) -> (String, &mut Value) {
        loop {
            let idx = rng.usize(..self.header.len());
            if self.header[idx].0 != "__metadata__" {
                let (name, entry) = &mut self.header[idx];
                return (name.clone(), entry);
            }
        }
    }
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

fn pick<T: Clone>(rng: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// One entry of the header is another.
pub(super) fn entry(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut parts = Parts::of(folder);
    let (name, entry) = parts.any(rng);
    let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).unwrap();
    let [start, end]: [u64; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
    let doubled: Vec<u64> = shape.iter().map(|dim| dim * 2).collect();
    let widened: Vec<u64> = shape.iter().copied().chain([1]).collect();
    let huge = 1u64 << 62;
    let (field, value) = pick(
        rng,
        &[
            ("dtype", json!("I16")),
            ("dtype", json!("F64")),
            ("dtype", json!("F4")),
            ("dtype", json!("F7")),
            ("dtype", json!("f32")),
            ("dtype", json!(3)),
            ("dtype", json!(null)),
            ("dtype", json!("F".repeat(100_000))),
            ("shape", json!(doubled)),
            ("shape", json!(widened)),
            ("shape", json!([0])),
            ("shape", json!([-1])),
            ("shape", json!([1.5])),
            ("shape", json!("48")),
            ("shape", json!(["48"])),
            ("shape", json!([])),
            ("shape", json!(null)),
            ("shape", json!([huge])),
            ("shape", json!([huge, 4])),
            ("shape", json!([u64::MAX, u64::MAX])),
            ("shape", json!([u64::MAX, 0])),
            ("shape", json!(vec![1; 9])),
            ("shape", json!(vec![1; 100_000])),
            ("data_offsets", json!([start + 1, end])),
            ("data_offsets", json!([start, end + 1])),
            ("data_offsets", json!([start, end - 1])),
            ("data_offsets", json!([end, start])),
            ("data_offsets", json!([start, huge])),
            ("data_offsets", json!([start, u64::MAX])),
            ("data_offsets", json!([-1, end])),
            ("data_offsets", json!([start])),
            ("data_offsets", json!([start, end, end])),
            ("data_offsets", json!([0.5, end])),
            ("data_offsets", json!("0")),
            ("data_offsets", json!({})),
            ("strides", json!([1])),
        ],
    );
    entry[field] = value.clone();
    folder.set(FILE, parts.bytes());
    Damage::new(
        format!("{field} of {name} is {value:.40}"),
        FILE,
        [format!("tensor {name}")],
    )
}

/// The tensors in BF16 are in F16 instead, as far as that holds them.
pub(super) fn in_f16(folder: &mut Folder) {
    let mut parts = Parts::of(folder);
    let mut num_tensors = 0;
    for (_, entry) in &mut parts.header {
        if entry["dtype"] != "BF16" {
            continue;
        }
        let [start, end]: [usize; 2] =
            serde_json::from_value(entry["data_offsets"].clone()).unwrap();
        for number in parts.data[start..end].as_chunks_mut::<2>().0 {
            let exact = half::bf16::from_le_bytes(*number).to_f32();
            *number = half::f16::from_f32(exact).to_le_bytes();
        }
        entry["dtype"] = json!("F16");
        num_tensors += 1;
    }
    assert!(num_tensors > 0);
    folder.set(FILE, parts.bytes());
}

/// Entries that are missing, there twice, or of another name.
pub(super) fn names(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut parts = Parts::of(folder);
    let (name, entry) = parts.any(rng);
    let entry = entry.clone();
    // What a message calls it, whatever the file does.
    let short = name
        .trim_start_matches("language_model.")
        .trim_start_matches("model.")
        .to_owned();
    match rng.u8(..6) {
        0 => {
            parts.header.push((name.clone(), entry));
            folder.set(FILE, parts.bytes());
            Damage::new(
                format!("{name} twice"),
                FILE,
                [name, "is there twice".to_owned()],
            )
        }
        1 => {
            let other = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
            parts.header.insert(0, (name.clone(), other));
            folder.set(FILE, parts.bytes());
            Damage::new(format!("{name} twice, once empty"), FILE, [name])
        }
        2 => {
            let place = parts
                .header
                .iter()
                .position(|(other, _)| *other == name)
                .unwrap();
            parts.header[place].0.push('x');
            folder.set(FILE, parts.bytes());
            Damage::new(
                format!("{name} renamed"),
                FILE,
                [short, "is missing".to_owned()],
            )
        }
        3 => {
            parts.header.retain(|(other, _)| *other != name);
            folder.set(FILE, parts.bytes());
            Damage::new(format!("a hole where {name} was"), FILE, [])
        }
        4 => {
            let at = parts.data.len();
            let [start, end]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            parts.data.extend_from_within(start..end);
            let mut copy = entry;
            copy["data_offsets"] = json!([at, at + end - start]);
            let alias = match name.strip_prefix("language_model.model.") {
                Some(rest) => format!("model.language_model.{rest}"),
                None if name.starts_with("model.") => format!("language_model.{name}"),
                None => format!("model.{name}"),
            };
            parts.header.push((alias.clone(), copy));
            folder.set(FILE, parts.bytes());
            Damage::new(format!("{name} and {alias}"), FILE, [name, alias])
        }
        _ => {
            let long = "n".repeat(50_000);
            parts.header.push((long, entry));
            folder.set(FILE, parts.bytes());
            Damage::new("a name of 50000 bytes".to_owned(), FILE, ["nnn".to_owned()])
        }
    }
}

/// The header as a whole, its length, and what lies behind it.
pub(super) fn header(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let parts = Parts::of(folder);
    let whole = folder.bytes(FILE).to_vec();
    let header_len = whole.len() - 8 - parts.data.len();
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let (what, bytes) = match rng.u8(..14) {
        0 => {
            let length = rng.u64(..);
            (format!("header length {length}"), with_length(length))
        }
        1 => {
            let length = header_len as u64 + rng.u64(1..40);
            (format!("header length {length}"), with_length(length))
        }
        2 => {
            let length = header_len as u64 - rng.u64(1..header_len as u64 + 1);
            (format!("header length {length}"), with_length(length))
        }
        3 => (
            "header beyond the file".to_owned(),
            with_length(whole.len() as u64 - 7),
        ),
        4 => {
            let mut bytes = whole.clone();
            bytes[8 + rng.usize(..header_len.min(60))] = 0xFF;
            ("not UTF-8".to_owned(), bytes)
        }
        5 => {
            let depth = rng.usize(200..100_000);
            let deep = format!("{{\"a\":{}", "[".repeat(depth));
            (format!("{depth} lists deep"), file(&deep, &[]))
        }
        6 => {
            let depth = rng.usize(200..100_000);
            let deep = format!("{{\"__metadata__\":{}", "{\"a\":".repeat(depth));
            (format!("metadata {depth} objects deep"), file(&deep, &[]))
        }
        7 => {
            let len = rng.usize(..whole.len());
            (format!("cut off at {len}"), whole[..len].to_vec())
        }
        8 => {
            let more = rng.usize(1..5000);
            let mut bytes = whole.clone();
            bytes.resize(whole.len() + more, 7);
            (format!("{more} bytes more"), bytes)
        }
        9 => (
            "a pickle".to_owned(),
            b"\x80\x02}q\x00(X\x05\x00\x00\x00model".to_vec(),
        ),
        10 => {
            let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n";
            (
                "a pointer of Git LFS".to_owned(),
                pointer.as_bytes().to_vec(),
            )
        }
        11 => {
            let json = pick(
                rng,
                &["[]", "3", "null", "\"a\"", "{\"a\":3}", "{]", " ", "{}x"],
            );
            (format!("the header is {json}"), file(json, &parts.data))
        }
        12 => {
            let random: Vec<u8> = (0..rng.usize(..4000)).map(|_| rng.u8(..)).collect();
            (format!("{} random bytes", random.len()), random)
        }
        _ => ("no tensors".to_owned(), file("{}", &[])),
    };
    folder.set(FILE, bytes);
    Damage::new(what, FILE, [])
}

/// The tensors in two shards.
fn shard(folder: &mut Folder) -> Value {
    let parts = Parts::of(folder);
    folder.files.remove(FILE);
    let mut weight_map = serde_json::Map::new();
    let tensors: Vec<_> = parts
        .header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .cloned()
        .collect();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    for (shard, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        let mut part = Parts {
            header: Vec::new(),
            data: Vec::new(),
        };
        for (name, entry) in tensors {
            let [start, end]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            let at = part.data.len();
            part.data.extend(&parts.data[start..end]);
            let mut entry = entry.clone();
            entry["data_offsets"] = json!([at, part.data.len()]);
            part.header.push((name.clone(), entry));
            weight_map.insert(name.clone(), json!(shard));
        }
        folder.set(shard, part.bytes());
    }
    json!({"metadata": {"total_size": 1}, "weight_map": weight_map})
}

/// The same checkpoint in two shards, whole.
pub(super) fn sharded(folder: &mut Folder) {
    let index = shard(folder);
    folder.set(INDEX, index.to_string());
}

/// An index that points elsewhere, and shards that are not what it says.
pub(super) fn index(folder: &mut Folder, rng: &mut fastrand::Rng) -> Damage {
    let mut index = shard(folder);
    let names: Vec<String> = index["weight_map"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let name = pick(rng, &names);
    let (what, file, expected) = match rng.u8(..9) {
        0 => {
            let elsewhere = pick(
                rng,
                &[
                    "../a.safetensors",
                    "/etc/passwd",
                    "x/a.safetensors",
                    "..",
                    ".",
                    "",
                    "a\0b",
                    "x\\b",
                ],
            );
            index["weight_map"][&name] = json!(elsewhere);
            (format!("{name} in {elsewhere:?}"), INDEX, vec![name])
        }
        1 => {
            let value = pick(
                rng,
                &[json!(3), json!(null), json!(["a.safetensors"]), json!({})],
            );
            index["weight_map"][&name] = value.clone();
            (format!("{name} in {value}"), INDEX, vec![name])
        }
        2 => {
            index["weight_map"][&name] = json!("c.safetensors");
            (
                format!("{name} in a shard that is missing"),
                "c.safetensors",
                vec![INDEX.to_owned()],
            )
        }
        3 => {
            let other = match index["weight_map"][&name].as_str() {
                Some("a.safetensors") => "b.safetensors",
                _ => "a.safetensors",
            };
            index["weight_map"][&name] = json!(other);
            (
                format!("{name} in the other shard"),
                INDEX,
                vec![name, other.to_owned()],
            )
        }
        4 => {
            index["weight_map"]["model.nowhere.weight"] = json!("a.safetensors");
            let what = "a tensor that no shard has".to_owned();
            (what, INDEX, vec!["model.nowhere.weight".to_owned()])
        }
        5 => {
            let value = pick(
                rng,
                &[json!([]), json!("a"), json!(null), json!(3), json!({})],
            );
            index["weight_map"] = value.clone();
            (
                format!("weight_map is {value}"),
                INDEX,
                vec!["weight_map".to_owned()],
            )
        }
        6 => {
            let text = index.to_string();
            let again = format!("\"weight_map\":{{{}:\"b.safetensors\",", json!(name));
            folder.set(INDEX, text.replace("\"weight_map\":{", &again));
            let expected = vec![name.clone(), "is there twice".to_owned()];
            return Damage::new(format!("{name} is listed twice"), INDEX, expected);
        }
        7 => {
            let content = pick(
                rng,
                &[
                    Content::Directory,
                    Content::Pipe,
                    Content::Link(PathBuf::from("/dev/zero")),
                    Content::Link(PathBuf::from("/etc/passwd")),
                    Content::Link(PathBuf::from("c.safetensors")),
                    Content::Sparse(1 << 33),
                    Content::Bytes(Vec::new()),
                ],
            );
            folder.files.insert("b.safetensors".to_owned(), content);
            ("a shard that is none".to_owned(), "b.safetensors", vec![])
        }
        _ => {
            let bytes = folder.bytes("b.safetensors");
            let len = rng.usize(..bytes.len());
            let cut = bytes[..len].to_vec();
            folder.set("b.safetensors", cut);
            (format!("a shard cut off at {len}"), "b.safetensors", vec![])
        }
    };
    folder.set(INDEX, index.to_string());
    Damage::new(what, file, expected)
}
