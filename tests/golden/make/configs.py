"""Configs in every dialect that a loader meets, and what transformers resolves each to.

The shapes are those of the published checkpoints, written here in each dialect's words; `expected.json` holds the numbers.
"""

import json
from pathlib import Path

from transformers import AutoConfig, Gemma3Config, GenerationConfig

from . import tiny

SCALING = {"factor": 8.0, "rope_type": "linear"}
VISION = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
MULTIMODAL = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": VISION,
}
TEXT_27B = {
    "head_dim": 128,
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "model_type": "gemma3_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 62,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 168,
    "sliding_window": 1024,
}
TEXT_1B = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 262144,
}


def layer_types(count: int, pattern: int) -> list[str]:
    return ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(count)]


def rope_parameters(local: float, base: float, factor: float | None) -> dict:
    full = {"rope_theta": base, "rope_type": "linear" if factor else "default"}
    return {
        "full_attention": full | ({"factor": factor} if factor else {}),
        "sliding_attention": {"rope_theta": local, "rope_type": "default"},
    }


def without(config: dict, *names: str) -> dict:
    return {name: value for name, value in config.items() if name not in names}


def dialects() -> dict[str, dict]:
    minimal_text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": SCALING,
        "sliding_window": 1024,
    }
    v4_text = TEXT_27B | {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": SCALING}
    v5_text = TEXT_27B | {
        "_sliding_window_pattern": 6,
        "attention_bias": False,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": layer_types(62, 6),
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope_parameters(1e4, 1e6, 8.0),
        "tie_word_embeddings": True,
        "use_bidirectional_attention": False,
        "vocab_size": 262208,
    }
    v5_top = without(MULTIMODAL, "torch_dtype") | {"dtype": "bfloat16", "tie_word_embeddings": True, "bos_token_id": 2}
    # Values that no default has, so that a field that is not read shows.
    odd_text = v4_text | {
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_local_base_freq": 20000.0,
        "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
        "vocab_size": 262400,
    }
    odd_vision = VISION | {"image_size": 448, "patch_size": 28, "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
    return {
        "first_4b": MULTIMODAL | {"text_config": minimal_text},
        "no_vision_head_named": MULTIMODAL
        | {"text_config": minimal_text, "vision_config": without(VISION, "vision_use_head")},
        "pattern": MULTIMODAL | {"text_config": v4_text | {"sliding_window_pattern": 4}},
        "private_pattern": MULTIMODAL | {"text_config": v4_text | {"_sliding_window_pattern": 6}},
        "layer_types": MULTIMODAL | {"text_config": v4_text | {"layer_types": layer_types(62, 5)}},
        "layer_types_over_pattern": MULTIMODAL
        | {"text_config": v4_text | {"sliding_window_pattern": 4, "layer_types": layer_types(62, 6)}},
        "v5": v5_top | {"text_config": v5_text},
        "v5_no_factor": v5_top | {"text_config": v5_text | {"rope_parameters": rope_parameters(1e4, 1e6, None)}},
        "eos_one": MULTIMODAL | {"text_config": v4_text, "eos_token_id": 106},
        "eos_none": without(MULTIMODAL, "eos_token_id") | {"text_config": v4_text},
        "float32": MULTIMODAL | {"text_config": v4_text, "torch_dtype": "float32"},
        "odd_values": MULTIMODAL | {"text_config": odd_text, "vision_config": odd_vision, "mm_tokens_per_image": 64},
        "text_only_1b": TEXT_1B,
        "text_only_v5": without(
            TEXT_1B, "torch_dtype", "rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern"
        )
        | {"dtype": "float32", "layer_types": layer_types(26, 6), "rope_parameters": rope_parameters(1e4, 1e6, None)},
        "text_only_27b": TEXT_1B
        | TEXT_27B
        | {"max_position_embeddings": 131072, "rope_scaling": SCALING, "eos_token_id": 1, "architectures": None},
    }


def resolve(path: Path) -> dict:
    """All that decides a model's shape and arithmetic, as transformers understands the file."""
    config = AutoConfig.from_pretrained(path)
    is_multimodal = isinstance(config, Gemma3Config)
    text = config.text_config if is_multimodal else config
    eos = GenerationConfig.from_model_config(config).eos_token_id  # what ends a text where no generation_config.json is
    full, sliding = text.rope_parameters["full_attention"], text.rope_parameters["sliding_attention"]
    assert sliding["rope_type"] == "default"
    resolved = {
        "text": {
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "head_dim": text.head_dim,
            "query_pre_attn_scalar": text.query_pre_attn_scalar,
            "max_position_embeddings": text.max_position_embeddings,
            "sliding_window": text.sliding_window,
            "rms_norm_eps": text.rms_norm_eps,
            "global_layers": [i for i, kind in enumerate(text.layer_types) if kind == "full_attention"],
            "rope_global": {"base": full["rope_theta"], "factor": full.get("factor", 1.0)},
            "rope_local": {"base": sliding["rope_theta"], "factor": 1.0},
        },
        "dtype": str(config.dtype).removeprefix("torch."),
        "eos_token_ids": [eos] if isinstance(eos, int) else eos,
    }
    if is_multimodal:
        vision = config.vision_config
        names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size"]
        resolved["vision"] = {name: getattr(vision, name) for name in [*names, "layer_norm_eps"]}
        resolved |= {
            "mm_tokens_per_image": config.mm_tokens_per_image,
            "boi_token_index": config.boi_token_index,
            "eoi_token_index": config.eoi_token_index,
            "image_token_index": config.image_token_index,
        }
    return resolved


def write(folder: Path) -> None:
    expected = {}
    for name, dialect in dialects().items():
        path = folder / f"{name}.json"
        tiny.write_json(path, dialect)
        expected[name] = resolve(path)
    folder.joinpath("expected.json").write_text(json.dumps(expected, indent=1) + "\n")
