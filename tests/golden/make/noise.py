"""A model for whom every word is as good as another: Gemma 3 in every respect but size, and its words are noise."""

from pathlib import Path

import torch

from . import tiny, tokenizer

SEED = 20250520


def build() -> torch.nn.Module:
    config = tiny.multimodal_config(
        text={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        vision={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 896,
            "patch_size": 56,
        },
        mm_tokens_per_image=256,
    )
    model = tiny.build(config, SEED)
    # Quiet what would not print as text: bytes, markup, unused rows. The noise is then made of syllables.
    tokens, _ = tokenizer.vocabulary()
    quiet = [i for i, token in enumerate(tokens) if token.startswith("<") and len(token) > 1]
    quiet += range(len(tokens), tokenizer.EMBEDDING_ROWS)
    with torch.no_grad():
        model.get_input_embeddings().weight[quiet] *= 0.05
        model.get_input_embeddings().weight[tokenizer.ids()["<end_of_turn>"]] *= 20
    return model


def write(folder: Path) -> None:
    """Writes a model folder in the hub's layout, bf16."""
    model = build()
    tokenizer.write(folder)
    tiny.write_weights(folder / "model.safetensors", model, torch.bfloat16)
    tiny.write_json(folder / "config.json", tiny.hub_config(model.config, "bfloat16"))
    tiny.write_json(folder / "generation_config.json", tiny.generation_config(tokenizer.ids()))
    tiny.write_json(folder / "preprocessor_config.json", tiny.preprocessor_config(896, 256))
    tiny.write_json(folder / "processor_config.json", {"image_seq_length": 256, "processor_class": "Gemma3Processor"})
