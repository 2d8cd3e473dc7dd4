"""Image files of kinds that Pillow writes or judges in its own way, and the levels that it reads from them.

Run by itself, with pillow, numpy, blake3, tifffile and imagecodecs: `python -m make.pillow pillow`. `expected.json` has width, height
and BLAKE3 of the levels (grey, or RGB) as `ImageOps.exif_transpose` and a white ground make them; null where Pillow refuses the
file with `LOAD_TRUNCATED_IMAGES` off. 16 bits that need at most 14 are stretched before, which Pillow does not do.
"""

import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from blake3 import blake3
from PIL import Image, ImageOps

T4_OPTIONS, FILL_ORDER, ROWS_PER_STRIP, PREDICTOR = 292, 266, 278, 317


def levels(width: int, height: int, channels: int, highest: int = 255) -> np.ndarray:
    """Waves with a little noise."""
    rng = np.random.default_rng(width * channels)
    y, x = np.mgrid[0:height, 0:width]
    waves = [(np.sin(x / (5 + c)) + np.cos(y / (7 + 2 * c)) + 2) / 4 * highest for c in range(channels)]
    noise = rng.integers(0, max(2, highest // 30), (height, width, channels))
    kind = np.uint8 if highest < 256 else np.uint16
    return (np.stack(waves, -1) + noise).clip(0, highest).astype(kind).squeeze()


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def tiffs() -> Iterator[tuple[str, bytes]]:
    rgb = Image.fromarray(levels(53, 40, 3))
    grey = Image.fromarray(levels(53, 40, 1))
    two = grey.point(lambda level: 255 * (level > 120)).convert("1")
    for name, options in [
        ("mh", {"compression": "tiff_ccitt"}),
        ("g3", {"compression": "group3"}),
        ("g3_2d", {"compression": "group3", "tiffinfo": {T4_OPTIONS: 1}}),
        ("g3_fill", {"compression": "group3", "tiffinfo": {T4_OPTIONS: 5}}),
        ("g4", {"compression": "group4"}),
        ("g4_strips", {"compression": "group4", "tiffinfo": {ROWS_PER_STRIP: 16}}),
        ("g3_reversed", {"compression": "group3", "tiffinfo": {FILL_ORDER: 2}}),
    ]:
        yield f"fax_{name}.tif", encode(two, "TIFF", **options)
    jpeg = {"compression": "jpeg", "quality": 80}
    yield "jpeg_grey.tif", encode(grey, "TIFF", **jpeg)
    yield "jpeg_rgb.tif", encode(rgb, "TIFF", **jpeg)
    yield "jpeg_cmyk.tif", encode(rgb.convert("CMYK"), "TIFF", **jpeg)
    yield "jpeg_ycbcr.tif", encode(rgb.convert("YCbCr"), "TIFF", **jpeg, tiffinfo={ROWS_PER_STRIP: 16})
    tiles = {"compression": "jpeg", "tile": (32, 32), "photometric": "ycbcr"}
    yield "jpeg_tiles.tif", tiff(levels(53, 40, 3), **tiles, subsampling=(2, 2), byteorder=">")
    zstd = {"compression": "zstd", "predictor": True}
    yield "zstd_grey16.tif", tiff(levels(53, 40, 1, 60_000), **zstd, byteorder=">", tile=(32, 48))
    yield "zstd_planes.tif", tiff(
        levels(53, 40, 3).transpose(2, 0, 1).copy(), **zstd, photometric="rgb", planarconfig="separate", rowsperstrip=7
    )
    yield "zstd_rgb.tif", encode(rgb, "TIFF", compression="zstd", tiffinfo={PREDICTOR: 2})
    yield "zstd_palette.tif", encode(rgb.quantize(33), "TIFF", compression="zstd")
    for compression in ["raw", "tiff_lzw", "packbits"]:
        yield f"ycbcr_{compression}.tif", encode(rgb.convert("YCbCr"), "TIFF", compression=compression)
    for across, down in [(2, 1), (2, 2)]:
        yield f"ycbcr_deflate_{across}{down}.tif", shared_colours(7, 5, across, down)


def shared_colours(width: int, height: int, across: int, down: int) -> bytes:
    """A TIFF whose pixels share colours without JPEG, which Pillow reads and does not write."""
    blocks = -(-width // across) * -(-height // down)
    data = zlib.compress(np.random.default_rng(across * down).integers(0, 256, blocks * (across * down + 2), np.uint8).tobytes())
    short, long = 3, 4
    fields = {
        256: (short, [width]), 257: (short, [height]), 258: (short, [8, 8, 8]), 259: (short, [8]), 262: (short, [6]),
        273: (long, [8]), 277: (short, [3]), 278: (short, [height]), 279: (long, [len(data)]), 530: (short, [across, down]),
    }  # fmt: skip
    directory, values = struct.pack("<H", len(fields)), b""
    values_at = 8 + len(data) + 2 + 12 * len(fields) + 4
    for tag, (kind, numbers) in sorted(fields.items()):
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == short else 'I'}", *numbers)
        directory += struct.pack("<HHI", tag, kind, len(numbers))
        if len(packed) > 4:
            directory += struct.pack("<I", values_at + len(values))
            values += packed
        else:
            directory += packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0" * 4 + values


def jpeg2000s() -> Iterator[tuple[str, bytes]]:
    rgb = Image.fromarray(levels(37, 29, 3))
    yield "grey.jp2", encode(Image.fromarray(levels(37, 29, 1)), "JPEG2000")
    yield "grey16.jp2", encode(Image.fromarray(levels(37, 29, 1, 65_535)), "JPEG2000")
    yield "grey_alpha.jp2", encode(Image.fromarray(levels(37, 29, 2), "LA"), "JPEG2000")
    yield "rgb.j2k", encode(rgb, "JPEG2000", no_jp2=True)
    yield "rgb_tiles.jp2", encode(rgb, "JPEG2000", tile_size=(16, 16))
    yield "rgb_layers.jp2", encode(rgb, "JPEG2000", quality_layers=[20, 10, 1])
    yield "rgba.jp2", encode(Image.fromarray(levels(37, 29, 4), "RGBA"), "JPEG2000")
    yield "rgb.jp2", (whole := encode(rgb, "JPEG2000"))
    yield "cut.jp2", whole[: len(whole) // 2]


def pngs() -> Iterator[tuple[str, bytes]]:
    rgb = levels(31, 23, 3)
    data = b"".join(b"\0" + row.tobytes() for row in rgb)
    packed = zlib.compress(data, 9)

    def chunk(name: bytes, data: bytes, wrong: int = 0) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ wrong)

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 31, 23, 8, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    wrong_end = packed[:-1] + bytes([packed[-1] ^ 1])
    half = len(packed) // 2
    size = chunk(b"pHYs", struct.pack(">IIB", 1, 1, 0), wrong=1)
    yield "no_end.png", head + chunk(b"IDAT", packed)
    yield "no_last_sum.png", head + chunk(b"IDAT", packed)[:-4]
    yield "wrong_pixel_sum.png", head + chunk(b"IDAT", packed, wrong=1) + end
    yield "wrong_end_sum.png", head + chunk(b"IDAT", packed) + chunk(b"IEND", b"", wrong=1)
    yield "wrong_header_sum.png", head[:-1] + bytes([head[-1] ^ 1]) + chunk(b"IDAT", packed) + end
    yield "wrong_sum_before.png", head + size + chunk(b"IDAT", packed) + end
    yield "wrong_sum_behind.png", head + chunk(b"IDAT", packed) + size + end
    yield "unknown_before.png", head + chunk(b"XyZw", b"?") + chunk(b"IDAT", packed) + end
    yield "cut_behind.png", head + chunk(b"IDAT", packed) + chunk(b"tEXt", b"a\0b")[:-6]
    yield "cut_pixels.png", head + chunk(b"IDAT", packed)[: half + 8]
    yield "wrong_data_sum.png", head + chunk(b"IDAT", wrong_end) + end
    yield "no_data_sum.png", head + chunk(b"IDAT", packed[:-4]) + end
    yield "wrong_split_data_sum.png", head + chunk(b"IDAT", wrong_end[:-2]) + chunk(b"IDAT", wrong_end[-2:]) + end
    yield "split_pixels.png", head + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", b"") + chunk(b"IDAT", packed[half:]) + end
    yield "few_rows.png", head + chunk(b"IDAT", zlib.compress(data[: 94 * 9])) + end
    yield "half_a_row.png", head + chunk(b"IDAT", zlib.compress(data[: 94 * 9 + 40])) + end
    yield "more_rows.png", head + chunk(b"IDAT", zlib.compress(data + b"\0" * 500)) + end
    yield "no_rows.png", head + end
    rgb16 = Image.fromarray(levels(31, 23, 1, 4095))
    yield "grey_12_in_16.png", encode(rgb16, "PNG")
    yield "grey_12_in_16.tif", encode(rgb16, "TIFF")


def stretched(levels: np.ndarray) -> np.ndarray:
    highest = int(levels.max())
    most = (1 << max(8, highest.bit_length())) - 1
    return levels if most > 16_383 else (levels * 65_535 + most // 2) // most


def read(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return ((stretched(np.asarray(image).astype(np.int64)) + 128) // 257).astype(np.uint8)
    if image.mode in ["1", "L"]:
        return np.asarray(image.convert("L"))
    if image.mode in ["LA", "RGBA"]:
        pixels = np.asarray(image).astype(np.int64)
        colours, alpha = pixels[..., :-1], pixels[..., -1:]
        return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8).squeeze()
    return np.asarray(image.convert("RGB"))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    listing = {}
    for name, data in [*tiffs(), *jpeg2000s(), *pngs()]:
        assert len(data) < 8_000, (name, len(data))
        (folder / name).write_bytes(data)
        try:
            found = read(data)
        except (OSError, SyntaxError):
            listing[name] = None
            continue
        digest = blake3(found.tobytes()).hexdigest()
        listing[name] = {"width": found.shape[1], "height": found.shape[0], "decoded": digest}
    # What is lossy may differ by a level, so that all levels are kept.
    lossy = Image.fromarray(levels(24, 18, 3))
    data = encode(lossy, "JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[35])
    (folder / "lossy.jp2").write_bytes(data)
    (folder / "lossy.rgb").write_bytes(read(data).tobytes())
    (folder / "expected.json").write_text(json.dumps(listing, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
