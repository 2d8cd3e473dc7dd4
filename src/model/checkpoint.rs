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
    /// What lists the tensors: the file itself, or the index of its shards.
    manifest: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, TensorEntry>,
    numbers: Numbers,
    /// File and range of the tensors handed out last.
    recent: Mutex<VecDeque<(usize, Range<usize>)>>,
}

/// Whether numbers are looked at before they are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Unchecked,
    /// None of them may be NaN or infinite.
    Checked,
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
        if let Some(file) = TensorFile::open(&single)? {
            return Self::from_files(single, vec![file]);
        }
        let index = dir.join(INDEX_FILE);
        let Some(text) = files::read(&index, MAX_INDEX_BYTES)? else {
            return Err(Error::Checkpoint {
                file: dir.to_owned(),
                message: format!(
                    "has neither {SINGLE_FILE} nor {INDEX_FILE}: only safetensors are read"
                ),
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

    /// The same, whose tensors are handed out only when all of their numbers are finite.
    #[must_use]
    pub fn checked(self) -> Self {
        Self {
            numbers: Numbers::Checked,
            ..self
        }
    }

    /// Looks at every number of the tensors that were asked for, in the order of the files.
    ///
    /// # Errors
    /// `Checkpoint` naming file and tensor where the first one is NaN or infinite.
    pub fn check_numbers(&self) -> Result<()> {
        let asked = self.tensors.values();
        let mut asked: Vec<_> = asked
            .filter(|entry| entry.was_asked.load(Ordering::Relaxed))
            .collect();
        asked.sort_by_key(|entry| (entry.file_idx, entry.start));
        for entry in asked {
            let (_, dtype) = self.read_as(entry)?;
            self.check_finite(entry, &self.host_tensor(entry, dtype))?;
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

    /// The tensor's bytes in the file.
    ///
    /// # Errors
    /// `Checkpoint` naming file and tensor when it is missing, of another shape, of a type that is
    /// not read, or not finite where that is [checked](Self::checked).
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor<'_>> {
        let (entry, dtype) = self.entry(name, shape)?;
        entry.was_asked.store(true, Ordering::Relaxed);
        let tensor = self.host_tensor(entry, dtype);
        let range = entry.start..entry.start + entry.len;
        self.let_go_before(entry.file_idx, range);
        if self.numbers == Numbers::Checked {
            self.check_finite(entry, &tensor)?;
        }
        Ok(tensor)
    }

    fn host_tensor(&self, entry: &TensorEntry, dtype: HostDtype) -> HostTensor<'_> {
        let range = entry.start..entry.start + entry.len;
        HostTensor {
            dtype,
            shape: entry.shape.clone(),
            data: Cow::Borrowed(&self.files[entry.file_idx].bytes[range]),
        }
    }

    /// That the tensor is there, of this shape and of a type that is read.
    ///
    /// # Errors
    /// As `tensor`.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.entry(name, shape).map(|_| ())
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&TensorEntry, HostDtype)> {
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

    fn read_as<'a>(&self, entry: &'a TensorEntry) -> Result<(&'a TensorEntry, HostDtype)> {
        let file = &self.files[entry.file_idx];
        match entry.dtype {
            Dtype::F32 => Ok((entry, HostDtype::F32)),
            Dtype::BF16 => Ok((entry, HostDtype::Bf16)),
            other => Err(file.error(format!(
                "tensor {} is {other:?}; only BF16 and F32 are read (Gemma 3 overflows in F16)",
                entry.name
            ))),
        }
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
    /// `None` if there is no such file.
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
