"""Examples to tensors: pictures get their tokens, every token its position and what it may look at.

A picture is 256 tokens, but each of them tells all of it (see seeing.py): most of the training is done with some of them, at
the positions that they have among all.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .chats import Example
from .network import NUM_IMAGE_TOKENS


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


def collate(examples: list[Example], image_id: int, num_patches: int, rng: np.random.Generator) -> Batch:
    rows, films, patches = [], [], []
    for example in examples:
        row: list[tuple[int, int, int, int, int]] = []  # id, position, branch, block, wanted
        position = prefix = block = 0
        branch_now = 0
        for token, wanted, branch in zip(example.ids, example.wanted, example.branch):
            if branch != branch_now:
                if branch_now == 0:
                    prefix = position
                position, branch_now = prefix, branch
            if token == image_id:
                chosen = np.sort(rng.choice(NUM_IMAGE_TOKENS, num_patches, replace=False))
                films += [example.films[block]] * num_patches
                patches += chosen.tolist()
                block += 1
                row += [(token, position + int(c), branch, block, 0) for c in chosen]
                position += NUM_IMAGE_TOKENS
            else:
                row.append((token, position, branch, 0, int(wanted)))
                position += 1
        rows.append(row)
    length = max(map(len, rows))
    table = np.zeros((len(rows), length, 5), np.int64)
    table[:, :, 2] = -1
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    ids, positions, branch, block, wanted = torch.from_numpy(table).unbind(-1)
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
        is_image=block > 0,
        film=torch.tensor(films, dtype=torch.long),
        patch=torch.tensor(patches, dtype=torch.long),
        predicts=predicts,
        targets=ids[:, 1:][predicts[:, :-1]],
    )
