"""Films by the thousand, as the network is trained on them: rendered once, kept in a folder, read as arrays."""

from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from . import film, pixels
from .film import COLOURS, EFFUSIONS, EXPOSURES, MARKERS, PLACES, SIZES, Film

SHARD = 1000


def codes(seen: Film) -> list[int]:
    """Ten numbers: one for each place, then effusion, marker, colour and exposure."""
    places = [0 if size is None else 1 + SIZES.index(size) for size in seen.sizes]
    colour = list(COLOURS).index(seen.colour)
    return [*places, EFFUSIONS.index(seen.effusion), MARKERS.index(seen.marker), colour, EXPOSURES.index(seen.exposure)]


def film_of(numbers: np.ndarray) -> Film:
    """The film whose codes these are."""
    places = len(PLACES)
    effusion, marker, colour, exposure = (int(n) for n in numbers[places:])
    return Film(
        sizes=tuple(SIZES[n - 1] if n else None for n in numbers[:places]),
        effusion=EFFUSIONS[effusion],
        marker=MARKERS[marker],
        colour=list(COLOURS)[colour],
        exposure=EXPOSURES[exposure],
    )


def picture(seen: Film, rng: np.random.Generator) -> np.ndarray:
    """A film as a client may send it and the server prepare it: PNG or JPEG, squashed or padded."""
    made = film.render(seen, rng, *film.extent(rng))
    if rng.random() < 0.5:
        made = pixels.through_jpeg(made, int(rng.integers(70, 96)))
    if rng.random() < 0.5:
        made = pixels.pad_to_square(made)
    return pixels.pooled(made)


def _write_shard(task: tuple[Path, int, int]) -> None:
    folder, seed, index = task
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, index])
    films = [film.draw(rng) for _ in range(SHARD)]
    pictures = np.stack([picture(seen, rng) for seen in films])
    partial = folder / f"{index}.partial.npy"
    np.save(folder / f"{index}.codes.npy", np.array([codes(seen) for seen in films], np.uint8))
    np.save(partial, pictures)
    partial.rename(folder / f"{index}.pictures.npy")


def write(folder: Path, seed: int, num_films: int, num_processes: int) -> None:
    """Renders what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(folder, seed, i) for i in range(num_films // SHARD) if not (folder / f"{i}.pictures.npy").exists()]
    with get_context("spawn").Pool(num_processes) as pool:
        for done, _ in enumerate(pool.imap(_write_shard, wanted, chunksize=1), 1):
            print(f"rendered {done * SHARD} of {len(wanted) * SHARD} films", flush=True)


def read_pictures(folder: Path, num_films: int) -> torch.Tensor:
    """uint8 (films, 128, 128, 3)."""
    return torch.from_numpy(np.concatenate([np.load(folder / f"{i}.pictures.npy") for i in range(num_films // SHARD)]))


def read_codes(folder: Path, num_films: int) -> np.ndarray:
    """uint8 (films, 10)."""
    return np.concatenate([np.load(folder / f"{i}.codes.npy") for i in range(num_films // SHARD)])
