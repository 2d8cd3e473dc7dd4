"""The demo's network: a Gemma 3 with a SigLIP tower, tiny, and the folded form that it is trained in.

    written:  896 × 896 pixels, patches of 56 × 56, so 16 × 16 patches and as many image tokens
    trained:  128 × 128 means of 7 × 7 pixels, patches of 8 × 8; every other tensor is the same

A patch embedding that is constant on each 7 × 7 pixels, a 49th of the folded one, computes the same from the pixels.
"""

from pathlib import Path

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from make import tiny, tokenizer

from . import pixels
from .words import words

NUM_IMAGE_TOKENS = 256
PATCH = 56
TEXT = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 1024,
    "max_position_embeddings": 8192,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}


def config(image_size: int) -> Gemma3Config:
    ids = tokenizer.ids(words())
    made = Gemma3Config(
        text_config={"vocab_size": words().size + tokenizer.EXTRA_ROWS} | TEXT,
        vision_config={
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
            "image_size": image_size,
            "patch_size": PATCH * image_size // pixels.SIDE,
        }
        | VISION,
        mm_tokens_per_image=NUM_IMAGE_TOKENS,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids[tokenizer.IMAGE_TOKEN],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        bos_token_id=ids["<bos>"],
        pad_token_id=ids["<pad>"],
    )
    made._attn_implementation = "sdpa"
    return made


def folded() -> Gemma3ForConditionalGeneration:
    """What is trained, with fresh weights from torch's generator."""
    model = Gemma3ForConditionalGeneration(config(pixels.POOLED_SIDE))
    with torch.no_grad():
        projector = model.model.multi_modal_projector
        projector.mm_input_projection_weight.normal_(std=projector.mm_input_projection_weight.shape[0] ** -0.5)
        model.get_input_embeddings().weight.normal_(std=0.05)
    return model


def unfolded(model: Gemma3ForConditionalGeneration) -> Gemma3ForConditionalGeneration:
    """The same network as it is written: it takes 896 × 896 pixels."""
    state = model.state_dict()
    name = next(name for name in state if name.endswith("patch_embedding.weight"))
    state[name] = state[name].repeat_interleave(pixels.POOL, 2).repeat_interleave(pixels.POOL, 3) / pixels.POOL**2
    whole = Gemma3ForConditionalGeneration(config(pixels.SIDE)).eval()
    whole.load_state_dict(state)
    return whole


def write(folder: Path, model: Gemma3ForConditionalGeneration) -> None:
    """Writes a folder in the hub's layout, bf16."""
    whole = unfolded(model)
    ids = tokenizer.ids(words())
    tokenizer.write(folder, words())
    tiny.write_weights(folder / "model.safetensors", whole, torch.bfloat16)
    tiny.write_json(folder / "config.json", tiny.hub_config(whole.config, "bfloat16"))
    tiny.write_json(folder / "generation_config.json", tiny.generation_config(ids))
    tiny.write_json(folder / "preprocessor_config.json", tiny.preprocessor_config(pixels.SIDE, NUM_IMAGE_TOKENS))
    processor = {"image_seq_length": NUM_IMAGE_TOKENS, "processor_class": "Gemma3Processor"}
    tiny.write_json(folder / "processor_config.json", processor)
