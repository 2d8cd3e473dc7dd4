"""How far each detail moves the numbers, broken alone in the reference itself.

A test that compares within TOLERANCE can only catch what stands far above it here. The first line is the other side: how far
the numbers move when nothing is broken and all is computed in float64. A break that no picture of a case can show (BGR of a
grey one) moves nothing there: the largest over the cases counts.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from transformers.activations import ACT2FN

from . import models, numbers

TOLERANCE = 1e-4
Break = Callable[[torch.nn.Module, dict], None]


def text_model(model: torch.nn.Module) -> torch.nn.Module:
    return model.model.language_model if hasattr(model.model, "language_model") else model.model


def rope(kind: str, factor: torch.Tensor | float) -> Break:
    def apply(model: torch.nn.Module, _: dict) -> None:
        getattr(text_model(model).rotary_emb, f"{kind}_inv_freq").mul_(factor)

    return apply


def rope_base(kind: str, old: float, new: float) -> Break:
    def apply(model: torch.nn.Module, _: dict) -> None:
        frequencies = getattr(text_model(model).rotary_emb, f"{kind}_inv_freq")
        exponents = torch.arange(len(frequencies)) / len(frequencies)
        frequencies.mul_((old / new) ** exponents)

    return apply


def window(change: int) -> Break:
    def apply(model: torch.nn.Module, _: dict) -> None:
        text_model(model).config.sliding_window += change

    return apply


def scale_by_head_dim(model: torch.nn.Module, _: dict) -> None:
    for layer in text_model(model).layers:
        layer.self_attn.scaling = layer.self_attn.head_dim**-0.5


def drop_one(part: str) -> Break:
    def apply(model: torch.nn.Module, _: dict) -> None:
        for name, module in model.named_modules():
            if "RMSNorm" in type(module).__name__ and name.endswith(part):
                module.weight.sub_(1)

    return apply


def exact_gelu(model: torch.nn.Module, _: dict) -> None:
    for layer in text_model(model).layers:
        layer.mlp.act_fn = ACT2FN["gelu"]


def exact_gelu_vision(model: torch.nn.Module, _: dict) -> None:
    for layer in model.model.vision_tower.encoder.layers:
        layer.mlp.activation_fn = ACT2FN["gelu"]


def epsilon(model: torch.nn.Module, _: dict) -> None:
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            module.eps = 1e-5


def epsilon_vision(model: torch.nn.Module, _: dict) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


def rounded_embedding_factor(model: torch.nn.Module, _: dict) -> None:
    factor = text_model(model).embed_tokens.embed_scale
    factor.copy_(factor.bfloat16().float())


def no_image_mask(_: torch.nn.Module, inputs: dict) -> None:
    inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])


def one_image_block(_: torch.nn.Module, inputs: dict) -> None:
    """From the first image token to the last."""
    kinds = inputs["token_type_ids"][0]
    first, last = kinds.nonzero()[0].item(), kinds.nonzero()[-1].item()
    kinds[first : last + 1] = 1


def pixel_level(model: torch.nn.Module, inputs: dict) -> None:
    inputs["pixel_values"] = inputs["pixel_values"] + 1 / 127.5


def scaled_image_features(model: torch.nn.Module, _: dict) -> None:
    model.model.multi_modal_projector.mm_input_projection_weight.mul_(text_model(model).config.hidden_size ** 0.5)


def swapped_images(_: torch.nn.Module, inputs: dict) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].flip(0)


def transposed_patches(_: torch.nn.Module, inputs: dict) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].transpose(2, 3)


def swapped_channels(_: torch.nn.Module, inputs: dict) -> None:
    inputs["pixel_values"] = inputs["pixel_values"].flip(1)


EVERYWHERE: dict[str, Break] = {
    "RoPE factor on sliding layers too": rope("sliding_attention", 1 / 8),
    "local base 1e4 -> 1e6": rope_base("sliding_attention", 1e4, 1e6),
    "global base 1e6 -> 1e4": rope_base("full_attention", 1e6, 1e4),
    "window - 1": window(-1),
    "window + 1": window(+1),
    "norm + 1: input_layernorm": drop_one("input_layernorm"),
    "norm + 1: post_attention_layernorm": drop_one("post_attention_layernorm"),
    "norm + 1: pre_feedforward_layernorm": drop_one("pre_feedforward_layernorm"),
    "norm + 1: post_feedforward_layernorm": drop_one("post_feedforward_layernorm"),
    "norm + 1: q_norm": drop_one("q_norm"),
    "norm + 1: k_norm": drop_one("k_norm"),
    "norm + 1: final": drop_one("l.norm"),
    "exact GELU": exact_gelu,
    "RMS epsilon 1e-6 -> 1e-5": epsilon,
    "embedding factor rounded to bf16": rounded_embedding_factor,
}
SCALED = {"RoPE factor 8 -> 1": rope("full_attention", 8)}
ODD_SCALE = {"query scale from head_dim": scale_by_head_dim}
IMAGES = {
    "no image mask": no_image_mask,
    "pixel offset by one level": pixel_level,
    "image features scaled": scaled_image_features,
    "rows and columns of pixels swapped": transposed_patches,
    "channels in BGR": swapped_channels,
    "exact GELU in the tower": exact_gelu_vision,
    "layer-norm epsilon 1e-6 -> 1e-5": epsilon_vision,
    "norm + 1: mm_soft_emb_norm": drop_one("mm_soft_emb_norm"),
}
TWO_IMAGES = {"images in one block": one_image_block, "images swapped": swapped_images}


def breaks(spec: models.TinyModel) -> dict[str, Break]:
    found = dict(EVERYWHERE)
    if "rope_scaling" in spec.text:
        found |= SCALED
    if spec.text["query_pre_attn_scalar"] != spec.text["head_dim"]:
        found |= ODD_SCALE
    if spec.vision is not None:
        found |= IMAGES | TWO_IMAGES
    return found


def applies(name: str, case: numbers.Case) -> bool:
    return len(case.pictures) >= (2 if name in TWO_IMAGES else 1 if name in IMAGES else 0)


def moved(model: torch.nn.Module, inputs: dict, case: numbers.Case, golden: dict) -> tuple[float, float]:
    """The largest differences from the committed hidden states and logits."""
    seen, _ = numbers.stages(model, inputs)
    kept = numbers.positions(inputs["input_ids"].shape[1])
    hidden, logits = 0.0, 0.0
    for stage, tensor in seen.items():
        expected = golden[f"{case.name}.{stage}"]
        rows = tensor[-3:] if stage == "logits" else tensor[kept]
        difference = (rows.double() - expected).abs().max().item()
        if stage == "logits":
            logits = difference
        else:
            hidden = max(hidden, difference)
    return hidden, logits


def double(model: torch.nn.Module, inputs: dict) -> None:
    model.double()
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].double()


@torch.no_grad()
def show(golden_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(golden_folder / "tokenizer")
    for spec in models.ALL:
        golden = load_file(golden_folder / "numbers" / f"{spec.name}.safetensors")
        size = 896 if spec.vision is None else spec.vision["image_size"]
        proc = numbers.processor(tokenizer, size, spec.mm_tokens_per_image)
        prompts = {case: numbers.prompt(proc, case, golden_folder / "images").inputs for case in numbers.cases(spec)}
        print(f"\n{spec.name}: largest move of a kept hidden state, of a logit (over cases; least over cases)")
        for name, apply in {"(float64)": double, **breaks(spec)}.items():
            results = []
            for case, inputs in prompts.items():
                if applies(name, case):
                    model = models.load(golden_folder / "models" / spec.name)
                    broken = {key: value.clone() for key, value in inputs.items()}
                    if spec.vision is None:
                        broken.pop("token_type_ids", None)
                    apply(model, broken)
                    results.append(moved(model, broken, case, golden))
            hidden, logits = (max(column) for column in zip(*results))
            least_hidden, least_logits = (min(column) for column in zip(*results))
            print(
                f"  {name:40} hidden {hidden:.1e} ({least_hidden:.1e})  logits {logits:.1e} ({least_logits:.1e})"
                f"  = {logits / TOLERANCE:8.0f} tolerances"
            )
