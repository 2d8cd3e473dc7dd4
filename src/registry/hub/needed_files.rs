//! Selects a repository's files that a model needs: config, tokenizer, templates and safetensors,
//! but no other formats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::repository::is_file_name;

/// Small files, read before the weights, if the repository has them. `tokenizer.model` is for other
/// programs that use the cache.
const SMALL: [&str; 12] = [
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    INDEX,
];
const CONFIG: &str = "config.json";
/// What peft writes beside an adapter's weights.
const ADAPTER: &str = "adapter_config.json";
const TOKENIZER: &str = "tokenizer.json";
const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Maximum size of an index, which has one line per tensor.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The needed files, as far as names alone determine them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NeededFiles {
    /// Names of all files except the weights.
    pub(super) small: Vec<String>,
    pub(super) weights: WeightFiles,
}

/// Kind of weight files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WeightFiles {
    /// A single file.
    Single,
    /// The files that the index lists.
    Sharded,
}

impl NeededFiles {
    /// Selects from all names of a repository.
    ///
    /// # Errors
    /// Returns a message that names what is missing.
    pub(super) fn choose(names: &[String]) -> Result<Self, String> {
        let has = |name: &str| names.iter().any(|own| own == name);
        for name in [CONFIG, TOKENIZER] {
            if !has(name) && has(ADAPTER) {
                return Err(format!(
                    "it is an adapter ({ADAPTER}), not a whole model: merge it into its base model \
                     and serve the directory of the result"
                ));
            }
            if !has(name) {
                return Err(format!("it has no {name}"));
            }
        }
        let weights = match (has(SINGLE), has(INDEX)) {
            // The loader has the same preference.
            (true, _) => WeightFiles::Single,
            (false, true) => WeightFiles::Sharded,
            (false, false) => {
                return Err(format!(
                    "it has neither {SINGLE} nor {INDEX}; weights are read from safetensors only"
                ));
            }
        };
        let small = SMALL
            .into_iter()
            .filter(|name| has(name) && (*name != INDEX || weights == WeightFiles::Sharded));
        Ok(Self {
            small: small.map(str::to_owned).collect(),
            weights,
        })
    }

    /// Returns the weight files; `index` is called if there is one.
    ///
    /// # Errors
    /// Returns a message that says what is wrong with the index.
    pub(super) fn weights(
        &self,
        names: &[String],
        index: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Vec<String>, String> {
        match self.weights {
            WeightFiles::Single => Ok(vec![SINGLE.to_owned()]),
            WeightFiles::Sharded => {
                let shards = shards(&index()?)?;
                match shards.iter().find(|shard| !names.contains(shard)) {
                    Some(shard) => Err(format!("it lists {shard}, which the repository lacks")),
                    None => Ok(shards),
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct IndexJson {
    weight_map: BTreeMap<String, String>,
}

/// Returns the files that an index lists, each once.
fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    let index: IndexJson =
        serde_json::from_slice(index).map_err(|error| format!("it cannot be read: {error}"))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err("it lists no files".to_owned());
    }
    let is_shard = |name: &String| is_file_name(name) && name.ends_with(".safetensors");
    match shards.iter().find(|name| !is_shard(name)) {
        Some(name) => Err(format!(
            "it lists {name:?}, which is no safetensors file beside it"
        )),
        None => Ok(shards.into_iter().collect()),
    }
}

/// Whether a snapshot has all files that a model needs.
pub(super) fn is_complete(snapshot: &Path) -> bool {
    // Dangling links do not count.
    let has = |name: &str| snapshot.join(name).is_file();
    let index = || {
        let file = snapshot.join(INDEX);
        let size = file.metadata().ok()?.len();
        let bytes = (size <= MAX_INDEX_BYTES).then(|| std::fs::read(file));
        shards(&bytes?.ok()?).ok()
    };
    has(CONFIG)
        && has(TOKENIZER)
        && (has(SINGLE) || index().is_some_and(|shards| shards.iter().all(|shard| has(shard))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_is_needed_is_chosen() {
        let all = names(&[
            ".gitattributes",
            "README.md",
            "added_tokens.json",
            "chat_template.jinja",
            "chat_template.json",
            "config.json",
            "generation_config.json",
            "gemma.gguf",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model.safetensors",
            "preprocessor_config.json",
            "processor_config.json",
            "pytorch_model.bin",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "training_args.pt",
        ]);
        let needed = NeededFiles::choose(&all).unwrap();
        assert_eq!(needed.weights, WeightFiles::Sharded);
        assert_eq!(needed.small.len(), 12);
        let index = br#"{"metadata": {"total_size": 1}, "weight_map": {
            "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
            "c": "model-00001-of-00002.safetensors"}}"#;
        assert_eq!(
            needed.weights(&all, || Ok(index.to_vec())).unwrap(),
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors"
            ]
        );

        let single = names(&["config.json", "tokenizer.json", "model.safetensors", INDEX]);
        let needed = NeededFiles::choose(&single).unwrap();
        assert_eq!(needed.small, ["config.json", "tokenizer.json"]);
        let weights = needed.weights(&single, || unreachable!("there is no need"));
        assert_eq!(weights.unwrap(), ["model.safetensors"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (files, says) in [
            (&["tokenizer.json", "model.safetensors"][..], "config.json"),
            (&["config.json", "model.safetensors"], "tokenizer.json"),
            (
                &["config.json", "tokenizer.json", "pytorch_model.bin"],
                "safetensors only",
            ),
        ] {
            let error = NeededFiles::choose(&names(files)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_index_leads_nowhere_else() {
        for (index, says) in [
            (r#"{"weight_map": {"a": "../../x.safetensors"}}"#, "../../x"),
            (r#"{"weight_map": {"a": "/etc/x.safetensors"}}"#, "/etc/x"),
            (r#"{"weight_map": {"a": "b/x.safetensors"}}"#, "b/x"),
            (r#"{"weight_map": {"a": "x.bin"}}"#, "x.bin"),
            (r#"{"weight_map": {}}"#, "no files"),
            (r#"{"weight_map": []}"#, "cannot be read"),
            ("[", "cannot be read"),
        ] {
            let error = shards(index.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let needed = NeededFiles {
            small: Vec::new(),
            weights: WeightFiles::Sharded,
        };
        let index = br#"{"weight_map": {"a": "x.safetensors"}}"#.to_vec();
        let error = needed
            .weights(&names(&["config.json"]), || Ok(index))
            .unwrap_err();
        assert!(error.contains("x.safetensors, which the repository lacks"));
    }

    #[test]
    fn a_snapshot_is_complete_with_its_last_shard() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write(
            INDEX,
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#,
        );
        write("1.safetensors", "");
        write("tokenizer.json", "{}");
        assert!(!is_complete(dir.path()));
        write("2.safetensors", "");
        assert!(is_complete(dir.path()));
        std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        assert!(!is_complete(dir.path()));
    }
}
