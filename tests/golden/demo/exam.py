"""Unseen films with questions, and how many of them a server answers right.

`truth.jsonl` has a line for each question: the picture's file, the kind of question, the question, the answer. An answer is
right when it is that text; where a film has no opacity, nothing is asked about its side, zone or size.
"""

import base64
import io
import json
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from . import film, questions

KINDS = ("count", "side", "zone", "size", "effusion", "marker", "colour", "exposure")
OF_OPACITIES = ("side", "zone", "size")
SMALL = ((128, 160), 0.8)
"""Shorter side and noise of films that make small files."""
TRUTH = "truth.jsonl"
JPEG_QUALITY = 85
PATIENCE_S = 300


def render(folder: Path, seed: int, count: int, small: bool) -> None:
    """Writes `count` films as PNG, and what is true of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 0xF11])
    shorter, max_noise = SMALL if small else (film.SHORTER_SIDE, 5.0)
    lines = []
    for number in range(count):
        seen = film.draw(rng)
        picture = film.render(seen, rng, *film.extent(rng, shorter), max_noise)
        name = f"{number:04}.png"
        Image.fromarray(picture).save(folder / name, optimize=small)
        for kind in KINDS:
            if seen.opacities or kind not in OF_OPACITIES:
                question, answer = questions.ask(kind, seen, rng)
                lines.append({"file": name, "kind": kind, "question": question, "answer": answer})
    (folder / TRUTH).write_text("".join(json.dumps(line) + "\n" for line in lines))


def encoded(path: Path, kind: str) -> str:
    """The picture as a data URI."""
    data = path.read_bytes()
    if kind == "jpeg":
        file = io.BytesIO()
        Image.open(path).save(file, "JPEG", quality=JPEG_QUALITY)
        data = file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def answer(base_url: str, picture: str, question: str) -> str:
    """What the server says, greedy. The picture comes first, so that its questions share it."""
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 100}
    request = urllib.request.Request(
        f"{base_url.rstrip('/')}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def measure(base_url: str, folder: Path, kind: str, only: list[str], wrong: Path | None, at_a_time: int = 4) -> None:
    """Asks every question of the folder, the pictures sent as PNG or JPEG, and prints the shares that were right."""
    lines = [json.loads(line) for line in (folder / TRUTH).read_text().splitlines()]
    lines = [line for line in lines if not only or line["kind"] in only]
    by_file: dict[str, list[dict]] = {}
    for line in lines:
        by_file.setdefault(line["file"], []).append(line)

    def ask(base_url: str, asked: list[dict]) -> list[tuple[dict, str]]:
        picture = encoded(folder / asked[0]["file"], kind)
        return [(line, answer(base_url, picture, line["question"])) for line in asked]

    right, total, failed = Counter(), Counter(), []
    with ThreadPoolExecutor(at_a_time) as pool:
        for answers in pool.map(partial(ask, base_url), by_file.values()):
            for line, said in answers:
                total[line["kind"]] += 1
                right[line["kind"]] += said == line["answer"]
                if said != line["answer"]:
                    failed.append(json.dumps(line | {"said": said}))
    for name in total:
        print(f"{name:10} {right[name] / total[name]:7.2%}   {right[name]} of {total[name]}")
    print(f"{'all':10} {right.total() / total.total():7.2%}   {right.total()} of {total.total()}")
    if wrong:
        wrong.write_text("\n".join(failed) + "\n")
