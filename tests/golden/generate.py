"""Rewrites everything under tests/golden/ that a test compares with, and the demo model. Run by hand.

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 tokenizers==0.23.3 \
        safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0
    python tests/golden/generate.py
"""

from pathlib import Path

import torch

from make import demo, tokenizer

HERE = Path(__file__).parent


def main() -> None:
    torch.set_num_threads(1)
    tokenizer.write(HERE / "tokenizer")
    demo.write(HERE.parents[1] / "src" / "registry" / "demo")


if __name__ == "__main__":
    main()
