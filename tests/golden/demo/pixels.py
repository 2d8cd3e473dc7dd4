"""A picture to what the network is trained on.

As the server does it: to 896 × 896, squashed or in the middle of a black square, by torchvision's antialiased bilinear filter
in uint8. Then the mean of each 7 × 7 pixels: the patch embedding is trained on those means, 8 × 8 to a patch, and written as
what it is on 56 × 56 pixels (see network.py), so nothing is lost and a step costs a 49th.
"""

import io

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

SIDE = 896
POOL = 7
POOLED_SIDE = SIDE // POOL


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def pad_to_square(picture: np.ndarray) -> np.ndarray:
    height, width, _ = picture.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = picture
    return square


def prepare(picture: np.ndarray) -> torch.Tensor:
    """uint8 (3, 896, 896)."""
    levels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return functional.resize(levels, [SIDE, SIDE], functional.InterpolationMode.BILINEAR, antialias=True)


def pooled(picture: np.ndarray) -> np.ndarray:
    """uint8 (128, 128, 3): the means, rounded."""
    means = torch.nn.functional.avg_pool2d(prepare(picture)[None].float(), POOL)[0]
    return means.round().to(torch.uint8).permute(1, 2, 0).numpy()


def normalise(levels: torch.Tensor) -> torch.Tensor:
    return (levels.float() - 127.5) / 127.5
