"""The whole training, from nothing to the files."""

import time
from multiprocessing import get_context
from pathlib import Path

import torch

from make import tokenizer

from . import dataset, network, seeing, talking
from .schedule import Plan
from .words import words

NUM_FILMS = 20_000
NUM_UNSEEN = 1000
"""Of those: never trained on, to see how it goes."""
SEEING = 3600
TALKING = 3700
JOINED = 4500
WHOLE = 3000
"""Steps of each stage; the last is the third with all 256 tokens of a picture. See train_demo.py for what a step takes."""
RATE = 3e-3
APART = 0.7
"""Share of the time by which the first two stages are done, if they are slow."""


def _see(work: Path, seed: int, deadline: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = network.folded()
    pictures, codes = dataset.read_pictures(work / "films", NUM_FILMS), dataset.read_codes(work / "films", NUM_FILMS)
    seeing.train(model, pictures, codes, Plan(SEEING, deadline - time.time(), RATE, seed, work / "seeing.pt"))


def _talk(work: Path, seed: int, deadline: float) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = network.folded()
    codes = dataset.read_codes(work / "films", NUM_FILMS)
    facts = talking.Facts(codes, network.TEXT["hidden_size"])
    writer = talking.writer(work / "words", codes, NUM_FILMS - NUM_UNSEEN)
    plan = Plan(TALKING, deadline - time.time(), RATE, seed, work / "talking.pt")
    talking.train(model, facts, writer, talking.SOME, plan)


def run(work: Path, out: Path, seed: int, seconds: float) -> None:
    """Trains, and writes the model to `out`. What `work` already has of a stage is not made again."""
    start = time.time()
    tokenizer.write(work / "words", words())
    dataset.write(work / "films", seed, NUM_FILMS, num_processes=2)
    context = get_context("spawn")
    apart = [context.Process(target=stage, args=(work, seed, start + APART * seconds)) for stage in (_see, _talk)]
    for process in apart:
        process.start()
    for process in apart:
        process.join()
        assert process.exitcode == 0, "a stage failed"
    torch.set_num_threads(2)
    torch.manual_seed(seed + 1)
    join(work, out, seed, start + seconds)
    print(f"written to {out} after {(time.time() - start) / 60:.0f} minutes")


def join(work: Path, out: Path, seed: int, deadline: float) -> None:
    """The third stage and what follows. The model is written each time: what comes later may be cut off."""
    model = network.folded()
    pictures, codes = dataset.read_pictures(work / "films", NUM_FILMS), dataset.read_codes(work / "films", NUM_FILMS)
    facts = talking.Facts(codes, network.TEXT["hidden_size"])
    talked, seen = torch.load(work / "talking.pt"), torch.load(work / "seeing.pt")
    model.load_state_dict(talked["model"])
    facts.load_state_dict(talked["pictures"])
    model.model.vision_tower.load_state_dict(seen["tower"])
    features = talking.Features(model, pictures)
    writer = talking.writer(work / "words", codes, NUM_FILMS - NUM_UNSEEN)
    print(f"the projector misses {talking.fit_projector(features, facts, writer.num_films):.3f} of the variance", flush=True)
    plan = Plan(JOINED, 0.5 * (deadline - time.time()), RATE / 2, seed + 1, work / "joined.pt")
    talking.train(model, features, writer, talking.SOME, plan)
    network.write(out, model)
    plan = Plan(WHOLE, deadline - time.time(), RATE / 4, seed + 2, work / "whole.pt")
    talking.train(model, features, writer, (network.NUM_IMAGE_TOKENS,), plan)
    network.write(out, model)
