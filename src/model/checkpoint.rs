//! A checkpoint's tensors in its safetensors files, mapped into memory.
//!
//! Owns the files and what their headers say; every offset is checked before it is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::fields::Fields;
use super::mapped_file::FileBytes;
use super::tensor_names::canonical;
use crate::backend::{HostDtype, HostTensor};
use crate::error::{Error, Result};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// Bytes of a safetensors file's first field, the header's length.
const LENGTH_BYTES: usize = 8;
/// The safetensors crate's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of one checkpoint by canonical name.
#[derive(Debug)]
pub struct Checkpoint {
    /// What lists the tensors: the file itself, or the index of its shards.
    manifest: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, TensorEntry>,
    /// File and range of the tensors handed out last.
    recent: Mutex<VecDeque<(usize, Range<usize>)>>,
}

#[derive(Debug)]
struct TensorFile {
    path: PathBuf,
    bytes: FileBytes,
}

/// Where a tensor lies.
#[derive(Debug)]
struct TensorEntry {
    file_idx: usize,
    /// As the file calls it.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Of its first byte in the file. With `len` within the file: checked when it was opened.
    start: usize,
    len: usize,
    was_asked: AtomicBool,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// `Checkpoint` naming the file, and the tensor where there is one, for files that are
    /// missing, cut off or damaged, and for two tensors that mean the same.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE_FILE);
        let index = dir.join(INDEX_FILE);
        if single.is_file() {
            return Self::from_files(single.clone(), vec![TensorFile::open(&single)?]);
        }
        if !index.is_file() {
            return Err(Error::Checkpoint {
                file: dir.to_owned(),
                message: format!(
                    "has neither {SINGLE_FILE} nor {INDEX_FILE}: only safetensors are read"
                ),
            });
        }
        let weight_map = read_index(&index)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        let files = shards
            .into_iter()
            .map(|shard| TensorFile::open(&dir.join(shard)))
            .collect::<Result<_>>()?;
        let checkpoint = Self::from_files(index, files)?;
        checkpoint.check_index(&weight_map)?;
        Ok(checkpoint)
    }

    /// A single file that the program carries within itself.
    ///
    /// # Errors
    /// As `open`.
    pub fn embedded(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        let file = TensorFile {
            path: path.to_owned(),
            bytes: FileBytes::Embedded(bytes),
        };
        Self::from_files(path.to_owned(), vec![file])
    }

    fn from_files(manifest: PathBuf, files: Vec<TensorFile>) -> Result<Self> {
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        for (file_idx, file) in files.iter().enumerate() {
            for entry in file.entries(file_idx)? {
                let name = canonical(&entry.name);
                if let Some(other) = tensors.get(&name) {
                    return Err(file.error(format!(
                        "tensor {} is a second {name}: {} has it as {}",
                        entry.name,
                        files[other.file_idx].path.display(),
                        other.name,
                    )));
                }
                tensors.insert(name, entry);
            }
        }
        Ok(Self {
            manifest,
            files,
            tensors,
            recent: Mutex::default(),
        })
    }

    /// What the index promises must be where it says.
    fn check_index(&self, weight_map: &BTreeMap<String, String>) -> Result<()> {
        for (name, shard) in weight_map {
            let found = self.tensors.get(&canonical(name)).is_some_and(|entry| {
                entry.name == *name && self.files[entry.file_idx].path.ends_with(shard)
            });
            if !found {
                return Err(Error::Checkpoint {
                    file: self.manifest.clone(),
                    message: format!("tensor {name} is not in {shard}, where the index puts it"),
                });
            }
        }
        Ok(())
    }

    /// The tensor's bytes in the file.
    ///
    /// # Errors
    /// `Checkpoint` naming file and tensor when it is missing, of another shape, or of a type
    /// that is not read.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(Error::Checkpoint {
                file: self.manifest.clone(),
                message: format!("tensor {name} is missing"),
            });
        };
        entry.was_asked.store(true, Ordering::Relaxed);
        let file = &self.files[entry.file_idx];
        if entry.shape != shape {
            return Err(file.error(format!(
                "tensor {} has shape {:?}, but the config asks for {shape:?}",
                entry.name, entry.shape
            )));
        }
        let dtype = match entry.dtype {
            Dtype::F32 => HostDtype::F32,
            Dtype::BF16 => HostDtype::Bf16,
            other => {
                return Err(file.error(format!(
                    "tensor {} is {other:?}; only BF16 and F32 are read (Gemma 3 overflows in F16)",
                    entry.name
                )));
            }
        };
        let range = entry.start..entry.start + entry.len;
        self.let_go_before(entry.file_idx, range.clone());
        Ok(HostTensor {
            dtype,
            shape: entry.shape.clone(),
            data: Cow::Borrowed(&file.bytes[range]),
        })
    }

    /// Remembers what was asked for and lets go of what was asked for some tensors ago: by then
    /// it has been copied, and loading would otherwise hold every weight twice.
    fn let_go_before(&self, file_idx: usize, range: Range<usize>) {
        /// More than go into one matrix.
        const NUM_KEPT: usize = 4;
        let mut recent = self.recent.lock().expect("nothing panics while it is held");
        recent.push_back((file_idx, range));
        while recent.len() > NUM_KEPT
            && let Some((file_idx, range)) = recent.pop_front()
        {
            self.files[file_idx].bytes.let_go(range);
        }
    }

    /// The tensor's shape, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Bytes of all tensors, as they are stored.
    pub fn num_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.len as u64).sum()
    }

    /// Tensors that were never asked for, as their files call them.
    pub fn unexpected(&self) -> Vec<String> {
        self.tensors
            .values()
            .filter(|entry| !entry.was_asked.load(Ordering::Relaxed))
            .map(|entry| entry.name.clone())
            .collect()
    }
}

impl TensorFile {
    fn open(path: &Path) -> Result<Self> {
        let bytes = FileBytes::map(path).map_err(|error| Error::Checkpoint {
            file: path.to_owned(),
            message: format!("cannot be read: {error}"),
        })?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
        })
    }

    fn error(&self, message: String) -> Error {
        Error::Checkpoint {
            file: self.path.clone(),
            message,
        }
    }

    /// What the header lists, checked against the file's length.
    ///
    /// ```text
    /// [ header length: u64 ][ header: JSON ][ tensors without gaps to the end ]
    /// ```
    fn entries(&self, file_idx: usize) -> Result<Vec<TensorEntry>> {
        let bytes = &self.bytes;
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(self.error(
                "is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
                    .to_owned(),
            ));
        }
        let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(self.error(format!(
                "is not a safetensors file: it has {} bytes",
                bytes.len()
            )));
        };
        let header_len = u64::from_le_bytes(*length);
        if header_len > MAX_HEADER_BYTES {
            return Err(self.error(format!(
                "is not a safetensors file: its header would be {header_len} bytes"
            )));
        }
        let data_start = LENGTH_BYTES + header_len as usize;
        let Some(header) = bytes.get(LENGTH_BYTES..data_start) else {
            return Err(self.error(format!(
                "is truncated: its header ends at byte {data_start}, but it has {} bytes",
                bytes.len()
            )));
        };
        // Refuses gaps, overlaps and sizes that do not follow from shape and type.
        let metadata: Metadata = serde_json::from_slice(header)
            .map_err(|error| self.error(format!("has a damaged safetensors header: {error}")))?;
        let names = metadata.offset_keys();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let info = metadata.info(&name).expect("the header listed it");
            let (start, end) = info.data_offsets;
            let needed = data_start.saturating_add(metadata.data_len());
            if data_start.saturating_add(end) > bytes.len() {
                return Err(self.error(format!(
                    "is truncated: it has {} of {needed} bytes, and tensor {name} is cut off",
                    bytes.len()
                )));
            }
            entries.push(TensorEntry {
                file_idx,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data_start + start,
                len: end - start,
                was_asked: AtomicBool::new(false),
                name,
            });
        }
        let needed = data_start + metadata.data_len();
        if needed != bytes.len() {
            return Err(self.error(format!(
                "has {} bytes, but its header describes {needed}",
                bytes.len()
            )));
        }
        Ok(entries)
    }
}

/// Tensor name → shard, a file beside the index.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    let error = |message: String| Error::Checkpoint {
        file: index.to_owned(),
        message,
    };
    let text = std::fs::read(index).map_err(|e| error(format!("cannot be read: {e}")))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|e| error(format!("not valid JSON: {e}")))?;
    let root = Fields::new(index, &value)?;
    let Some(weight_map) = root.section("weight_map")? else {
        return Err(root.error("weight_map", "is missing"));
    };
    let mut shards = BTreeMap::new();
    for name in weight_map.names() {
        let Some(shard) = weight_map.text(name)? else {
            return Err(weight_map.error(name, "names no file"));
        };
        // A plain file name: an index must not lead out of its directory.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(weight_map.error(
                name,
                format_args!("is in \"{shard}\", which is not a file beside the index"),
            ));
        }
        shards.insert(name.to_owned(), shard.to_owned());
    }
    Ok(shards)
}
