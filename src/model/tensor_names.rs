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
//!
//! Training wraps modules in others, whose names are left in what it saves: `base_model.model.`
//! (peft), `module.` (data parallel), `_orig_mod.` (torch.compile) and those of FSDP.

/// Name of the embedding, whose first dimension is the vocabulary.
pub const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
/// Name of the head, if a checkpoint has a separate one.
pub const LM_HEAD: &str = "language_model.lm_head.weight";

const TEXT: &str = "language_model.model.";
const VISION: &str = "vision_tower.vision_model.";
const PROJECTOR: &str = "multi_modal_projector.";

/// Modules around a whole model that change nothing in it.
const AROUND: [&str; 2] = ["base_model.model.", "module."];
/// Modules around any part of a model that change nothing in it.
const ANYWHERE: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// Returns the canonical name of the tensor that a file calls `name`; an unknown name is unchanged.
pub fn canonical(name: &str) -> String {
    let bare = unwrapped(name);
    let known = renamed(&bare);
    let is_known = [TEXT, VISION, PROJECTOR, LM_HEAD]
        .iter()
        .any(|own| known.starts_with(own));
    if is_known { known } else { name.to_owned() }
}

/// The name without the modules that wrap the model or its parts.
fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name
        .split('.')
        .filter(|part| !ANYWHERE.contains(part))
        .collect();
    let bare = parts.join(".");
    let mut rest = bare.as_str();
    while let Some(inner) = AROUND.iter().find_map(|around| rest.strip_prefix(around)) {
        rest = inner;
    }
    rest.to_owned()
}

fn renamed(name: &str) -> String {
    if name.starts_with(TEXT) || name.starts_with(VISION) {
        return name.to_owned();
    }
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return format!("{TEXT}{rest}");
    }
    if let Some(inner) = name.strip_prefix("model.") {
        return match inner {
            _ if inner.starts_with(PROJECTOR) => inner.to_owned(),
            _ if inner.starts_with("vision_tower.") => renamed(inner),
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
    fn what_training_wraps_around_a_model_is_passed_over() {
        let layer = "language_model.model.layers.3.mlp.up_proj.weight";
        let patch = "vision_tower.vision_model.embeddings.patch_embedding.weight";
        let projector = "multi_modal_projector.mm_soft_emb_norm.weight";
        for (name, expected) in [
            ("module.model.layers.3.mlp.up_proj.weight", layer),
            ("_orig_mod.model.layers.3.mlp.up_proj.weight", layer),
            ("model.layers.3._orig_mod.mlp.up_proj.weight", layer),
            ("base_model.model.model.layers.3.mlp.up_proj.weight", layer),
            (
                "base_model.model.model.language_model.layers.3.mlp.up_proj.weight",
                layer,
            ),
            (
                "module._orig_mod.language_model.model.layers.3.mlp.up_proj.weight",
                layer,
            ),
            (
                "_fsdp_wrapped_module.model.layers.3._fsdp_wrapped_module.\
                 _checkpoint_wrapped_module.mlp.up_proj.weight",
                layer,
            ),
            (
                "module.model.vision_tower.vision_model.embeddings.patch_embedding.weight",
                patch,
            ),
            (
                "_orig_mod.multi_modal_projector.mm_soft_emb_norm.weight",
                projector,
            ),
            (
                "module.model.multi_modal_projector.mm_soft_emb_norm.weight",
                projector,
            ),
            ("base_model.model.lm_head.weight", LM_HEAD),
        ] {
            assert_eq!(canonical(name), expected, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_kept() {
        for name in ["score.weight", "module.score.weight", "_orig_mod.score"] {
            assert_eq!(canonical(name), name);
        }
    }
}
