"""What the checks ask."""

import base64
import struct
import zlib


def png(width: int, height: int) -> str:
    """A grey ramp as a data URI, made by hand so that no imaging package is needed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x + y) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(file).decode()


CROPPED = {"return_inputs": True, "mm_processor_kwargs": {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}}
"""What a request asks for beside a client's own fields: crops of a long image, and what was seen."""


def check_seen(inputs: list[dict]) -> None:
    """What is said of one image of 96 × 32 pixels with `CROPPED`."""
    (seen,) = inputs
    assert seen["kind"] == "png" and seen["images"] == 4 and seen["of"] == 1 and seen["fit"] == "squash", seen
    assert seen["warnings"] == [] and seen["modality"] is None and seen["window"] is None, seen


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask_about(image: str, *more: str) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (image, *more)]
    return [{"role": "user", "content": [{"type": "text", "text": "What do you see?"}, *parts]}]
