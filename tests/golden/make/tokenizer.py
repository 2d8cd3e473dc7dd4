"""Tiny tokenizers: Gemma 3's pipeline and special tokens over some 770 tokens, or as many as the demo has.

Everything that decides how text becomes ids is the real one's (normalizer, pre-tokenizer, byte fallback, decoder,
post-processor, which tokens are added and which of those are special); only the vocabulary is small. As in the real one,
`<image_soft_token>` is an added token that lies outside the BPE vocabulary, and the embedding has rows beyond it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
IMAGE_TOKEN = "<image_soft_token>"
VOCAB_SIZE = 768
"""The BPE vocabulary; `<image_soft_token>` is the id after it."""
EXTRA_ROWS = 64
"""As in the real one (262144 + 64): what a multimodal model's embedding holds beyond it."""
EMBEDDING_ROWS = VOCAB_SIZE + EXTRA_ROWS

NEWLINES = ["\n" * n for n in range(1, 7)]
SPACES = ["\u2581" * n for n in range(2, 7)]
TABS = ["\t", "\t\t"]
MARKUP = ["<table>", "</table>", "<b>", "</b>"]
WIDE = "°µ±²½×–—‘’“”…€éèüöñçåßαβγλ≤≥→心肺中文日本語医学生理の図が를한Яжи😀"

CORPUS = """
The patient is a man of 64 years with a cough, fever and shortness of breath for three days. The chest X-ray shows a right
lower lobe consolidation with a small pleural effusion. There is no pneumothorax. The heart is of normal size and the
mediastinal contours are within normal limits. The lungs are clear otherwise. No acute osseous abnormality is seen.
What is the most likely diagnosis? Is there any sign of pneumonia in this image? Describe the image and list the findings.
You are a helpful medical assistant. You are an expert radiologist. Please answer the question and explain the reasoning.
Findings: the lungs are well expanded; there are no focal opacities. Impression: no acute cardiopulmonary process.
The liver, spleen, pancreas, kidneys and adrenal glands are unremarkable. There is no evidence of metastatic disease.
A woman of 42 years with diabetes and hypertension was given metformin 500 mg and lisinopril 10 mg by mouth each day.
Blood pressure was 132/84 mmHg, heart rate 78 beats per minute, temperature 37.2 degrees and oxygen saturation 98%.
The biopsy of the skin lesion shows a melanoma with a depth of 1.2 mm. The tumor cells are positive for S100 and Melan-A.
In the left breast there is a mass with irregular margins; an ultrasound and a biopsy are recommended for this patient.
The fundus photograph shows microaneurysms, hemorrhages and hard exudates, consistent with diabetic retinopathy.
The electrocardiogram shows atrial fibrillation with a rapid ventricular response and no sign of myocardial infarction.
Treatment with antibiotics should be started, and the patient should be seen again in two weeks for a follow-up image.
Which of the following is the best next step in the management of this patient? A) observation B) surgery C) radiation
The answer is (B), because the symptoms and the laboratory results are those of an acute inflammation of the appendix.
Here is the original image and here are some crops to help you see better. Compare the first image with the second image.
I would think about the differential diagnosis first: infection, malignancy, autoimmune disease and a drug reaction.
This is not a substitute for professional medical advice, diagnosis or treatment. When in doubt, ask your physician.
Hello, how are you? I am fine, thank you. What can I do for you today? Tell me about the results of the examination.
"""


class Words(NamedTuple):
    """What a vocabulary is made from, and how large it gets."""

    corpus: str
    size: int


TINY = Words(CORPUS, VOCAB_SIZE)
"""The one that the models under tests/golden share."""


def _merges(corpus: str) -> Iterator[tuple[str, str]]:
    """The merges of byte-pair encoding over the corpus; ties go to the shorter pair, then to the first in order."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in corpus.split("\n\n")]
    found = [re.findall(r"( ?)([A-Za-z]+|[0-9]+|[^A-Za-z0-9 ]+)", paragraph) for paragraph in paragraphs]
    words = Counter("".join(match) for matches in found for match in matches)
    pieces = {word: list(word.replace(" ", "\u2581")) for word in words}
    while any(len(parts) > 1 for parts in pieces.values()):
        pairs = Counter()
        for word, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], len("".join(pair)), pair))
        yield best
        for parts in pieces.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                i += 1


@cache
def vocabulary(words: Words = TINY) -> tuple[list[str], list[tuple[str, str]]]:
    """The tokens in the order of their ids, and the merges."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused94>", "<unused95>", "<start_of_turn>", "<end_of_turn>"]
    tokens += NEWLINES + SPACES + TABS + MARKUP
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += ["\u2581", *(chr(c) for c in range(0x21, 0x7F)), *WIDE]
    tail = ["<start_of_image>", "<end_of_image>"]
    # The real one has its added runs as merges too, the longest first.
    merges = [(run[:-1], run[-1]) for runs in (NEWLINES, SPACES, TABS) for run in reversed(runs) if len(run) > 1]
    known = set(tokens)
    for left, right in _merges(words.corpus):
        if len(tokens) + len(tail) == words.size:
            break
        merges.append((left, right))
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
    tokens += tail
    assert len(tokens) == len(set(tokens)) == words.size, (len(tokens), len(set(tokens)))
    return tokens, merges


def ids(words: Words = TINY) -> dict[str, int]:
    """The id of each token, `<image_soft_token>` included."""
    tokens, _ = vocabulary(words)
    return {token: i for i, token in enumerate([*tokens, IMAGE_TOKEN])}


def tokenizer_json(words: Words = TINY) -> dict:
    tokens, merges = vocabulary(words)
    all_ids = ids(words)
    special = [*SPECIAL, IMAGE_TOKEN]
    added = [*SPECIAL, IMAGE_TOKEN, "<mask>", "<unused94>", "<unused95>", *NEWLINES, *SPACES, *TABS, *MARKUP]
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    pair = [bos, sequence, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": all_ids[content],
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": content in special,
            }
            for content in sorted(added, key=all_ids.get)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence],
            "pair": pair,
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [all_ids["<bos>"]], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [list(merge) for merge in merges],
        },
    }


def tokenizer_config(words: Words = TINY) -> dict:
    added = tokenizer_json(words)["added_tokens"]
    template = Path(__file__).with_name("chat_template.jinja").read_text()
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added},
        "boi_token": "<start_of_image>",
        "bos_token": "<bos>",
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "eoi_token": "<end_of_image>",
        "eos_token": "<end_of_turn>",
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": IMAGE_TOKEN,
        },
        "image_token": IMAGE_TOKEN,
        "model_max_length": 32768,
        "pad_token": "<pad>",
        "padding_side": "left",
        "processor_class": "Gemma3Processor",
        "sp_model_kwargs": None,
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def write(folder: Path, words: Words = TINY) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(tokenizer_json(words), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    config = json.dumps(tokenizer_config(words), ensure_ascii=False, indent=1)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
