"""Rewrites everything under tests/golden/ that a test compares with. Run by hand, from anywhere:

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 tokenizers==0.23.3 \
        safetensors==0.8.0 numpy==2.4.6 pillow==13.0.0 blake3==1.0.11
    MEDGEMMA_TOKENIZER_DIR=... python tests/golden/generate.py
    python tests/golden/generate.py sensitivity
    python tests/golden/generate.py long

The first rewrites, the second breaks one detail of the reference after another and prints how far each moves the numbers.
The third rewrites numbers/long.json, which takes some minutes.
The folder is that of the real Gemma 3 tokenizer; without it the real tokenizer's ids stay as they were.

What there is, and how closely a test may compare:

tokenizer/             the tiny tokenizer, shared by all models here. Ids: equal.
templates/             conversations: rendered text and ids (see make/templates.py). Equal.
configs/               configs in every dialect, `expected.json` with what each means. Equal.
models/NAME/           tiny models as a loader meets them: `multimodal` (float32), `text27b`, `text1b` (both bfloat16).
models/noise/          a model that the real one's clients can be tried with (bfloat16). Its tokenizer is its own copy.
models/layouts.json    layout → the name in models/multimodal/model.safetensors → the name there.
models/untied_head.safetensors   one more tensor for the multimodal model.
numbers/NAME.json      prompts, ids, greedy tokens; numbers/NAME.safetensors: `CASE.embedding`, `CASE.layer.N`, `CASE.norm`
                       at the tokens named in `positions`, `CASE.logits` of the last three tokens, `vision.PICTURE.STAGE`.
                       float32 against float32, so what differs is the order of sums. Logits and log-probabilities within
                       1e-4 (float64 moves them by 2e-5), hidden states and vision stages, which are larger, within 5e-4
                       (float64: 9e-5), tokens equal (the greedy one leads by 1e-3 at least).
numbers/long.json      log-probabilities of every token after a prompt of 100,000. Within 2e-3: sums of 100,000 terms.
images/                image files; `expected.json` has BLAKE3 of the RGB levels (height, width, 3) after decoding and after
                       resizing to 32 and to 896; `expected.safetensors` the levels at 32 (`FILE.32`), every 64th at 896
                       (`FILE.896.grid`), those of lossy files before resizing (`FILE.decoded`), and the 256 levels as the
                       model gets them (`normalised`). Equal; of lossy files what the decoder leaves, which is its own test.
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoTokenizer

from make import configs, images, long, models, noise, numbers, sensitivity, templates, tiny, tokenizer

HERE = Path(__file__).parent
PINNED = {"torch": "2.15.0", "transformers": "5.23.0", "tokenizers": "0.23.3", "pillow": "13.0.0", "torchvision": "0.29.2"}


def main() -> None:
    for package, pinned in PINNED.items():
        assert version(package).split("+")[0] == pinned, f"{package} is {version(package)}, not {pinned}"
    torch.set_num_threads(1)
    if sys.argv[1:] == ["sensitivity"]:
        sensitivity.show(HERE)
        return
    if sys.argv[1:] == ["long"]:
        long.write(HERE / "numbers", HERE / "models")
        return
    assert not sys.argv[1:], "unknown argument"
    tokenizer.write(HERE / "tokenizer")
    noise.write(HERE / "models" / "noise")
    shared = AutoTokenizer.from_pretrained(HERE / "tokenizer")
    templates.write(HERE / "templates", shared)
    configs.write(HERE / "configs")
    images.write(HERE / "images")
    for spec in models.ALL:
        models.write(HERE / "models" / spec.name, spec)
    models.write_untied_head(HERE / "models" / "untied_head.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        tiny.write_json(HERE / "models" / "layouts.json", models.layouts(Path(scratch)))
    numbers.write(HERE / "numbers", HERE / "models", shared, HERE / "images")


if __name__ == "__main__":
    main()
