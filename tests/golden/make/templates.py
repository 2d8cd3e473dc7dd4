"""Conversations of every kind: what the chat template renders, and the ids once placeholders are expanded.

`cases.json` has the conversations, the rendered text and the tiny tokenizer's ids; `real_tokenizer.json` the real one's ids,
without its vocabulary. A run of one id is written [id, count]. Parts of type `image` are pictures in their order.
"""

import itertools
import json
import os
from pathlib import Path

import numpy as np
from jinja2.exceptions import TemplateError
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from . import images, numbers, tiny

IMAGE = {"type": "image"}
text = numbers.text
REAL_TOKENIZER = "MEDGEMMA_TOKENIZER_DIR"
NUM_IMAGE_TOKENS = 256


def user(content) -> dict:
    return {"role": "user", "content": content}


def model(content) -> dict:
    return {"role": "assistant", "content": content}


def system(content) -> dict:
    return {"role": "system", "content": content}


HELPFUL = "You are a helpful medical assistant."
THINK = "SYSTEM INSTRUCTION: think silently if needed. "

CONVERSATIONS = {
    "user": [user("What is the most likely diagnosis?")],
    "user_parts": [user([text("What is "), text(" the most likely"), text("\n diagnosis?")])],
    "system": [system(HELPFUL), user("Hello, how are you?")],
    "system_parts": [system([text(HELPFUL)]), user([text("Hello, how are you?")])],
    "system_two_parts": [system([text(HELPFUL), text("Only the first part counts.")]), user("Hello")],
    "system_untrimmed": [system("  You are an expert radiologist. \n"), user("  Hello  ")],
    "system_empty": [system(""), user("Hello")],
    "system_thinks": [system(THINK + HELPFUL), user("Is there any sign of pneumonia?")],
    "system_and_image": [system(HELPFUL), user([IMAGE, text("Describe the image.")])],
    "turns": [user("Hello"), model("Hello! What can I do for you today?"), user("Tell me about the results.")],
    "turns_and_system": [
        system(HELPFUL),
        user("I have a cough."),
        model([text("  Since when? "), text("Any fever?")]),
        user("Three days, 38.5 °C."),
        model("<unused94>thought\nAn infection.<unused95>See your physician."),
        user("Thank you"),
    ],
    "system_in_the_middle": [user("Hello"), system(HELPFUL), user("Hello")],  # the template lets it pass as a turn
    "ends_with_model": [user("Hello"), model("Hello,")],
    "image_first": [user([IMAGE, text("Describe the image and list the findings.")])],
    "image_last": [user([text("Describe the image and list the findings."), IMAGE])],
    "image_alone": [user([IMAGE])],
    "image_between": [user([text("Here is the image:"), IMAGE, text("What is in it?")])],
    "two_images": [user([text("First:"), IMAGE, text("Second:"), IMAGE, text("Compare.")])],
    "adjacent_images": [user([IMAGE, IMAGE, IMAGE, text("Compare these.")])],
    "images_in_turns": [
        user([IMAGE, text("What is this?")]),
        model("A chest X-ray."),
        user([text("And this?"), IMAGE]),
        model([text("A CT slice.")]),
        user("Thank you"),
    ],
    "newlines_at_image": [user([text("Findings:\n\n\nnone\n\n"), IMAGE, text("\n\nImpression:\n\n none \n")])],
    "spaces_at_image": [user([text("Here:   "), IMAGE, text("   is   it")])],
    "part_empty": [user([text(""), IMAGE, text("   ")])],
    "empty": [user("")],
    "only_space": [user(" \n\t ")],
    "untrimmed": [user("\n\n  What is it?\t\r\n ")],
    "inner_newlines": [user("a\n\nb\n\n\nc\r\nd\n \n\n\n\ne")],
    "inner_spaces": [user("a  b   c      d\te\t\tf")],
    "unicode": [user("Größe 5 µm, Fieber ≥ 38 °C — 肺炎の可能性? Это норма. يعاني المريض")],
    "emoji": [user("👩🏽‍⚕️ says 🫁 is 😀; flags 🇨🇭🇯🇵 and é (e\u0301)")],
    "wide_space_trimmed": [user("\u00a0\u3000\u2003What is it?\u0085\u2029")],
    "separators_trimmed": [user("\x1c\x1d What is it? \x1e\x1f")],  # blank to Python's strip
    "zero_width_kept": [user("\u200bWhat is it?\ufeff")],
    "markup": [user("<table><tr><td>5 mg</td></tr></table> <b>bold</b> {{ bos_token }} {% if %} & \\n \"quoted\" '''")],
    "numbers": [user("132/84 mmHg; 1,234.5678 × 10^-6; 2026-07-30T12:00Z; +49 (0)30 1234567")],
    "placeholder_words": [user("[multimodal] <mask> <|im_start|> [INST] </s> ▁▁ _ ▁")],
}
"""Conversations that the template takes."""

REFUSED = {
    "user_twice": [user("Hello"), user("Hello?")],
    "model_first": [model("Hello"), user("Hello")],
    "system_then_model": [system(HELPFUL), model("Hello")],
    "content_number": [{"role": "user", "content": 5}],
}
"""And those that it does not."""

CONTINUED = {
    "plain": [user("Hello"), model("The heart is")],
    "space_trimmed": [user("Hello"), model("  The heart is \n")],
    "parts": [user("Hello"), model([text("The heart "), text(" is enlarged, and ")])],
    "system": [system(HELPFUL), user([IMAGE, text("What is it?")]), model("A chest X-ray")],
    "words_of_the_template": [user("turn"), model("model\nturn")],
    "unicode": [user("Hello"), model("Größe ≥ 5 µm 🫁")],
}
"""Conversations whose last turn goes on."""

PAN_AND_SCAN = {
    "landscape": ("image_between", [(1000, 400)]),
    "portrait": ("image_first", [(300, 1200)]),
    "one_of_two": ("two_images", [(600, 600), (1600, 400)]),
}
"""Name → the conversation, and the sizes of its pictures."""

TEXTS = [
    "", " ", "  ", "\n", "\n\n\n\n\n\n\n", "a", " a", "a ", "Hello, how are you?", " Hello", "x\ty\t\tz", "a  b   c      d", "▁", " ▁ ",
    "<bos>Hello<eos>", "<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n", "<unused94>thought\nyes<unused95>no",
    "<start_of_image><image_soft_token><image_soft_token><end_of_image>", "<start_of_turn", "< start_of_turn >", "😀🫁👩🏽‍⚕️",
    "肺炎の図", "e\u0301é\u200b\ufeff\u00a0", "\x00\x01\x7f", "\r\n", "naïve Übermaß", "don't  stop…", "3.14159265", "https://example.org/a?b=c&d=%20",
]  # fmt: skip


def compact(ids: list[int]) -> list:
    runs = [(token, len(list(group))) for token, group in itertools.groupby(ids)]
    return [token if count == 1 else [token, count] for token, count in runs]


def num_images(messages: list[dict]) -> int:
    return sum(part.get("type") == "image" for m in messages if isinstance(m["content"], list) for part in m["content"])


def blank(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.zeros((height, width, 3), np.uint8))


def encoded(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Name → rendered text and ids, for conversations, pan-and-scan and bare texts."""
    proc = numbers.processor(tokenizer, 32, NUM_IMAGE_TOKENS)
    made = {"conversations": {}, "pan_and_scan": {}, "texts": []}

    def ids(messages: list[dict], pictures: list, **settings) -> tuple[str, list]:
        rendered = proc.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = proc(text=rendered, images=pictures or None, add_special_tokens=False, **settings)
        return rendered, compact(list(inputs["input_ids"][0]))

    for name, messages in CONVERSATIONS.items():
        made["conversations"][name] = ids(messages, [blank(8, 8)] * num_images(messages))
    for name, (conversation, sizes) in PAN_AND_SCAN.items():
        pictures = [blank(*size) for size in sizes]
        made["pan_and_scan"][name] = ids(CONVERSATIONS[conversation], pictures, **images.PAN_AND_SCAN)
    for words in TEXTS:
        made["texts"].append(compact(tokenizer(words, add_special_tokens=False).input_ids))
    return made


def refusals(tokenizer: PreTrainedTokenizerBase) -> dict:
    made = {}
    for name, messages in REFUSED.items():
        try:
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            made[name] = {"messages": messages, "error": str(error)}
        else:
            raise AssertionError(f"{name} was taken")
    return made


def continued(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Name → text and ids that the model is to go on with."""
    proc = numbers.processor(tokenizer, 32, NUM_IMAGE_TOKENS)
    made = {}
    for name, messages in CONTINUED.items():
        rendered = proc.apply_chat_template(messages, tokenize=False, continue_final_message=True)
        pictures = [blank(8, 8)] * num_images(messages)
        inputs = proc(text=rendered, images=pictures or None, add_special_tokens=False)
        made[name] = {"messages": messages, "rendered": rendered, "ids": compact(list(inputs["input_ids"][0]))}
    return made


def write(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    made = encoded(tokenizer)
    listing = {
        "num_image_tokens": NUM_IMAGE_TOKENS,
        "conversations": {
            name: {"messages": CONVERSATIONS[name], "rendered": rendered, "ids": ids}
            for name, (rendered, ids) in made["conversations"].items()
        },
        "pan_and_scan": {
            name: {"conversation": PAN_AND_SCAN[name][0], "sizes": PAN_AND_SCAN[name][1], "ids": ids}
            for name, (_, ids) in made["pan_and_scan"].items()
        },
        "continued": continued(tokenizer),
        "refused": refusals(tokenizer),
        "texts": [{"text": words, "ids": ids} for words, ids in zip(TEXTS, made["texts"])],
    }
    write_lines(folder / "cases.json", listing)
    if real := os.environ.get(REAL_TOKENIZER):
        real_made = encoded(AutoTokenizer.from_pretrained(real))
        for name, (rendered, _) in real_made["conversations"].items():
            assert rendered == made["conversations"][name][0], name
        for name, case in continued(AutoTokenizer.from_pretrained(real)).items():
            assert case["rendered"] == listing["continued"][name]["rendered"], name
        ids = {kind: {name: ids for name, (_, ids) in real_made[kind].items()} for kind in ("conversations", "pan_and_scan")}
        write_lines(folder / "real_tokenizer.json", ids | {"texts": real_made["texts"]})
    else:
        print(f"{REAL_TOKENIZER} is not set: real_tokenizer.json stays as it was")


def write_lines(path: Path, listing: dict) -> None:
    """JSON with one case a line."""
    def line(value) -> str:
        return json.dumps(value, ensure_ascii=False)

    parts = []
    for kind, value in listing.items():
        if isinstance(value, dict):
            parts.append(f"{line(kind)}: {{\n" + ",\n".join(f"{line(k)}: {line(v)}" for k, v in value.items()) + "\n}")
        elif isinstance(value, list):
            parts.append(f"{line(kind)}: [\n" + ",\n".join(line(v) for v in value) + "\n]")
        else:
            parts.append(f"{line(kind)}: {line(value)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
