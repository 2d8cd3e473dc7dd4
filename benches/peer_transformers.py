"""The same work by transformers: prefill and decode of a gemma-3-270m-shaped model with random weights, in float32.

    python benches/peer_transformers.py DIR        # writes the checkpoint to DIR once, then measures

Needs torch and transformers. Decode is `generate` with its cache, greedy, `sdpa` attention: what a user gets by default.
"""

import sys
import time
from pathlib import Path
from statistics import median

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

CONFIG = Gemma3TextConfig(
    vocab_size=262144,
    hidden_size=640,
    intermediate_size=2048,
    num_hidden_layers=18,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=256,
    query_pre_attn_scalar=256,
    sliding_window=512,
    max_position_embeddings=32768,
)


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    folder = Path(sys.argv[1])
    if not (folder / "config.json").exists():
        torch.manual_seed(1)
        Gemma3ForCausalLM(CONFIG).save_pretrained(folder)
    model = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generate = dict(do_sample=False, eos_token_id=None, pad_token_id=0)

    @torch.no_grad()
    def measure(batch: int, prompt: int, new: int) -> float:
        ids = torch.randint(5, 500, (batch, prompt))
        return timed(lambda: model.generate(ids, min_new_tokens=new, max_new_tokens=new, **generate))

    measure(1, 16, 2)
    prefill = median(measure(1, 512, 1) for _ in range(3))
    print(f"prefill, prompt of 512   {512 / prefill:8.1f} tok/s")
    for batch in (1, 8, 16):
        # The prompt's share is taken out by a run that stops after one token.
        rates = []
        for _ in range(3):
            short, long = measure(batch, 16, 1), measure(batch, 16, 33)
            rates.append(32 * batch / (long - short))
        print(f"decode, batch {batch:<2}         {median(rates):8.1f} tok/s")


if __name__ == "__main__":
    main()
