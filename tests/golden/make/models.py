"""The tiny models that the numbers come from, and the files that a loader meets."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig

from . import tiny, tokenizer

SCALING = {"rope_type": "linear", "factor": 8.0}


@dataclass(frozen=True)
class TinyModel:
    name: str
    seed: int
    dtype: torch.dtype
    """Of the file; numbers are computed in float32."""
    text: dict
    vision: dict | None = None
    mm_tokens_per_image: int = 16

    def config(self):
        if self.vision is not None:
            return tiny.multimodal_config(self.text, self.vision, self.mm_tokens_per_image)
        ids = tokenizer.ids()
        return Gemma3TextConfig(
            vocab_size=tokenizer.VOCAB_SIZE,
            max_position_embeddings=8192,
            eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
            **self.text,
        )


MULTIMODAL = TinyModel(
    name="multimodal",
    seed=1,
    dtype=torch.float32,
    text={
        "hidden_size": 48,  # its root is no power of two, so a rounded embedding factor shows
        "intermediate_size": 96,
        "num_hidden_layers": 8,  # layer 6 is global, 7 and 8 slide again
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 24,
        "rope_scaling": SCALING,
    },
    vision={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 112,  # 16 x 16 patches, pooled 4 x 4, make 4 x 4 tokens
        "patch_size": 7,
    },
)
TEXT_27B = TinyModel(
    name="text27b",
    seed=2,
    dtype=torch.bfloat16,
    text={
        "hidden_size": 80,
        "intermediate_size": 128,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 20,  # hidden / heads, as in the 27B, and not head_dim
        "sliding_window": 24,
        "rope_scaling": SCALING,
    },
)
TEXT_1B = TinyModel(
    name="text1b",
    seed=1,
    dtype=torch.bfloat16,
    text={
        "hidden_size": 40,
        "intermediate_size": 80,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 16,
        # no RoPE factor
    },
)
ALL = [MULTIMODAL, TEXT_27B, TEXT_1B]


def text_only_config(config: Gemma3TextConfig, dtype: str) -> dict:
    """config.json in the words of the hub's medgemma-27b-text-it: the text fields at the top level."""
    return tiny.hub_text_config(config) | {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "model_type": "gemma3_text",
        "pad_token_id": config.pad_token_id,
        "torch_dtype": dtype,
        "use_cache": True,
    }


def write(folder: Path, spec: TinyModel) -> None:
    """A model folder in the hub's layout, without the tokenizer, which all share."""
    model = tiny.build(spec.config(), spec.seed)
    dtype = str(spec.dtype).removeprefix("torch.")
    tiny.write_weights(folder / "model.safetensors", model, spec.dtype)
    if spec.vision is None:
        tiny.write_json(folder / "config.json", text_only_config(model.config, dtype))
    else:
        tiny.write_json(folder / "config.json", tiny.hub_config(model.config, dtype))
        tiny.write_json(folder / "preprocessor_config.json", tiny.preprocessor_config(112, 16))
        tiny.write_json(folder / "processor_config.json", {"image_seq_length": 16, "processor_class": "Gemma3Processor"})
    tiny.write_json(folder / "generation_config.json", tiny.generation_config(tokenizer.ids()))


def load(folder: Path) -> torch.nn.Module:
    """What transformers makes of the folder, in float32, and nothing missing."""
    config = (folder / "config.json").read_text()
    kind = Gemma3ForConditionalGeneration if "Gemma3ForConditionalGeneration" in config else Gemma3ForCausalLM
    model, info = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def untied_head() -> torch.Tensor:
    """A head of its own for the multimodal model: (embedding rows, hidden)."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(tokenizer.EMBEDDING_ROWS, MULTIMODAL.text["hidden_size"], generator=generator) * 0.1


def write_untied_head(path: Path) -> None:
    """One tensor under the hub's name; a test adds it to the multimodal model's file."""
    path.write_bytes(save({"language_model.lm_head.weight": untied_head()}, metadata={"format": "pt"}))


def layouts(scratch: Path) -> dict:
    """For each way of naming: the name in the committed file, which is the hub's → the name there.

    Transformers 5 writes its names when it saves a model that it did not load from a hub file. Releases from 4.52 on have
    theirs in `state_dict()`, which is what trainers save; their own `save_pretrained` writes the hub's.
    """
    model = tiny.build(MULTIMODAL.config(), MULTIMODAL.seed)
    model.save_pretrained(scratch)
    with safe_open(scratch / "model.safetensors", "pt") as file:
        written = set(file.keys())
    names = [name for name, _ in model.named_parameters()]
    v452 = {
        tiny.hub_name(name): name.replace("model.vision_tower.", "model.vision_tower.vision_model.", 1) for name in names
    }
    v5 = {hub: hub.replace("vision_tower.vision_model.", "vision_tower.") for hub in v452}
    assert set(v5.values()) == written, set(v5.values()) ^ written
    head = "language_model.lm_head.weight"
    return {
        "hub": {hub: hub for hub in v452} | {head: head},
        "transformers_4_52": v452 | {head: "lm_head.weight"},
        "transformers_5": v5 | {head: head},
    }
