"""Optimisers, and how their rates go over a run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


class Optimisers:
    """Muon for the matrices within layers, AdamW for the rest; both rates rise, stay and fall together."""

    def __init__(self, named: list[tuple[str, torch.nn.Parameter]], rate: float) -> None:
        matrices = [p for name, p in named if p.ndim == 2 and "layers." in name]
        rest = [p for name, p in named if not (p.ndim == 2 and "layers." in name)]
        self.parameters = [*matrices, *rest]
        self.all = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        self.rate = rate

    def step(self, share: float) -> None:
        """One step at this share of the full rate."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.all:
            for group in optimiser.param_groups:
                group["lr"] = self.rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Plan:
    """How long a stage runs, how fast it goes, where it keeps what it has."""

    count: int
    seconds: float
    rate: float
    seed: int
    keep: Path


class Kept:
    """What a stage has come to, in a file: its modules, its optimisers, the step."""

    EVERY = 100

    def __init__(self, file: Path, modules: dict[str, nn.Module], optimisers: Optimisers) -> None:
        self.file, self.modules, self.optimisers = file, modules, optimisers

    def load(self) -> int:
        """Goes back to what the file has; the step to go on with is returned."""
        if not self.file.exists():
            return 0
        kept = torch.load(self.file)
        for name, module in self.modules.items():
            module.load_state_dict(kept[name])
        for optimiser, state in zip(self.optimisers.all, kept["optimisers"]):
            optimiser.load_state_dict(state)
        print(f"{self.file.name}: goes on with step {kept['step']}", flush=True)
        return kept["step"]

    def save(self, step: int) -> None:
        """Keeps what `step` steps have made; a run that is cut off while it writes leaves the file before."""
        made = {name: module.state_dict() for name, module in self.modules.items()}
        partial = self.file.with_suffix(".partial")
        torch.save(made | {"step": step, "optimisers": [optimiser.state_dict() for optimiser in self.optimisers.all]}, partial)
        partial.rename(self.file)


def steps(first: int, count: int, seconds: float) -> Iterator[tuple[int, float]]:
    """Each step from `first` to `count`, and its share of the rate: up within 50 steps, down to nothing over the last half.

    Where time runs out before the steps do, time is what counts, and the run cannot be repeated exactly.
    """
    start = time.monotonic()
    for step in range(first, count):
        done = max(step / count, (time.monotonic() - start) / seconds)
        if done >= 1:
            print(f"out of time after {step} of {count} steps", flush=True)
            return
        yield step, min(1.0, (step + 1) / 50, 2 * (1 - done))
