"""A synthetic chest film: what there is to see on it, and its picture.

The sides are the patient's, and a film is looked at as every chest film is: as if the patient faced the viewer, so **the
patient's right is at the left edge of the picture**. Mirrored, a film therefore gets every side wrong. The marker is a
letter in a corner at the edge: R always on the patient's right (the picture's left edge), L on the patient's left.

There are six places, (right, left) × (upper, middle, lower zone), and each holds one round opacity or none, small, medium or
large; four at most. An effusion is a bright bar at the bottom of a side. The colour of the marker tells whether the channels
are in order, the exposure (how bright the whole film is) whether the levels are.
"""

from dataclasses import dataclass

import numpy as np

SIDES = ("right", "left")
ZONES = ("upper", "middle", "lower")
PLACES = tuple((side, zone) for side in SIDES for zone in ZONES)
SIZES = ("small", "medium", "large")
EFFUSIONS = ("none", "right", "left", "both")
MARKERS = (None, ("right", "upper"), ("right", "lower"), ("left", "upper"), ("left", "lower"))
"""The side and the corner of the letter."""
COLOURS = {"red": (232, 48, 52), "blue": (64, 88, 240), "yellow": (236, 214, 52), "cyan": (56, 220, 226)}
"""Red and blue exchanged, or red and green, none of them stays what it is or becomes grey."""
EXPOSURES = ("dark", "normal", "bright")

LUNG_LEVELS = {"dark": (28, 52), "normal": (82, 106), "bright": (138, 160)}
RADII = {"small": (0.023, 0.030), "medium": (0.047, 0.059), "large": (0.086, 0.106)}
"""Of the shorter side of the film. Even a film that padding has shrunk by 1.4 leaves them apart."""
COLUMNS = {"right": (0.20, 0.37), "left": (0.63, 0.80)}
ROWS = {"upper": (0.19, 0.29), "middle": (0.45, 0.55), "lower": (0.71, 0.80)}
"""Where the centres of opacities lie, as shares of width and height."""
SHORTER_SIDE = (144, 448)
ASPECT = (0.72, 1.38)
"""Width by height."""


@dataclass(frozen=True)
class Film:
    """What there is to see; `sizes[i]` is the size of the opacity at `PLACES[i]`, None where there is none."""

    sizes: tuple[str | None, ...]
    effusion: str
    marker: tuple[str, str] | None
    colour: str
    exposure: str

    @property
    def opacities(self) -> list[tuple[str, str, str]]:
        """(side, zone, size), the right side first, from above."""
        return [(side, zone, size) for (side, zone), size in zip(PLACES, self.sizes) if size]

    @property
    def letter(self) -> str | None:
        return self.marker[0][0].upper() if self.marker else None


def draw(rng: np.random.Generator) -> Film:
    """Any film."""
    count = rng.choice(5, p=(0.16, 0.27, 0.22, 0.19, 0.16))
    taken = set(rng.permutation(len(PLACES))[:count])
    return Film(
        sizes=tuple(str(rng.choice(SIZES)) if i in taken else None for i in range(len(PLACES))),
        effusion=str(rng.choice(EFFUSIONS, p=(0.4, 0.25, 0.25, 0.1))),
        marker=MARKERS[rng.choice(len(MARKERS), p=(0.08, 0.23, 0.23, 0.23, 0.23))],
        colour=str(rng.choice(list(COLOURS))),
        exposure=str(rng.choice(EXPOSURES)),
    )


def extent(rng: np.random.Generator, shorter: tuple[int, int] = SHORTER_SIDE) -> tuple[int, int]:
    """The width and height of a film."""
    side, aspect = rng.integers(*shorter, endpoint=True), np.exp(rng.uniform(*np.log(ASPECT)))
    return (int(side * aspect), int(side)) if aspect >= 1 else (int(side), int(side / aspect))


def render(film: Film, rng: np.random.Generator, width: int, height: int, max_noise: float = 5.0) -> np.ndarray:
    """The picture, uint8 (height, width, 3)."""
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    uniform = lambda low, high: np.float32(rng.uniform(low, high))  # noqa: E731
    lung_level = uniform(*LUNG_LEVELS[film.exposure])

    # A body, darker lungs, a brighter middle, ribs, unevenness.
    tissue, spine = uniform(14, 30), uniform(10, 24)
    lungs = np.zeros((height, width), np.float32)
    for centre in (0.29, 0.71):
        cx, cy, rx, ry = centre + uniform(-0.02, 0.02), 0.5 + uniform(-0.03, 0.03), uniform(0.17, 0.22), uniform(0.39, 0.46)
        distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        lungs = np.maximum(lungs, 1 / (1 + np.exp(np.clip((distance - 1) * 9, -30, 30))))
    levels = lung_level + tissue * (1 - lungs)
    levels += spine * np.exp(-(((x - 0.5 - uniform(-0.01, 0.01)) / uniform(0.05, 0.08)) ** 2))
    bend, period, phase = uniform(0.2, 0.7), uniform(0.09, 0.13), uniform(0, 1)
    arcs = (y + bend * (np.abs(x - 0.5) - 0.2) ** 2) / period + phase
    levels += uniform(1, 8) * lungs * np.maximum(np.sin(2 * np.pi * arcs), 0)
    levels += uniform(-10, 10) * (x - 0.5) + uniform(-10, 10) * (y - 0.5)
    levels += _uneven(rng, x, y, uniform(1, 8))

    shorter = min(width, height)
    for cx, cy, radius in _centres(film, rng, width / shorter, height / shorter):
        distance = np.hypot(x * width - cx * shorter, y * height - cy * shorter) / shorter
        edge = uniform(0.003, 0.007)
        levels += uniform(58, 88) / (1 + np.exp(np.clip((distance - radius) / edge, -30, 30)))
    for side in SIDES:
        if film.effusion in (side, "both"):
            left, right = (0.15 + uniform(-0.02, 0.02), 0.45) if side == "right" else (0.55, 0.85 + uniform(-0.02, 0.02))
            soft = lambda z: 1 / (1 + np.exp(np.clip(-z / 0.006, -30, 30)))  # noqa: E731
            top = uniform(0.905, 0.925)
            levels += uniform(55, 80) * soft(x - left) * soft(right - x) * soft(y - top)

    levels += rng.standard_normal((height, width), dtype=np.float32) * uniform(0, max_noise)
    picture = np.repeat(levels[:, :, None], 3, axis=2)
    if film.marker:
        ink = _letter(film, rng, x * width / shorter, y * height / shorter, width / shorter, height / shorter)
        colour = np.array(COLOURS[film.colour], np.float32) + rng.uniform(-12, 12, 3).astype(np.float32)
        picture += ink[:, :, None] * (colour - picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _uneven(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, amplitude: np.float32) -> np.ndarray:
    """Slow waves in all directions."""
    waves = 0
    for _ in range(4):
        u, v, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 2 * np.pi)
        waves = waves + np.sin((2 * np.pi * u * x + phase) + 2 * np.pi * v * y)
    return (amplitude / 2 * waves).astype(np.float32)


def _centres(film: Film, rng: np.random.Generator, width: float, height: float) -> list[tuple[float, float, float]]:
    """(x, y, radius) of each opacity, in units of the shorter side; they do not touch."""
    while True:
        found: list[tuple[float, float, float]] = []
        for side, zone, size in film.opacities:
            cx, cy = rng.uniform(*COLUMNS[side]) * width, rng.uniform(*ROWS[zone]) * height
            found.append((cx, cy, rng.uniform(*RADII[size])))
        pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
        if all(np.hypot(a[0] - b[0], a[1] - b[1]) > a[2] + b[2] + 0.015 for a, b in pairs):
            return found


STROKES = {
    "L": [((0, 0), (0, 1)), ((0, 1), (0.65, 1))],
    "R": [((0, 0), (0, 1)), ((0, 0), (0.5, 0)), ((0.5, 0), (0.68, 0.25)), ((0.68, 0.25), (0.5, 0.5)), ((0.5, 0.5), (0, 0.5)), ((0.3, 0.5), (0.7, 1))],
}  # fmt: skip
"""Lines within a box one high, y down."""


def _letter(film: Film, rng: np.random.Generator, x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """How much of each pixel is ink."""
    side, corner = film.marker
    size, stroke = rng.uniform(0.085, 0.11), rng.uniform(0.011, 0.015)
    left = rng.uniform(0.025, 0.045) if side == "right" else width - rng.uniform(0.025, 0.045) - 0.7 * size
    top = rng.uniform(0.03, 0.07) * height if corner == "upper" else rng.uniform(0.93, 0.97) * height - size
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
    for (ax, ay), (bx, by) in STROKES[film.letter]:
        ax, ay, bx, by = left + ax * size, top + ay * size, left + bx * size, top + by * size
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return np.clip((stroke - nearest) / 0.004 + 0.5, 0, 1).astype(np.float32)
