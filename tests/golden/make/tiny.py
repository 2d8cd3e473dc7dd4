"""Tiny Gemma 3 models with random weights: their configs, weights and files.

Weights are drawn with NumPy in the order of the tensors' names, so they depend on the seed alone. They are as large as they
must be for every detail to show: norm weights are not zero, attention is peaked, logits spread over some units.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig

from . import tokenizer


def hub_name(name: str) -> str:
    """The name that the hub's files use for the tensor that transformers 5's model calls `name`."""
    if name.startswith("model.vision_tower."):
        return name.replace("model.vision_tower.", "vision_tower.vision_model.", 1)
    if name.startswith("model.multi_modal_projector."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    if name == "lm_head.weight":
        return "language_model.lm_head.weight"
    raise ValueError(name)


def random_weights(model: torch.nn.Module, seed: int, embedding_std: float) -> None:
    """Fills every parameter of `model` with random numbers.

    Embeddings are small beside what the layers add, and the final norm makes up for it: or else the tied head would let each
    token predict itself.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            normal = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), dtype=np.float32))
            is_weight = name.endswith(("weight", "mm_input_projection_weight"))
            if name.endswith("embed_tokens.weight"):
                normal *= embedding_std
            elif name.endswith("position_embedding.weight"):
                normal *= 0.5
            elif "layer_norm" in name or "post_layernorm" in name:
                normal = (1 if is_weight else 0) + 0.25 * normal
            elif "norm" in name:  # RMS: the weight is added to one
                is_final = name.endswith("model.norm.weight")
                normal = 0.3 * normal + (2 if is_final else 0.5 if "q_norm" in name or "k_norm" in name else 0)
            elif not is_weight:
                normal *= 0.1  # biases
            elif name.endswith("mm_input_projection_weight"):
                normal *= parameter.shape[0] ** -0.5
            else:
                normal *= (parameter[0].numel()) ** -0.5
            parameter.copy_(normal)


def multimodal_config(text: dict, vision: dict, mm_tokens_per_image: int) -> Gemma3Config:
    ids = tokenizer.ids()
    common = {"vocab_size": tokenizer.EMBEDDING_ROWS, "max_position_embeddings": 8192}
    return Gemma3Config(
        text_config=common | text,
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False} | vision,
        mm_tokens_per_image=mm_tokens_per_image,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids[tokenizer.IMAGE_TOKEN],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        bos_token_id=ids["<bos>"],
        pad_token_id=ids["<pad>"],
    )


def build(config: Gemma3Config | Gemma3TextConfig, seed: int, embedding_std: float = 0.1) -> torch.nn.Module:
    """A float32 model in evaluation mode."""
    kind = Gemma3ForConditionalGeneration if isinstance(config, Gemma3Config) else Gemma3ForCausalLM
    config._attn_implementation = "eager"
    for part in ("text_config", "vision_config"):
        if hasattr(config, part):
            getattr(config, part)._attn_implementation = "eager"
    model = kind(config).eval()
    random_weights(model, seed, embedding_std)
    return model


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def generation_config(ids: dict[str, int]) -> dict:
    """As the hub's Gemma 3 has it."""
    return {
        "bos_token_id": ids["<bos>"],
        "cache_implementation": "hybrid",
        "do_sample": True,
        "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
        "pad_token_id": ids["<pad>"],
        "top_k": 64,
        "top_p": 0.95,
    }


def preprocessor_config(image_size: int, image_seq_length: int) -> dict:
    """As the hub's Gemma 3 has it."""
    return {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Gemma3ImageProcessor",
        "image_seq_length": image_seq_length,
        "image_std": [0.5, 0.5, 0.5],
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }


def hub_config(config: Gemma3Config, dtype: str) -> dict:
    """config.json in the words of the hub's Gemma 3 checkpoints."""
    text, vision = config.text_config, config.vision_config
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": config.boi_token_index,
        "eoi_token_index": config.eoi_token_index,
        "eos_token_id": config.eos_token_id,
        "image_token_index": config.image_token_index,
        "initializer_range": 0.02,
        "mm_tokens_per_image": config.mm_tokens_per_image,
        "model_type": "gemma3",
        "text_config": hub_text_config(text) | {"model_type": "gemma3_text"},
        "torch_dtype": dtype,
        "vision_config": {
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size,
            "intermediate_size": vision.intermediate_size,
            "model_type": "siglip_vision_model",
            "num_attention_heads": vision.num_attention_heads,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size,
            "vision_use_head": False,
        },
    }


def hub_text_config(text: Gemma3TextConfig) -> dict:
    full, sliding = text.rope_parameters["full_attention"], text.rope_parameters["sliding_attention"]
    factor = full.get("factor")
    return {
        "head_dim": text.head_dim,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": text.max_position_embeddings,
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "query_pre_attn_scalar": text.query_pre_attn_scalar,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_local_base_freq": sliding["rope_theta"],
        "rope_scaling": {"factor": factor, "rope_type": "linear"} if factor else None,
        "rope_theta": full["rope_theta"],
        "sliding_window": text.sliding_window,
        "sliding_window_pattern": 6,
        "vocab_size": text.vocab_size,
    }


def write_weights(path: Path, model: torch.nn.Module, dtype: torch.dtype) -> None:
    """The tied head is left out; a multimodal model gets the hub's names, a text-only one keeps its own."""
    is_multimodal = isinstance(model, Gemma3ForConditionalGeneration)
    rename = hub_name if is_multimodal else str
    tensors = {rename(name): p.detach().to(dtype).contiguous() for name, p in model.named_parameters()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
