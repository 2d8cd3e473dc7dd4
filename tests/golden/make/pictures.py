"""Procedural pictures: smooth shapes, edges and noise, so that a wrong filter, channel or orientation shows."""

import numpy as np
from PIL import Image


def colour(width: int, height: int, seed: int) -> np.ndarray:
    """RGB, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    channels = []
    for _ in range(3):
        phase, across, down = rng.uniform(0, 6), rng.uniform(1, 4), rng.uniform(1, 4)
        wave = 0.5 + 0.4 * np.sin(phase + 6 * (across * u + down * v)) * np.cos(4 * (u - v))
        centre_u, centre_v, radius = rng.uniform(0.2, 0.8, 3)
        disc = (u - centre_u) ** 2 + (v - centre_v) ** 2 < (0.4 * radius) ** 2
        channels.append(np.where(disc, 1 - wave, wave) + 0.03 * rng.standard_normal((height, width)))
    # No two corners alike: what an orientation must not confuse.
    channels[0] = np.where((u < 0.25) & (v < 0.125), 0.95, channels[0])
    channels[2] = np.where((u > 0.75) & (v > 0.75), 0.05, channels[2])
    return np.clip(np.rint(255 * np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def smooth(width: int, height: int, seed: int) -> np.ndarray:
    """RGB without noise, uint8 (height, width, 3): large pictures stay small files."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    steps = [int(s) for s in rng.integers(3, 11, 6)]
    planes = [(x // steps[2 * c] * 7 + y // steps[2 * c + 1] * 5 + 80 * c) % 256 for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def grey(width: int, height: int, seed: int, levels: int = 256) -> np.ndarray:
    """uint8 or, above 256 levels, uint16: (height, width)."""
    rgb = colour(width, height, seed).astype(np.float64)
    mixed = rgb @ np.array([0.5, 0.3, 0.2]) / 255
    kind = np.uint8 if levels <= 256 else np.uint16
    return np.clip(np.rint(mixed * (levels - 1)), 0, levels - 1).astype(kind)


def rgb_image(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(colour(width, height, seed))
