//! Canonical tensor names, and the other names that writers have used.
//!
//! All other code uses the canonical name, which is that of the hub's multimodal files:
//!
//! | written by | text | vision | projector | head |
//! |---|---|---|---|---|
//! | the hub | `language_model.model.` | `vision_tower.vision_model.` | `multi_modal_projector.` | `language_model.lm_head.` |
//! | transformers ≥ 4.52 | `model.language_model.` | `model.vision_tower.vision_model.` | `model.multi_modal_projector.` | `lm_head.` |
//! | transformers 5 | `language_model.model.` | `vision_tower.` | `multi_modal_projector.` | `lm_head.` |
//! | text-only | `model.` | – | – | `lm_head.` |

/// Name of the embedding, whose first dimension is the vocabulary.
pub const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
/// Name of the head, if a checkpoint has a separate one.
pub const LM_HEAD: &str = "language_model.lm_head.weight";

const TEXT: &str = "language_model.model.";
const VISION: &str = "vision_tower.vision_model.";

/// Returns the canonical name of the tensor that a file calls `name`; an unknown name is unchanged.
pub fn canonical(name: &str) -> String {
    if name.starts_with(TEXT) || name.starts_with(VISION) {
        return name.to_owned();
    }
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return format!("{TEXT}{rest}");
    }
    if let Some(inner) = name.strip_prefix("model.") {
        return match inner {
            _ if inner.starts_with("multi_modal_projector.") => inner.to_owned(),
            _ if inner.starts_with("vision_tower.") => canonical(inner),
            _ => format!("{TEXT}{inner}"),
        };
    }
    if let Some(rest) = name.strip_prefix("vision_tower.") {
        return format!("{VISION}{rest}");
    }
    match name {
        "lm_head.weight" => LM_HEAD.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_means_the_same_tensor() {
        let cases = [
            (
                "language_model.model.layers.3.mlp.up_proj.weight",
                &[
                    "model.language_model.layers.3.mlp.up_proj.weight",
                    "model.layers.3.mlp.up_proj.weight",
                ][..],
            ),
            (
                "vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
                &[
                    "model.vision_tower.vision_model.encoder.layers.0.layer_norm1.bias",
                    "model.vision_tower.encoder.layers.0.layer_norm1.bias",
                    "vision_tower.encoder.layers.0.layer_norm1.bias",
                ],
            ),
            (
                "multi_modal_projector.mm_soft_emb_norm.weight",
                &["model.multi_modal_projector.mm_soft_emb_norm.weight"],
            ),
            (LM_HEAD, &["lm_head.weight"]),
            (EMBEDDING, &["model.embed_tokens.weight"]),
        ];
        for (expected, names) in cases {
            assert_eq!(canonical(expected), expected);
            for name in names {
                assert_eq!(canonical(name), expected);
            }
        }
    }

    #[test]
    fn unknown_names_are_kept() {
        assert_eq!(canonical("score.weight"), "score.weight");
    }
}
