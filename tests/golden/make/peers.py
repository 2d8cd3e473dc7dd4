"""Larger random models for check_server.py: the real tokenizer, 896 x 896 pictures of 256 tokens, a vocabulary of 262208.

Each is written to a folder as one kind of writer would, and kept in memory as the reference.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig

from . import configs, models, tiny

VOCAB_SIZE = 262208
TOKENIZER_SIZE = 262145
WINDOW = 512
NUM_IMAGE_TOKENS = 256
EMBEDDING = 0.2
"""How large a scaled embedding is beside the unit that each layer adds; the final norm makes up for it. At 1 a tied head lets
each token predict itself."""


@dataclass(frozen=True)
class Peer:
    """What is written, and in whose words."""

    name: str
    layout: str
    """hub, transformers_4_52 or transformers_5; text-only models have one naming."""
    dialect: str
    """first (the first gemma-3-4b's), hub, or v5."""
    dtype: torch.dtype = torch.float32
    """Of the file."""
    is_untied: bool = False
    has_images: bool = True
    num_shards: int = 1


ALL = [
    Peer("hub", "hub", "first", num_shards=3),
    Peer("transformers-4.52-untied", "transformers_4_52", "hub", is_untied=True),
    Peer("transformers-5-bf16", "transformers_5", "v5", dtype=torch.bfloat16),
    Peer("text-only-bf16", "text", "hub", dtype=torch.bfloat16, has_images=False),
    Peer("text-only-v5-untied", "text", "v5", is_untied=True, has_images=False),
]


@dataclass(frozen=True)
class Sizes:
    hidden: int = 256
    layers: int = 14
    vision_layers: int = 2


def text_fields(peer: Peer, sizes: Sizes) -> dict:
    fields = {
        "hidden_size": sizes.hidden,
        "intermediate_size": 2 * sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "sliding_window": WINDOW,
        "rope_scaling": models.SCALING,
        "vocab_size": VOCAB_SIZE if peer.has_images else VOCAB_SIZE - 64,
    }
    if peer.dialect != "first":  # which has the class's own heads: 8, 4, and 256 wide
        fields |= {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "query_pre_attn_scalar": 84,  # 168 / 128 of head_dim, as in the 27B
        }
    return fields


def config(peer: Peer, sizes: Sizes) -> Gemma3Config | Gemma3TextConfig:
    fields = text_fields(peer, sizes)
    if not peer.has_images:
        return Gemma3TextConfig(**fields, eos_token_id=[1, 106], tie_word_embeddings=not peer.is_untied)
    vision = configs.VISION | {
        "hidden_size": 144,  # two heads of 72, as wide as the real ones
        "intermediate_size": 288,
        "num_attention_heads": 2,
        "num_hidden_layers": sizes.vision_layers,
    }
    return Gemma3Config(text_config=fields, vision_config=vision, eos_token_id=[1, 106], bos_token_id=2, pad_token_id=0)


def build(peer: Peer, sizes: Sizes, seed: int) -> torch.nn.Module:
    """The reference, its weights as the file will hold them."""
    std = EMBEDDING * sizes.hidden**-0.5
    model = tiny.build(config(peer, sizes), seed, std)
    norm = (model.model.language_model if peer.has_images else model.model).norm
    with torch.no_grad():
        norm.weight.copy_((1 + norm.weight) / EMBEDDING - 1)
        # Rows that no token has are never the likeliest.
        model.get_input_embeddings().weight[TOKENIZER_SIZE:] = 0
        if peer.is_untied:
            head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(seed))
            model.lm_head.weight = torch.nn.Parameter(head * std)
            model.lm_head.weight[TOKENIZER_SIZE:] = 0
        for parameter in model.parameters():
            parameter.copy_(parameter.to(peer.dtype))
    return model


def name_in_file(peer: Peer, name: str) -> str:
    """`name` is that of the model in memory, which is how transformers >= 4.52 calls it but for the tower."""
    if peer.layout == "text":
        return name
    hub = tiny.hub_name(name)
    match peer.layout:
        case "hub":
            return hub
        case "transformers_4_52":
            return name.replace("model.vision_tower.", "model.vision_tower.vision_model.", 1)
        case "transformers_5":
            return hub.replace("vision_tower.vision_model.", "vision_tower.")
    raise ValueError(peer.layout)


def config_json(peer: Peer, model: torch.nn.Module) -> dict:
    dtype = str(peer.dtype).removeprefix("torch.")
    is_multimodal = isinstance(model, Gemma3ForConditionalGeneration)
    match peer.dialect:
        case "v5":
            model.config.dtype = peer.dtype
            return model.config.to_diff_dict() if not is_multimodal else json.loads(model.config.to_json_string())
        case "hub" if is_multimodal:
            return tiny.hub_config(model.config, dtype)
        case "hub":
            return models.text_only_config(model.config, dtype)
        case "first":
            written = tiny.hub_config(model.config, dtype)
            kept = ["hidden_size", "intermediate_size", "model_type", "num_hidden_layers", "rope_scaling", "sliding_window"]
            written["text_config"] = {name: written["text_config"][name] for name in kept}
            return written
    raise ValueError(peer.dialect)


def write(folder: Path, peer: Peer, model: torch.nn.Module, tokenizer_folder: Path) -> None:
    """The model's folder, tokenizer and all."""
    folder.mkdir(parents=True)
    for file in sorted(tokenizer_folder.iterdir()):
        (folder / file.name).symlink_to(file.resolve())
    parameters = dict(model.named_parameters())
    if peer.is_untied:
        parameters["lm_head.weight"] = model.lm_head.weight
    else:
        parameters.pop("lm_head.weight", None)
    tensors = {name_in_file(peer, name): p.detach().to(peer.dtype).contiguous() for name, p in parameters.items()}
    names = list(tensors)
    if peer.num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
        for i in range(peer.num_shards):
            file = f"model-{i + 1:05}-of-{peer.num_shards:05}.safetensors"
            part = names[i :: peer.num_shards]
            save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
            index["weight_map"] |= {name: file for name in part}
        tiny.write_json(folder / "model.safetensors.index.json", index)
    tiny.write_json(folder / "config.json", config_json(peer, model))
    generation = {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106], "pad_token_id": 0, "top_k": 64, "top_p": 0.95}
    tiny.write_json(folder / "generation_config.json", generation)
    if peer.has_images:
        tiny.write_json(folder / "preprocessor_config.json", tiny.preprocessor_config(896, NUM_IMAGE_TOKENS))
        processor = {"image_seq_length": NUM_IMAGE_TOKENS, "processor_class": "Gemma3Processor"}
        tiny.write_json(folder / "processor_config.json", processor)
