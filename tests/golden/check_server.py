"""Compares a running server with transformers, log-probability by log-probability, on models that no test knows. By hand:

    python tests/golden/check_server.py --binary target/release/medgemma --tokenizer DIR --image PICTURE [--seed N]
        [--peer NAME] [--case NAME] [--reference-only] [--keep FOLDER]

For every peer (see make/peers.py: tensor names, config dialects, tied or not, bf16 or f32, one file or shards) it draws random
weights, writes the checkpoint, starts the server on it in float32 and asks through the openai package for 24 greedy tokens with
their five likeliest. DIR holds the real Gemma 3 tokenizer.json and tokenizer_config.json; PICTURE is a grey PNG.

Demanded: equal prompt ids; every log-probability within TOLERANCE of transformers' own greedy run (of a JPEG, which two
decoders may read differently, within its own); the same tokens and the same five, in their order, wherever transformers' own
gap between neighbours exceeds MIN_GAP, or twice the tolerance where that is more. Exits with 1 unless all holds.
"""

import argparse
import base64
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import torch
from openai import OpenAI
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from make import numbers, peers, pictures

TOLERANCE = 2e-3
GREY_JPEG_TOLERANCE = 0.01
COLOUR_JPEG_TOLERANCE = 0.05
MIN_GAP = 5e-3
NUM_TOKENS = 24
LONG_PROMPT = 2600
START_SECONDS = 120


@dataclass(frozen=True)
class Picture:
    data: bytes
    kind: str

    def part(self) -> dict:
        encoded = base64.b64encode(self.data).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/{self.kind};base64,{encoded}"}}


@dataclass(frozen=True)
class Question:
    """`content` has texts and pictures in their order."""

    name: str
    content: list[str | Picture]
    system: str | None = None
    tolerance: float = TOLERANCE

    @property
    def pictures(self) -> list[Picture]:
        return [part for part in self.content if isinstance(part, Picture)]

    def messages(self, is_for_openai: bool) -> list[dict]:
        """In OpenAI's words or in transformers'."""
        content = []
        for part in self.content:
            if isinstance(part, str):
                content.append(numbers.text(part))
            else:
                content.append(part.part() if is_for_openai else {"type": "image"})
        asked = [{"role": "user", "content": content}]
        return ([{"role": "system", "content": self.system}] if self.system else []) + asked


def long_text(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> str:
    """A report that does not repeat itself, of about as many tokens."""
    lines, day = [], 0
    while len(tokenizer("\n".join(lines)).input_ids) < num_tokens:
        for day in range(day + 1, day + 6):
            lines.append(
                f"Day {day}: temperature {36 + day * 7 % 30 / 10:.1f}, blood pressure {110 + day * 13 % 40}/{60 + day * 11 % 30}, "
                f"finding no. {day * 37 % 101}. {numbers.HISTORY}"
            )
    return "\n".join(lines)


def questions(image: Path, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
    def encode(picture: Image.Image, kind: str, **options) -> Picture:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return Picture(buffer.getvalue(), kind)

    scan = Picture(image.read_bytes(), "png")
    grey_jpeg = encode(Image.open(image).convert("L"), "jpeg", quality=90)
    photo = pictures.rgb_image(500, 700, 3)
    colour, colour_jpeg = encode(photo, "png"), encode(photo, "jpeg", quality=90, subsampling="4:2:0")
    ask = "Describe the image and list the findings."
    return [
        Question("text", ["What is the most likely diagnosis?"], system="You are a helpful medical assistant."),
        Question("long_text", [long_text(tokenizer, LONG_PROMPT), "What happened on day 3?"]),
        Question("image", [scan, ask]),
        Question("image_colour", [ask, colour]),
        Question("image_grey_jpeg", [grey_jpeg, ask], tolerance=GREY_JPEG_TOLERANCE),
        Question("image_colour_jpeg", [colour_jpeg, ask], tolerance=COLOUR_JPEG_TOLERANCE),
        Question("two_images", ["First:", scan, "Second:", colour, "Compare."], system="You are an expert radiologist."),
        Question(
            "two_images_in_long_text",
            [long_text(tokenizer, 1000), scan, long_text(tokenizer, 600), colour, long_text(tokenizer, 500), "Compare."],
        ),
    ]


@dataclass
class Reference:
    ids: list[int]
    steps: list[numbers.Step]


def reference(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, question: Question) -> Reference:
    proc = numbers.processor(tokenizer, 896, peers.NUM_IMAGE_TOKENS)
    rendered = proc.apply_chat_template(question.messages(False), tokenize=False, add_generation_prompt=True)
    images = [Image.open(io.BytesIO(picture.data)) for picture in question.pictures] or None
    inputs = dict(proc(text=rendered, images=images, add_special_tokens=False, return_tensors="pt"))
    inputs.pop("num_crops", None)
    if not question.pictures:
        inputs.pop("token_type_ids", None)
    return Reference(inputs["input_ids"][0].tolist(), numbers.greedy_cached(model, inputs, NUM_TOKENS))


@dataclass
class Answer:
    """What the server said, step by step."""

    prompt_ids: list[int]
    tokens: list[int]
    logprobs: list[float]
    top: list[list[tuple[bytes, float]]] = field(default_factory=list)


def ask(client: OpenAI, question: Question) -> Answer:
    response = client.chat.completions.create(
        model="peer",
        messages=question.messages(True),
        max_completion_tokens=NUM_TOKENS,
        temperature=0,
        logprobs=True,
        top_logprobs=5,
        extra_body={"ignore_eos": True, "return_token_ids": True},
    )
    choice = response.choices[0]
    steps = choice.logprobs.content
    return Answer(
        response.model_extra["prompt_token_ids"],
        choice.model_extra["token_ids"],
        [step.logprob for step in steps],
        [[(bytes(top.bytes or top.token.encode()), top.logprob) for top in step.top_logprobs] for step in steps],
    )


def token_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    piece = tokenizer.convert_ids_to_tokens(token)
    if len(piece) == 6 and piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()


@dataclass
class Verdict:
    largest: float
    """The largest difference of a log-probability."""
    least_gap: float
    complaints: list[str]


def compare(question: Question, expected: Reference, answer: Answer, tokenizer: PreTrainedTokenizerBase) -> Verdict:
    largest, complaints = 0.0, []
    min_gap = max(MIN_GAP, 2 * question.tolerance)
    if answer.prompt_ids != expected.ids:
        complaints.append(f"prompt ids differ: {len(answer.prompt_ids)} tokens, not {len(expected.ids)}, or others")
    if not len(answer.tokens) == len(answer.logprobs) == len(answer.top) == NUM_TOKENS:
        complaints.append(f"{len(answer.tokens)} tokens, {len(answer.logprobs)} log-probabilities, {len(answer.top)} tops")
    for i, step in enumerate(expected.steps[: len(answer.tokens)]):
        if answer.tokens[i] != step.token:
            if step.gap > min_gap:
                complaints.append(f"token {i} is {answer.tokens[i]}, not {step.token}, which leads by {step.gap:.4f}")
            else:
                print(f"    token {i}: a tie within {step.gap:.4f} went the other way; the rest is not compared")
            break
        top = answer.top[i]
        differences = [abs(answer.logprobs[i] - step.logprob)] + [abs(a[1] - e[1]) for a, e in zip(top, step.top)]
        largest = max(largest, *differences)
        if max(differences) > question.tolerance or len(top) != 5:
            complaints.append(f"token {i}: log-probabilities {top}, not {step.top}")
        for rank, (token, logprob) in enumerate(step.top):
            # The fifth's distance from the sixth is not known: its value was compared.
            others = [value for other, value in step.top if other != token]
            is_clear = rank < 4 and min(abs(logprob - value) for value in others) > min_gap
            if is_clear and rank < len(top) and top[rank][0] != token_bytes(tokenizer, token):
                complaints.append(f"token {i}, rank {rank}: {top[rank][0]}, not {token_bytes(tokenizer, token)}")
    return Verdict(largest, min(step.gap for step in expected.steps), complaints)


class Server:
    """The binary on a free port, for as long as the block lasts."""

    def __init__(self, binary: Path, folder: Path, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.url.rsplit(":", 1)[1]
        command = [binary, "serve", folder, "--port", port, "--dtype", "f32", "--served-model-name", "peer"]
        command += ["--max-model-len", "4096"]
        self.log = log
        self.process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)

    def __enter__(self) -> "Server":
        for _ in range(START_SECONDS * 10):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/ready").close()
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        self.__exit__()
        raise SystemExit(f"the server did not start:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def check(peer: peers.Peer, args: argparse.Namespace, folder: Path) -> bool:
    """Whether all questions to this peer were answered as transformers answers them."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    model = peers.build(peer, peers.Sizes(args.hidden, args.layers), args.seed + peers.ALL.index(peer))
    peers.write(folder, peer, model, args.tokenizer)
    asked = [q for q in questions(args.image, tokenizer) if peer.has_images or not q.pictures]
    asked = [q for q in asked if not args.case or q.name in args.case]
    print(f"{peer}", flush=True)
    references = {}
    for question in asked:
        started = time.monotonic()
        references[question.name] = found = reference(model, tokenizer, question)
        gap, kinds = min(step.gap for step in found.steps), len({step.token for step in found.steps})
        seconds = time.monotonic() - started
        print(f"  {question.name:24} {len(found.ids):5} tokens, least gap {gap:.4f}, {kinds} different, {seconds:.0f} s", flush=True)
    del model
    if args.reference_only:
        return True
    is_good = True
    with Server(args.binary, folder, folder.with_suffix(".log")) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600)
        for question in asked:
            verdict = compare(question, references[question.name], ask(client, question), tokenizer)
            is_good &= not verdict.complaints
            print(f"  {question.name:24} largest difference {verdict.largest:.1e} of {question.tolerance}", flush=True)
            for complaint in verdict.complaints:
                print(f"    WRONG: {complaint}")
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in peers.ALL])
    parser.add_argument("--case", action="append")
    parser.add_argument("--reference-only", action="store_true")
    parser.add_argument("--keep", type=Path, help="write the checkpoints here and leave them")
    args = parser.parse_args()
    if not args.binary and not args.reference_only:
        parser.error("--binary is needed")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    scratch = args.keep or Path(tempfile.mkdtemp())
    try:
        chosen = [peer for peer in peers.ALL if not args.peer or peer.name in args.peer]
        results = {}
        for peer in chosen:
            results[peer.name] = check(peer, args, scratch / peer.name)
            if not args.keep:
                shutil.rmtree(scratch / peer.name)
    finally:
        if not args.keep:
            shutil.rmtree(scratch, ignore_errors=True)
    for name, is_good in results.items():
        print(f"{name}: {'good' if is_good else 'WRONG'}")
    sys.exit(0 if all(results.values()) else 1)


if __name__ == "__main__":
    main()
