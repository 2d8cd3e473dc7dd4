//! The header of a safetensors file: names, types, shapes and places of its tensors.
//!
//! ```text
//! [ header length: u64 ][ header: JSON ][ tensors without gaps to the end ]
//! ```
//!
//! It is checked here rather than by the `safetensors` crate, whose errors do not name the tensor,
//! and which silently takes the last of two tensors with one name. The crate's types are used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::Result;
use crate::files::{damaged, shown};

/// Size of the first field, the header's length, in bytes.
const LENGTH_BYTES: usize = 8;
/// Maximum header size, defined by the format.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Maximum number of dimensions of a tensor: the family's have at most 4.
const MAX_DIMENSIONS: usize = 8;
/// Maximum length of a tensor's name in bytes: the family's have at most 80.
const MAX_NAME_BYTES: usize = 1024;
/// Key of the writer's metadata, which is not a tensor.
const METADATA: &str = "__metadata__";

/// A tensor as a header lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedTensor {
    /// Name in the file.
    pub name: String,
    /// Number type.
    pub dtype: Dtype,
    /// Its dimensions; their product and `dtype` give the length of `range`.
    pub shape: Vec<usize>,
    /// Range of its bytes in the file, within the file's length.
    pub range: Range<usize>,
}

/// Returns the tensors of the safetensors file with the contents `bytes`, in the order of their
/// places. `file` is named in errors.
///
/// # Errors
/// Returns `Checkpoint`, naming the tensor where there is one, for everything that the format does
/// not allow: lengths that differ from shape and type, gaps, overlaps, duplicate names, and a file
/// that is too short or too long.
pub fn read_header(file: &Path, bytes: &[u8]) -> Result<Vec<ListedTensor>> {
    read(bytes).map_err(|message| damaged(file, message))
}

fn read(bytes: &[u8]) -> std::result::Result<Vec<ListedTensor>, String> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(
            "is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
                .to_owned(),
        );
    }
    let len = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("is not a safetensors file: it has {len} bytes"));
    };
    let header_len = u64::from_le_bytes(*length);
    if header_len > MAX_HEADER_BYTES {
        return Err(format!(
            "is not a safetensors file: its header would be {header_len} bytes"
        ));
    }
    let header_len = header_len as usize;
    let data_start = LENGTH_BYTES + header_len;
    let Some(header) = rest.get(..header_len) else {
        return Err(format!(
            "is truncated: its header ends at byte {data_start}, but it has {len} bytes"
        ));
    };
    let Header(mut entries) = serde_json::from_slice(header)
        .map_err(|error| format!("has a damaged safetensors header: {error}"))?;
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let mut done = 0;
    for (name, entry) in &entries {
        let Offsets(start, end) = entry.data_offsets;
        let refused = |what: String| Err(format!("tensor {} {what}", shown(name)));
        if end < start {
            return refused(format!(
                "ends at byte {end}, before its start at byte {start}"
            ));
        }
        if start != done {
            let what = if start < done {
                "overlaps the one before"
            } else {
                "leaves a gap"
            };
            return refused(format!(
                "{what}: it starts at byte {start}, which should be {done}"
            ));
        }
        let Some(needed) = entry.num_bytes() else {
            return refused(format!(
                "has a shape of no whole number of bytes, or of too many: {:?} of {:?}",
                entry.shape.0, entry.dtype
            ));
        };
        if end - start != needed {
            return refused(format!(
                "has {} bytes, but {:?} of {:?} are {needed}",
                end - start,
                entry.shape.0,
                entry.dtype
            ));
        }
        done = end;
    }
    let needed = (data_start as u64).saturating_add(done);
    if needed != len as u64 {
        let cut_off = entries.iter().find(|(_, entry)| {
            (data_start as u64).saturating_add(entry.data_offsets.1) > len as u64
        });
        return Err(match cut_off {
            Some((name, _)) => format!(
                "is truncated: it has {len} of {needed} bytes, and tensor {} is cut off",
                shown(name)
            ),
            None => format!("has {len} bytes, but its header describes {needed}"),
        });
    }
    let tensors = entries.into_iter().map(|(name, entry)| {
        // The offsets are within the file, so they fit.
        let Offsets(start, end) = entry.data_offsets;
        ListedTensor {
            name,
            dtype: entry.dtype,
            shape: entry.shape.0.iter().map(|dim| *dim as usize).collect(),
            range: data_start + start as usize..data_start + end as usize,
        }
    });
    Ok(tensors.collect())
}

/// Tensors with their names, in the order of the header.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: Offsets,
}

impl Entry {
    /// Size according to shape and type; `None` if it overflows or is not a whole number of bytes.
    fn num_bytes(&self) -> Option<u64> {
        let shape = self.shape.0.iter();
        let count = shape.copied().try_fold(1u64, u64::checked_mul)?;
        let bits = count.checked_mul(self.dtype.bitsize() as u64)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// Offsets of the first byte and of the end, relative to the end of the header.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Offsets(u64, u64);

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut listed: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut names = BTreeSet::new();
                while let Some(name) = listed.next_key::<String>()? {
                    if name.len() > MAX_NAME_BYTES {
                        return Err(de::Error::custom(format_args!(
                            "tensor {} has a name of {} bytes; at most {MAX_NAME_BYTES} are taken",
                            shown(&name),
                            name.len()
                        )));
                    }
                    if !names.insert(name.clone()) {
                        let name = shown(&name);
                        return Err(de::Error::custom(format_args!(
                            "tensor {name} is there twice"
                        )));
                    }
                    if name == METADATA {
                        listed.next_value::<BTreeMap<String, IgnoredAny>>()?;
                        continue;
                    }
                    let entry = listed.next_value_seed(EntryOf(&name))?;
                    tensors.push((name, entry));
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// Deserializes the entry of the tensor with this name, which errors mention.
struct EntryOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for EntryOf<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Entry, D::Error> {
        Entry::deserialize(deserializer)
            .map_err(|error| de::Error::custom(format_args!("tensor {}: {error}", shown(self.0))))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut dimensions: A,
            ) -> std::result::Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(dimension) = dimensions.next_element::<u64>()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(de::Error::custom(format_args!(
                            "a shape has more than {MAX_DIMENSIONS} dimensions"
                        )));
                    }
                    shape.push(dimension);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a file with this header and `num_bytes` bytes behind it.
    fn file(header: &str, num_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + num_bytes, 0);
        bytes
    }

    fn error(header: &str, num_bytes: usize) -> String {
        read(&file(header, num_bytes)).unwrap_err()
    }

    #[test]
    fn a_header_is_read_in_the_order_of_places() {
        let header = r#"{"b": {"dtype": "F32", "shape": [2], "data_offsets": [2, 10]},
            "__metadata__": {"format": "pt"},
            "empty": {"dtype": "F32", "shape": [0, 5], "data_offsets": [2, 2]},
            "a": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}"#;
        let bytes = file(header, 10);
        let tensors = read(&bytes).unwrap();
        let data = bytes.len() - 10;
        let found: Vec<_> = tensors
            .iter()
            .map(|t| (t.name.as_str(), t.shape.as_slice(), t.range.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("a", &[][..], data..data + 2),
                ("empty", &[0, 5], data + 2..data + 2),
                ("b", &[2], data + 2..data + 10),
            ]
        );
        assert!(read(&file("{}", 0)).unwrap().is_empty());
    }

    #[test]
    fn each_damage_names_its_tensor() {
        let tensor = |shape: &str, offsets: &str| {
            format!(r#"{{"t.x": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}"#)
        };
        let first = r#""a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}"#;
        let second = |offsets: &str| {
            format!(
                r#"{{{first}, "t.x": {{"dtype": "U8", "shape": [4], "data_offsets": {offsets}}}}}"#
            )
        };
        let twice = format!(r#"{{"t.x": 1, {first}, "t.x": 1}}"#);
        let twice = twice.replace(
            ": 1",
            r#": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}"#,
        );
        let max = u64::MAX;
        for (header, expected) in [
            (tensor("[2]", "[8, 0]"), "ends at byte 0, before its start"),
            (tensor("[2]", "[4, 12]"), "leaves a gap"),
            (second("[2, 6]"), "overlaps the one before"),
            (second("[5, 9]"), "leaves a gap"),
            (
                tensor("[3]", "[0, 8]"),
                "has 8 bytes, but [3] of F32 are 12",
            ),
            (
                tensor("[4611686018427387904, 4]", "[0, 8]"),
                "or of too many",
            ),
            (
                tensor(&format!("[{max}, {max}]"), "[0, 8]"),
                "or of too many",
            ),
            (tensor(&format!("[0, {max}, {max}]"), "[0, 8]"), "are 0"),
            (tensor(&format!("[{max}]"), "[0, 8]"), "or of too many"),
            (
                tensor("[1]", "[0, 4]").replace("F32", "F4"),
                "no whole number of bytes",
            ),
            (
                tensor("[2, 1]", "[0, 8]").replace("F32", "F7"),
                "unknown variant `F7`",
            ),
            (tensor("[-1]", "[0, 8]"), "invalid value"),
            (tensor("[1.5]", "[0, 8]"), "invalid type"),
            (tensor("\"2\"", "[0, 8]"), "a list of dimensions"),
            (
                tensor("[1,1,1,1,1,1,1,1,2]", "[0, 8]"),
                "more than 8 dimensions",
            ),
            (tensor("[2]", "[0]"), "invalid length 1"),
            (tensor("[2]", "[0, 8, 9]"), "trailing"),
            (
                tensor("[2]", "[0, 8], \"strides\": [1]"),
                "unknown field `strides`",
            ),
            (
                tensor("[2]", "[0, 8]").replace("\"shape\": [2], ", ""),
                "missing field `shape`",
            ),
            (r#"{"t.x": 3}"#.to_owned(), "invalid type"),
            (r#"{"t.x": null}"#.to_owned(), "invalid type"),
            (twice, "is there twice"),
        ] {
            let error = error(&header, 8);
            assert!(
                error.contains("tensor t.x") && error.contains(expected),
                "{header}: {error}"
            );
        }
    }

    #[test]
    fn a_header_that_is_none_is_refused() {
        for (header, expected) in [
            ("", "EOF"),
            ("[]", "an object of tensors"),
            ("null", "an object of tensors"),
            ("{\"__metadata__\": 3}", "invalid type"),
            (
                "{\"__metadata__\": {}, \"__metadata__\": {}}",
                "is there twice",
            ),
            (
                &format!("{{\"__metadata__\": {{\"a\": {}", "[".repeat(200_000)),
                "EOF",
            ),
            (
                &format!("{{\"a\": {}", "{\"a\":".repeat(200_000)),
                "unknown field",
            ),
            (
                &format!("{{\"{}\": 1}}", "n".repeat(5000)),
                "a name of 5000 bytes",
            ),
        ] {
            let error = error(header, 0);
            assert!(error.contains(expected) && error.len() < 400, "{error}");
        }
        let too_long = [&(MAX_HEADER_BYTES + 1).to_le_bytes()[..], b"{}"].concat();
        let error = read(&too_long).unwrap_err();
        assert!(
            error.contains("its header would be 100000001 bytes"),
            "{error}"
        );
        let not_utf8 = [&2u64.to_le_bytes()[..], b"{\xff"].concat();
        assert!(
            read(&not_utf8)
                .unwrap_err()
                .contains("damaged safetensors header")
        );
    }
}
