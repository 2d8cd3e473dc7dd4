//! Reads model.safetensors.index.json, which says which shard has which tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::files::json_fields::Fields;
use crate::files::{self, shown};

/// Contents of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    /// Tensor name → shard, a file in the directory of the index.
    pub weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the file's text; `file` is named in errors.
    ///
    /// # Errors
    /// Returns `Checkpoint` for an invalid index, and for one that points outside its directory.
    pub fn from_json(file: &Path, text: &[u8]) -> Result<Self> {
        let value: Value = files::json(file, text)?;
        let root = Fields::new(file, &value)?;
        let Some(fields) = root.section("weight_map")? else {
            return Err(root.error("weight_map", "is missing"));
        };
        let mut weight_map = BTreeMap::new();
        for name in fields.names() {
            let Some(shard) = fields.text(name)? else {
                return Err(fields.error(name, "names no file"));
            };
            // A plain file name, on every system: an index must not point outside its directory.
            let is_plain = Path::new(shard).file_name() == Some(shard.as_ref())
                && !shard.contains(['/', '\\', ':', '\0']);
            if !is_plain {
                return Err(fields.error(
                    name,
                    format_args!(
                        "is in \"{}\", which is not a file beside the index",
                        shown(shard)
                    ),
                ));
            }
            weight_map.insert(name.to_owned(), shard.to_owned());
        }
        if weight_map.is_empty() {
            return Err(root.error("weight_map", "lists no tensors"));
        }
        Ok(Self { weight_map })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ShardIndex> {
        ShardIndex::from_json(Path::new("index.json"), text.as_bytes())
    }

    #[test]
    fn shards_are_files_beside_the_index() {
        let index = read(r#"{"metadata": {"total_size": 1}, "weight_map": {"a": "x", "b": "y"}}"#);
        let weight_map = index.unwrap().weight_map;
        assert_eq!(weight_map["a"], "x");
        assert_eq!(weight_map.len(), 2);
        for shard in [
            "../x", "/x", "x/y", "..", ".", "", "x\\\\y", "C:x", "x\\u0000",
        ] {
            let text = format!(r#"{{"weight_map": {{"t.a": "{shard}"}}}}"#);
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains("weight_map.t.a is in"), "{error}");
        }
    }

    #[test]
    fn damage_names_the_field() {
        for (text, expected) in [
            (
                r#"{"weight_map": {"t": "x", "t": "y"}}"#,
                "\"t\" is there twice",
            ),
            (r#"{"weight_map": {"t": 3}}"#, "weight_map.t must be text"),
            (
                r#"{"weight_map": {"t": null}}"#,
                "weight_map.t names no file",
            ),
            (r#"{"weight_map": []}"#, "weight_map must be an object"),
            (r#"{"weight_map": {}}"#, "weight_map lists no tensors"),
            (r#"{}"#, "weight_map is missing"),
            ("3", "expected a JSON object"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(
                error.starts_with("index.json: ") && error.contains(expected),
                "{error}"
            );
        }
    }
}
