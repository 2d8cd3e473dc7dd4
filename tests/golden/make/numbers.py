"""What transformers computes with the tiny models: every stage of a prompt, logits, and 24 greedy tokens.

All in float32 with `attn_implementation="eager"`, loaded from the committed files. The greedy tokens come from whole prompts
recomputed at every step, without a cache; a run with transformers' cache must give the same.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from transformers import Gemma3ImageProcessor, Gemma3Processor, PreTrainedTokenizerBase

from . import models, tiny

NUM_GREEDY = 24
MAX_POSITIONS = 64
MIN_GAP = 1e-3
"""Between the greedy token and the next: far above what rounding can turn around."""

HISTORY = (
    "The patient is a man of 64 years with a cough, fever and shortness of breath for three days. Blood pressure was 132/84 "
    "mmHg, heart rate 78 beats per minute, temperature 37.2 degrees."
)


def image(name: str) -> dict:
    return {"type": "image", "image": name}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    messages: list[dict]
    pictures: list[str] = field(default_factory=list)


TEXT_CASES = [
    Case("text", [{"role": "user", "content": f"{HISTORY} What is the most likely diagnosis?"}]),
    Case(
        "long_chat",
        [
            {"role": "system", "content": "You are a helpful medical assistant.\nThink first."},
            {"role": "user", "content": f"{HISTORY}\n\nWhich of the following is the best next step? A) X-ray B) surgery"},
            {"role": "assistant", "content": "The answer is (A), because the symptoms are those of an infection. 肺炎 😀"},
            {"role": "user", "content": f"Findings: {HISTORY} The lungs are clear otherwise. {HISTORY} Explain!"},
        ],
    ),
]
IMAGE_CASES = [
    Case(
        "image_first",
        [{"role": "user", "content": [image("scan_a.png"), text("Describe the image and list the findings.")]}],
        ["scan_a.png"],
    ),
    Case(
        "two_images",
        [
            {
                "role": "user",
                "content": [
                    text("Here is the first image of the chest, three days before:"),
                    image("scan_a.png"),
                    text("and this is the second, of today. What is new in it?"),
                    image("scan_b.png"),
                    text(f"{HISTORY} Answer in one word."),
                ],
            }
        ],
        ["scan_a.png", "scan_b.png"],
    ),
    Case(
        "images_last",
        [{"role": "user", "content": [text("Compare:"), image("scan_b.png"), image("scan_a.png")]}],
        ["scan_b.png", "scan_a.png"],
    ),
    Case(
        "long_chat_with_image",
        [
            {"role": "system", "content": [text("You are an expert radiologist.")]},
            {"role": "user", "content": [text(HISTORY), image("scan_b.png"), text("Is there any sign of pneumonia?")]},
            {"role": "assistant", "content": "There is no pneumothorax. The heart is of normal size."},
            {"role": "user", "content": [text(f"And now? {HISTORY} {HISTORY}")]},
        ],
        ["scan_b.png"],
    ),
]


def cases(spec: models.TinyModel) -> list[Case]:
    return TEXT_CASES if spec.vision is None else TEXT_CASES + IMAGE_CASES


def processor(tokenizer: PreTrainedTokenizerBase, image_size: int, image_seq_length: int) -> Gemma3Processor:
    """As AutoProcessor makes it from a checkpoint's folder, the chat template taken from the tokenizer."""
    settings = tiny.preprocessor_config(image_size, image_seq_length)
    settings = {k: v for k, v in settings.items() if k not in ("processor_class", "image_processor_type", "image_seq_length")}
    return Gemma3Processor(
        Gemma3ImageProcessor(**settings), tokenizer, chat_template=tokenizer.chat_template, image_seq_length=image_seq_length
    )


@dataclass
class Prompt:
    rendered: str
    """What the template wrote, before placeholders are expanded."""
    inputs: dict
    """input_ids, attention_mask and, with pictures, token_type_ids and pixel_values."""

    @property
    def ids(self) -> list[int]:
        return self.inputs["input_ids"][0].tolist()


def prompt(proc: Gemma3Processor, case: Case, images: Path) -> Prompt:
    rendered = proc.apply_chat_template(case.messages, tokenize=False, add_generation_prompt=True)
    pictures = [Image.open(images / name) for name in case.pictures] or None
    inputs = proc(text=rendered, images=pictures, add_special_tokens=False, return_tensors="pt")
    inputs.pop("num_crops", None)
    return Prompt(rendered, dict(inputs))


@torch.no_grad()
def stages(model: torch.nn.Module, inputs: dict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Hidden states (tokens, hidden) by stage and logits (tokens, vocabulary); and the two masks that attention was given."""
    decoder = model.model.language_model if hasattr(model.model, "language_model") else model.model
    seen, masks, hooks = {}, {}, []
    hooks.append(decoder.layers[0].register_forward_pre_hook(lambda _, args: seen.update(embedding=args[0][0])))
    for i, layer in enumerate(decoder.layers):
        hooks.append(layer.register_forward_hook(lambda _, args, out, i=i: seen.update({f"layer.{i}": out[0]})))

        def keep_mask(module, args, kwargs):
            masks[module.layer_type] = kwargs["attention_mask"][0, 0]

        hooks.append(layer.self_attn.register_forward_pre_hook(keep_mask, with_kwargs=True))
    hooks.append(decoder.norm.register_forward_hook(lambda _, args, out: seen.update(norm=out[0])))
    seen["logits"] = model(**inputs, use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return seen, masks


def expected_masks(ids: list[int], image_token: int, window: int) -> dict[str, torch.Tensor]:
    """The masks in words of their own: (tokens, tokens), true where a query (row) sees a key (column)."""
    block, blocks = -1, []
    for i, token in enumerate(ids):
        if token == image_token and (i == 0 or ids[i - 1] != image_token):
            block += 1
        blocks.append(block if token == image_token else None)
    full = torch.tensor(
        [[k <= q or (blocks[q] is not None and blocks[q] == blocks[k]) for k in range(len(ids))] for q in range(len(ids))]
    )
    q, k = torch.arange(len(ids))[:, None], torch.arange(len(ids))[None, :]
    return {"full_attention": full, "sliding_attention": full & (k > q - window)}


def check_masks(masks: dict[str, torch.Tensor], ids: list[int], image_token: int, window: int) -> int:
    """Fails unless the reference's masks are those; returns how many pairs look ahead in them."""
    for kind, expected in expected_masks(ids, image_token, window).items():
        assert torch.equal(masks[kind] == 0, expected), f"{kind} is not masked as thought"
    return int(torch.triu(masks["full_attention"] == 0, 1).sum())


@torch.no_grad()
def vision_stages(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """One picture's (patches, vision hidden) by stage, and the projector's (image tokens, text hidden)."""
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    seen = {}
    hooks = [tower.embeddings.register_forward_hook(lambda _, args, out: seen.update(embedding=out[0]))]
    for i, layer in enumerate(tower.encoder.layers):
        hooks.append(layer.register_forward_hook(lambda _, args, out, i=i: seen.update({f"layer.{i}": out[0]})))
    hooks.append(tower.post_layernorm.register_forward_hook(lambda _, args, out: seen.update(post_layernorm=out[0])))
    hooks.append(projector.register_forward_hook(lambda _, args, out: seen.update(projector=out[0])))
    model.model.get_image_features(pixel_values=pixel_values)
    for hook in hooks:
        hook.remove()
    return seen


@dataclass
class Step:
    token: int
    logprob: float
    top: list[tuple[int, float]]
    """The five likeliest, best first."""

    @property
    def gap(self) -> float:
        return self.top[0][1] - self.top[1][1]


def step(logits: torch.Tensor) -> Step:
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    values, ids = logprobs.topk(5)
    top = list(zip(ids.tolist(), values.tolist()))
    return Step(top[0][0], top[0][1], top)


@torch.no_grad()
def greedy(model: torch.nn.Module, inputs: dict, count: int) -> list[Step]:
    """`count` tokens, end of turn or not, each from the whole sequence afresh."""
    inputs, steps = dict(inputs), []
    for _ in range(count):
        steps.append(step(model(**inputs, use_cache=False).logits[0, -1]))
        one = torch.ones((1, 1), dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], one * steps[-1].token], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], one], dim=1)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] = torch.cat([inputs["token_type_ids"], one * 0], dim=1)
    return steps


@torch.no_grad()
def greedy_cached(model: torch.nn.Module, inputs: dict, count: int) -> list[Step]:
    """The same as transformers' generate does it."""
    out = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=count,
        min_new_tokens=count,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return [step(logits[0]) for logits in out.logits]


def positions(num_tokens: int) -> list[int]:
    """Which tokens' hidden states are kept: all, or an even sample with the last eight."""
    if num_tokens <= MAX_POSITIONS:
        return list(range(num_tokens))
    even = np.linspace(0, num_tokens - 9, MAX_POSITIONS - 8).round().astype(int).tolist()
    return even + list(range(num_tokens - 8, num_tokens))


def step_json(s: Step) -> dict:
    return {"token": s.token, "logprob": round(s.logprob, 7), "top": [[i, round(v, 7)] for i, v in s.top]}


def run(model: torch.nn.Module, spec: models.TinyModel, tokenizer: PreTrainedTokenizerBase, images: Path):
    """Everything about one model: a JSON value and tensors by name."""
    image_size = 896 if spec.vision is None else spec.vision["image_size"]
    proc = processor(tokenizer, image_size, spec.mm_tokens_per_image)
    listing, tensors = {}, {}
    for case in cases(spec):
        made = prompt(proc, case, images)
        inputs = dict(made.inputs)
        if spec.vision is None:
            inputs.pop("token_type_ids", None)
        seen, masks = stages(model, inputs)
        ahead = check_masks(masks, made.ids, tokenizer.image_token_id, spec.text["sliding_window"])
        steps = greedy(model, inputs, NUM_GREEDY)
        cached = greedy_cached(model, inputs, NUM_GREEDY)
        assert [s.token for s in steps] == [s.token for s in cached], case.name
        drift = max(abs(a.logprob - b.logprob) for a, b in zip(steps, cached))
        gap = min(s.gap for s in steps)
        kinds = len({s.token for s in steps})
        print(
            f"{spec.name:11} {case.name:21} {len(made.ids):4} tokens, {ahead:4} pairs look ahead, least gap {gap:.4f}, "
            f"cached run differs by {drift:.1e}, {kinds} different tokens, logit std {seen['logits'][-1].std():.2f}"
        )
        assert gap > MIN_GAP, "choose another seed"
        kept = positions(len(made.ids))
        for name, tensor in seen.items():
            rows = tensor[-3:] if name == "logits" else tensor[kept]
            tensors[f"{case.name}.{name}"] = rows.contiguous()
        listing[case.name] = {
            "messages": case.messages,
            "images": case.pictures,
            "rendered": made.rendered,
            "ids": made.ids,
            "positions": kept,
            "greedy": [step_json(s) for s in steps],
        }
    return listing, tensors


def vision(model: torch.nn.Module, proc: Gemma3Processor, images: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """Of the first picture every stage and the pixels (uint8, HWC); of the others the projector's output."""
    tensors = {}
    for i, name in enumerate(names):
        stem = name.removesuffix(".png")
        pixel_values = proc.image_processor(Image.open(images / name), do_convert_rgb=True, return_tensors="pt")["pixel_values"]
        seen = vision_stages(model, pixel_values)
        if i > 0:
            seen = {"projector": seen["projector"]}
        else:
            levels = (pixel_values[0] * 127.5 + 127.5).round().to(torch.uint8)
            seen["pixels"] = levels.permute(1, 2, 0)
        tensors |= {f"vision.{stem}.{stage}": tensor.contiguous() for stage, tensor in seen.items()}
    return tensors


def write(folder: Path, models_folder: Path, tokenizer: PreTrainedTokenizerBase, images: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for spec in models.ALL:
        model = models.load(models_folder / spec.name)
        listing, tensors = run(model, spec, tokenizer, images)
        if spec.vision is not None:
            proc = processor(tokenizer, spec.vision["image_size"], spec.mm_tokens_per_image)
            tensors |= vision(model, proc, images, ["scan_a.png", "scan_b.png"])
            listing["untied_head"] = untied(model, proc, images)
        tiny.write_json(folder / f"{spec.name}.json", listing)
        (folder / f"{spec.name}.safetensors").write_bytes(save(tensors))


def untied(model: torch.nn.Module, proc: Gemma3Processor, images: Path) -> dict:
    """The greedy tokens of one case with a head of its own."""
    case = IMAGE_CASES[0]
    made = prompt(proc, case, images)
    tied = model.lm_head.weight
    model.lm_head.weight = torch.nn.Parameter(models.untied_head())
    steps = greedy(model, made.inputs, NUM_GREEDY)
    model.lm_head.weight = tied
    gap = min(s.gap for s in steps)
    print(f"untied head: least gap {gap:.4f}")
    assert gap > MIN_GAP
    return {"case": case.name, "greedy": [step_json(s) for s in steps]}
