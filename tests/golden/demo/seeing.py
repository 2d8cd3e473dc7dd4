"""The first stage: the tower alone learns to see, with every fact of the film as the target of every patch.

Each patch lies at one of the six places besides, and tells which and what is there: the language model can look a place up.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Gemma3ForConditionalGeneration

from . import pixels
from .film import COLOURS, EFFUSIONS, EXPOSURES, MARKERS, PLACES, SIDES, SIZES, ZONES
from .network import NUM_IMAGE_TOKENS
from .schedule import Kept, Optimisers, Plan, steps

CLASSES = [*[1 + len(SIZES)] * len(PLACES), len(EFFUSIONS), len(MARKERS), len(COLOURS), len(EXPOSURES)]
"""How many values each code of a film has (see dataset.py)."""
NEAR = (len(PLACES), 1 + len(SIZES))
"""How many values the place of a patch has, and what is there."""
MARKER, COLOUR = len(PLACES) + 1, len(PLACES) + 2
BATCH = 48
_ZONE_OF_ROW = torch.arange(len(ZONES)).repeat_interleave(torch.tensor((5, 6, 5)))
_SIDE_OF_COLUMN = torch.arange(len(SIDES)).repeat_interleave(8)
PLACE = (_SIDE_OF_COLUMN[None, :] * len(ZONES) + _ZONE_OF_ROW[:, None]).flatten()
"""(256,): the place at which each patch lies, as an index of PLACES."""


def as_input(pictures: Tensor) -> Tensor:
    return pixels.normalise(pictures).permute(0, 3, 1, 2)


def losses(logits: Tensor, codes: Tensor) -> Tensor:
    """logits (films, tokens, sum of CLASSES), codes (films, facts): the mean over films and tokens of each fact's."""
    found = []
    for fact, part in enumerate(logits.split(CLASSES, -1)):
        wanted = codes[:, fact, None].expand(part.shape[:2])
        if fact == COLOUR:  # no marker has no colour
            wanted = wanted.masked_fill(codes[:, MARKER, None] == 0, -100)
        found.append(cross_entropy(part.flatten(0, 1), wanted.flatten()))
    return torch.stack(found)


def near_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """logits (films, tokens, sum of NEAR): of the place at which a token lies, and of what is there."""
    place, size = logits.flatten(0, 1).split(NEAR, -1)
    return cross_entropy(place, PLACE.repeat(len(codes))) + cross_entropy(size, codes[:, PLACE].flatten())


def ends(patch: Tensor) -> Tensor:
    """(…, 2): whether a token is the picture's first, and its last."""
    return torch.stack([patch == 0, patch == NUM_IMAGE_TOKENS - 1], -1).float()


def end_loss(logits: Tensor) -> Tensor:
    """logits (films, tokens, 3): of taking a token for the first, the last or another; the ends weigh as much as all others."""
    is_end = ends(torch.arange(NUM_IMAGE_TOKENS))
    wanted = torch.cat([is_end, 1 - is_end.sum(-1, keepdim=True)], -1).argmax(-1).expand(logits.shape[:2])
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight=1 / wanted[0].bincount().float())


def train(model: Gemma3ForConditionalGeneration, pictures: Tensor, codes: np.ndarray, plan: Plan) -> None:
    """Trains the tower."""
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    width = projector.mm_input_projection_weight.shape[0]
    heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in (("all", sum(CLASSES)), ("near", sum(NEAR)), ("end", 3))})
    named = [*tower.named_parameters(), *heads.named_parameters()]
    optimisers = Optimisers(named, plan.rate)
    kept = Kept(plan.keep, {"tower": tower, "heads": heads}, optimisers)
    first = kept.load()
    facts = torch.from_numpy(codes).long()
    rng = np.random.default_rng([plan.seed, 1, first])
    test = slice(len(pictures) - 500, len(pictures))
    start = time.monotonic()
    for step, share in steps(first, plan.count, plan.seconds):
        chosen = rng.integers(0, test.start, BATCH)
        tokens = tower(as_input(pictures[chosen])).last_hidden_state
        each = losses(heads["all"](torch.cat([tokens, tokens.mean(1, keepdim=True)], 1)), facts[chosen])
        near = near_loss(heads["near"](tokens), facts[chosen])
        (each.sum() + near + end_loss(heads["end"](tokens))).backward()
        optimisers.step(share)
        if step % 50 == 49:
            passed = time.monotonic() - start
            print(f"seeing: step {step + 1} of {plan.count}, {passed:.0f} s, loss {each.sum():.3f} and {near:.3f}", flush=True)
        if step % kept.EVERY == kept.EVERY - 1:
            kept.save(step + 1)
            print("  right of unseen films:", right(tower, heads["all"], pictures[test], facts[test]), flush=True)
    kept.save(plan.count)


@torch.no_grad()
def right(tower: nn.Module, head: nn.Module, pictures: Tensor, facts: Tensor) -> str:
    """The share of films of which each fact is told right by the mean of all tokens."""
    logits = torch.cat([head(tower(as_input(part)).last_hidden_state.mean(1)) for part in pictures.split(100)])
    shares = []
    for fact, part in enumerate(logits.split(CLASSES, -1)):
        known = facts[:, MARKER] != 0 if fact == COLOUR else slice(None)
        shares.append((part.argmax(-1) == facts[:, fact])[known].float().mean())
    return " ".join(f"{share:.3f}" for share in shares)
