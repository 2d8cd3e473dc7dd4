"""Examples to tensors: pictures get their tokens, every token its position and what it may look at.

A picture is 256 tokens, but each of them tells all of it (see seeing.py): most of the training is done with some of them, at
the positions that they have among all, and from all six places of a film. The first and the last are always there: they are
how misplaced ones are noticed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .chats import Example, PictureIds
from .network import NUM_IMAGE_TOKENS
from .seeing import PLACE


@dataclass
class Batch:
    """Rows of equal length; `mask[row, 0, query, key]` is true where the query may look at the key."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    is_image: Tensor
    film: Tensor
    """Of each image token, in order of rows: its film …"""
    patch: Tensor
    """… and which of the 256 it is."""
    predicts: Tensor
    """The tokens whose next one is learnt …"""
    targets: Tensor
    """… and those next ones."""
    closes: Tensor
    """The tokens that close a picture …"""
    misplaced: Tensor
    """… and, for each of those, whether its tokens are where they do not belong."""


def places(shift: int, num_patches: int, rng: np.random.Generator) -> list[int]:
    """Some of a picture's places: its ends, where `shift` puts what belongs there, and others, equally many at each place of a film."""
    ends = {0, NUM_IMAGE_TOKENS - 1, shift % NUM_IMAGE_TOKENS, (shift - 1) % NUM_IMAGE_TOKENS}
    others = rng.permutation([place for place in range(NUM_IMAGE_TOKENS) if place not in ends])
    is_at = PLACE.numpy()[others, None] == np.arange(PLACE.max() + 1)
    nth_there = (is_at.cumsum(0) * is_at).sum(1)
    return sorted(ends | set(others[nth_there.argsort(kind="stable")][: num_patches - len(ends)].tolist()))


def collate(examples: list[Example], picture_ids: PictureIds, num_patches: int, rng: np.random.Generator) -> Batch:
    rows = []
    for example in examples:
        row: list[tuple[int, ...]] = []  # id, position, branch, block, wanted, film, 1 + which of its tokens or 0
        position = prefix = block = 0
        branch_now = 0
        start = example.ids.index(picture_ids.token) if example.shift else 0
        for token, wanted, branch in zip(example.ids, example.wanted, example.branch):
            if branch != branch_now:
                if branch_now == 0:
                    prefix = position
                position, branch_now = prefix, branch
            if token == picture_ids.token:
                film = example.films[block]
                block += 1
                for place in places(example.shift, num_patches, rng):
                    row.append((token, position + place, branch, block, 0, film, 1 + example.shown(place)))
                position += NUM_IMAGE_TOKENS
            else:
                shown = example.shown(position - start) if example.shift else -1
                row.append((token, position, branch, 0, int(wanted), example.films[0] if shown >= 0 else 0, 1 + shown))
                position += 1
        rows.append(row)
    length = max(map(len, rows))
    table = np.zeros((len(rows), length, 7), np.int64)
    table[:, :, 2] = -1
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    ids, positions, branch, block, wanted, film, shown = torch.from_numpy(table).unbind(-1)
    is_image = shown > 0
    shifted = torch.tensor([example.shift != 0 for example in examples])
    order = torch.arange(length)
    causal = order[None, :, None] >= order[None, None, :]
    sees = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    same_picture = (block[:, None, :] == block[:, :, None]) & (block[:, None, :] > 0)
    predicts = torch.zeros_like(wanted, dtype=torch.bool)
    predicts[:, :-1] = wanted[:, 1:] == 1
    return Batch(
        ids=ids,
        positions=positions,
        mask=((causal & sees) | same_picture)[:, None],
        is_image=is_image,
        film=film[is_image],
        patch=shown[is_image] - 1,
        predicts=predicts,
        targets=ids[:, 1:][predicts[:, :-1]],
        closes=ids == picture_ids.close,
        misplaced=shifted[:, None].expand(ids.shape)[ids == picture_ids.close],
    )
