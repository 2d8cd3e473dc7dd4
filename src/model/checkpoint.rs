//! A checkpoint's tensors in its memory-mapped safetensors files.
//!
//! Owns the files and their parsed headers; every offset is checked before it is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use safetensors::Dtype;

use super::half_precision::from_f16;
use super::mapped_file::FileBytes;
use super::safetensors_header::read_header;
use super::shard_index::ShardIndex;
use super::tensor_names::canonical;
use crate::backend::{HostDtype, HostTensor};
use crate::error::{Error, Result};
use crate::files::{self, MAX_INDEX_BYTES, shown};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The tensors of one checkpoint by canonical name.
#[derive(Debug)]
pub struct Checkpoint {
    /// File that lists the tensors: the file itself, or the index of its shards.
    manifest: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, TensorEntry>,
    numbers: Numbers,
    /// Number of requested F16 tensors whose numbers bf16 does not all hold.
    num_finer: AtomicUsize,
    /// File and range of the most recently used tensors.
    recent: Mutex<VecDeque<(usize, Range<usize>)>>,
}

/// Number types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    Bf16,
}

/// Whether numbers are checked before they are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Unchecked,
    /// NaN and infinite numbers are errors.
    Checked,
}

#[derive(Debug)]
struct TensorFile {
    path: PathBuf,
    bytes: FileBytes,
}

/// Place of a tensor in the files.
#[derive(Debug)]
struct TensorEntry {
    file_idx: usize,
    /// Name in the file.
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset of its first byte in the file. `start + len` is within the file; checked when it was
    /// opened.
    start: usize,
    len: usize,
    was_asked: AtomicBool,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// Returns `Checkpoint`, naming the file and, where there is one, the tensor, for files that
    /// are missing, truncated or damaged, and for two tensors with the same canonical name.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE_FILE);
        if let Some(file) = TensorFile::open(&single)? {
            return Self::from_files(single, vec![file]);
        }
        let index = dir.join(INDEX_FILE);
        let Some(text) = files::read(&index, MAX_INDEX_BYTES)? else {
            // peft's, beside a copy of the base model's config.json.
            let what = match dir.join("adapter_config.json").is_file() {
                true => {
                    "the directory holds an adapter: merge it into its base model (with peft: \
                     merge_and_unload) and serve the directory of the result"
                }
                false => "only safetensors are read",
            };
            return Err(Error::Checkpoint {
                file: dir.to_owned(),
                message: format!("has neither {SINGLE_FILE} nor {INDEX_FILE}: {what}"),
            });
        };
        let ShardIndex { weight_map } = ShardIndex::from_json(&index, &text)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        let files = shards
            .into_iter()
            .map(|shard| TensorFile::open_shard(&index, dir.join(shard)))
            .collect::<Result<_>>()?;
        let checkpoint = Self::from_files(index, files)?;
        checkpoint.check_index(&weight_map)?;
        Ok(checkpoint)
    }

    /// Opens a single file that is embedded in the program.
    ///
    /// # Errors
    /// Returns the errors of `open`.
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
            for listed in read_header(&file.path, &file.bytes)? {
                let name = canonical(&listed.name);
                if let Some(other) = tensors.get(&name) {
                    return Err(file.error(format!(
                        "tensor {} is a second {}: {} has it as {}",
                        shown(&listed.name),
                        shown(&name),
                        files[other.file_idx].path.display(),
                        shown(&other.name),
                    )));
                }
                let entry = TensorEntry {
                    file_idx,
                    name: listed.name,
                    dtype: listed.dtype,
                    shape: listed.shape,
                    start: listed.range.start,
                    len: listed.range.len(),
                    was_asked: AtomicBool::new(false),
                };
                tensors.insert(name, entry);
            }
        }
        Ok(Self {
            manifest,
            files,
            tensors,
            numbers: Numbers::Unchecked,
            num_finer: AtomicUsize::new(0),
            recent: Mutex::default(),
        })
    }

    /// Checks that each tensor of the index is in the shard that the index names.
    fn check_index(&self, weight_map: &BTreeMap<String, String>) -> Result<()> {
        for (name, shard) in weight_map {
            let found = self.tensors.get(&canonical(name)).is_some_and(|entry| {
                entry.name == *name && self.files[entry.file_idx].path.ends_with(shard)
            });
            if !found {
                return Err(Error::Checkpoint {
                    file: self.manifest.clone(),
                    message: format!(
                        "tensor {} is not in {}, where the index puts it",
                        shown(name),
                        shown(shard)
                    ),
                });
            }
        }
        Ok(())
    }

    /// Makes `tensor` check that all numbers are finite.
    #[must_use]
    pub fn checked(self) -> Self {
        Self {
            numbers: Numbers::Checked,
            ..self
        }
    }

    /// Checks every number of the tensors that were requested, in the order of the files.
    ///
    /// # Errors
    /// Returns `Checkpoint`, naming file and tensor of the first number that is NaN or infinite.
    pub fn check_numbers(&self) -> Result<()> {
        let asked = self.tensors.values();
        let mut asked: Vec<_> = asked
            .filter(|entry| entry.was_asked.load(Ordering::Relaxed))
            .collect();
        asked.sort_by_key(|entry| (entry.file_idx, entry.start));
        for entry in asked {
            let (_, stored) = self.read_as(entry)?;
            self.check_finite(entry, &self.host_tensor(entry, stored))?;
            let file = &self.files[entry.file_idx];
            file.bytes.let_go(entry.start..entry.start + entry.len);
        }
        Ok(())
    }

    fn check_finite(&self, entry: &TensorEntry, tensor: &HostTensor<'_>) -> Result<()> {
        let Some(first) = tensor.first_not_finite() else {
            return Ok(());
        };
        Err(self.files[entry.file_idx].error(format!(
            "tensor {} has numbers that are not finite (NaN or infinity), the first at {first} of \
             {}: the file is damaged, or the model was not trained to its end",
            entry.name,
            entry.shape.iter().product::<usize>()
        )))
    }

    /// Returns the tensor's bytes in the file; F16 is converted, which is exact: to bf16 if that
    /// holds every number, else to f32.
    ///
    /// # Errors
    /// Returns `Checkpoint`, naming file and tensor, when the tensor is missing, has another shape
    /// or an unsupported type, or is not finite while [checking](Self::checked) is on.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        let (entry, stored) = self.entry(name, shape)?;
        entry.was_asked.store(true, Ordering::Relaxed);
        let tensor = self.host_tensor(entry, stored);
        if stored == Stored::F16 && tensor.dtype == HostDtype::F32 {
            self.num_finer.fetch_add(1, Ordering::Relaxed);
        }
        let range = entry.start..entry.start + entry.len;
        self.let_go_before(entry.file_idx, range);
        if self.numbers == Numbers::Checked {
            self.check_finite(entry, &tensor)?;
        }
        Ok(tensor)
    }

    fn host_tensor(&self, entry: &TensorEntry, stored: Stored) -> HostTensor<'_> {
        let range = entry.start..entry.start + entry.len;
        let bytes = &self.files[entry.file_idx].bytes[range];
        let shape = entry.shape.clone();
        let dtype = match stored {
            Stored::F16 => return from_f16(shape, bytes),
            Stored::F32 => HostDtype::F32,
            Stored::Bf16 => HostDtype::Bf16,
        };
        HostTensor {
            dtype,
            shape,
            data: Cow::Borrowed(bytes),
        }
    }

    /// Number of requested tensors in F16 with numbers that bf16 does not hold exactly.
    pub fn num_finer_than_bf16(&self) -> usize {
        self.num_finer.load(Ordering::Relaxed)
    }

    /// Checks that the tensor exists, with this shape and a supported type.
    ///
    /// # Errors
    /// Returns the errors of `tensor`.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.entry(name, shape).map(|_| ())
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&TensorEntry, Stored)> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(Error::Checkpoint {
                file: self.manifest.clone(),
                message: format!("tensor {name} is missing"),
            });
        };
        let file = &self.files[entry.file_idx];
        if entry.shape != shape {
            return Err(file.error(format!(
                "tensor {} has shape {:?}, but the config asks for {shape:?}",
                entry.name, entry.shape
            )));
        }
        self.read_as(entry)
    }

    fn read_as<'a>(&self, entry: &'a TensorEntry) -> Result<(&'a TensorEntry, Stored)> {
        let file = &self.files[entry.file_idx];
        match entry.dtype {
            Dtype::F32 => Ok((entry, Stored::F32)),
            Dtype::BF16 => Ok((entry, Stored::Bf16)),
            Dtype::F16 => Ok((entry, Stored::F16)),
            other => Err(file.error(format!(
                "tensor {} is {other:?}; only BF16, F16 and F32 are read: use the checkpoint that \
                 this one was made from",
                entry.name
            ))),
        }
    }

    /// Records the requested range, and releases the pages of ranges requested some tensors ago.
    /// These have been copied by then, and without this, loading would hold every weight twice in
    /// memory.
    fn let_go_before(&self, file_idx: usize, range: Range<usize>) {
        /// Number of ranges that are kept: more than go into one matrix.
        const NUM_KEPT: usize = 4;
        let mut recent = self.recent.lock().expect("nothing panics while it is held");
        recent.push_back((file_idx, range));
        while recent.len() > NUM_KEPT
            && let Some((file_idx, range)) = recent.pop_front()
        {
            self.files[file_idx].bytes.let_go(range);
        }
    }

    /// Returns the tensor's shape, if it exists.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Total bytes of all tensors, as stored.
    pub fn num_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.len as u64).sum()
    }

    /// Part of [`Self::num_bytes`]: tensors in F16, which may have twice as many once converted.
    pub fn num_f16_bytes(&self) -> u64 {
        let halves = self.tensors.values();
        let halves = halves.filter(|entry| entry.dtype == Dtype::F16);
        halves.map(|entry| entry.len as u64).sum()
    }

    /// Returns the names, as in the files, of tensors that were never requested.
    pub fn unexpected(&self) -> Vec<String> {
        self.tensors
            .values()
            .filter(|entry| !entry.was_asked.load(Ordering::Relaxed))
            .map(|entry| entry.name.clone())
            .collect()
    }
}

impl TensorFile {
    /// Returns `None` if there is no such file.
    fn open(path: &Path) -> Result<Option<Self>> {
        let Some(file) = files::open(path)? else {
            return Ok(None);
        };
        let bytes = FileBytes::map(&file).map_err(|error| Error::Checkpoint {
            file: path.to_owned(),
            message: format!("cannot be read: {error}"),
        })?;
        Ok(Some(Self {
            path: path.to_owned(),
            bytes,
        }))
    }

    fn open_shard(index: &Path, path: PathBuf) -> Result<Self> {
        Self::open(&path)?.ok_or_else(|| Error::Checkpoint {
            message: format!(
                "cannot be read: there is no such file, but {} lists tensors in it",
                index.display()
            ),
            file: path,
        })
    }

    fn error(&self, message: String) -> Error {
        Error::Checkpoint {
            file: self.path.clone(),
            message,
        }
    }
}
