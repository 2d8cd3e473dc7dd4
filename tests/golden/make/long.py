"""The last log-probabilities of a prompt of 100,000 tokens, by transformers with sdpa, read in chunks through its cache."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from . import tiny

NUM_TOKENS = 100_000
CHUNK = 1_000
"""Tokens read at a time, so that a mask stays small."""
FIRST_WORD, NUM_WORDS = 20, 700


def prompt() -> list[int]:
    """Words in no order, by a multiplication that any language can repeat."""
    return [FIRST_WORD + (idx * 2_654_435_761 % 2**32 >> 16) % NUM_WORDS for idx in range(NUM_TOKENS)]


def write(folder: Path, models: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models / "text1b", dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.tensor([prompt()])
    cache = None
    with torch.no_grad():
        for start in range(0, NUM_TOKENS, CHUNK):
            out = model(ids[:, start : start + CHUNK], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
    logprobs = out.logits[0, -1].double().log_softmax(-1)
    tiny.write_json(
        folder / "long.json",
        {
            "model": "text1b",
            "num_tokens": NUM_TOKENS,
            "first_word": FIRST_WORD,
            "num_words": NUM_WORDS,
            "logprobs": [round(value, 6) for value in logprobs.tolist()],
        },
    )
