"""Image files of every kind, and the pixels that the reference makes of them.

Decoding is Pillow's (EXIF orientation first), compositing and resizing are `Gemma3ImageProcessor`'s, the torchvision one.
Of 16-bit grey alone the reference is not followed: it clips to white, so it is scaled to 8 bits before, from as many bits as its
brightest level needs if these are at most 14.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3
from PIL import Image, ImageOps
from safetensors.torch import save
from transformers import Gemma3ImageProcessor

from . import pictures, tiny

FULL_SIZE = 896
SMALL_SIZE = 32
GRID_STEP = 64

ORIENTATION = 0x0112


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A PNG of a kind that Pillow does not write; `rows` is packed, without filter bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(name, data) for name, data in (chunks or {}).items())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(filtered, 9)) + chunk(b"IEND", b"")
    )


def with_alpha(rgb: np.ndarray) -> np.ndarray:
    """RGBA: alpha runs over all values, with a wholly transparent and a wholly opaque part."""
    height, width, _ = rgb.shape
    alpha = np.linspace(0, 255, width * height).round().reshape(height, width).astype(np.uint8)
    alpha[: height // 8] = 0
    return np.dstack([rgb, alpha])


def pngs() -> Iterator[tuple[str, bytes]]:
    # Shapes
    yield "rgb_1x1.png", encode(pictures.rgb_image(1, 1, 1), "PNG")
    yield "rgb_2x1.png", encode(pictures.rgb_image(2, 1, 2), "PNG")
    yield "rgb_61x47.png", encode(pictures.rgb_image(61, 47, 3), "PNG")
    yield "rgb_47x61.png", encode(pictures.rgb_image(47, 61, 4), "PNG")
    for width, height in [(3, 2000), (2000, 3), (896, 896), (897, 895), (448, 1792), (1477, 1198), (1792, 896), (2311, 640)]:
        image = Image.fromarray(pictures.smooth(width, height, width))
        yield f"rgb_{width}x{height}.png", encode(image, "PNG", optimize=True)
    # Kinds
    rgb = pictures.colour(45, 34, 5)
    yield "grey.png", encode(Image.fromarray(pictures.grey(45, 34, 6)), "PNG")
    grey16 = pictures.grey(45, 34, 7, levels=65536)
    yield "grey16.png", encode(Image.fromarray(grey16), "PNG")
    yield "grey16_dark.png", encode(Image.fromarray((grey16 // 16).astype(np.uint16)), "PNG")  # a 12-bit film
    yield "grey_alpha.png", encode(Image.fromarray(with_alpha(rgb)).convert("LA"), "PNG")
    yield "grey_1bit.png", encode(Image.fromarray(pictures.grey(45, 34, 8)).convert("1"), "PNG")
    two_bits = (pictures.grey(44, 34, 9) // 64).reshape(34, 11, 4)
    packed = (two_bits * np.array([64, 16, 4, 1], np.uint8)).sum(-1).astype(np.uint8)
    yield "grey_2bit.png", png(44, 34, 2, 0, packed.tobytes())
    yield "rgba.png", encode(Image.fromarray(with_alpha(rgb)), "PNG")
    transparent = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    yield "rgba_transparent.png", encode(Image.fromarray(transparent), "PNG")
    palette = Image.fromarray(rgb).quantize(23, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    yield "palette.png", encode(palette, "PNG")
    yield "palette_alpha.png", encode(palette, "PNG", transparency=bytes(range(0, 230, 10)))
    yield "palette_one_clear.png", encode(palette, "PNG", transparency=3)
    key = tuple(int(v) for v in rgb[20, 10])
    keyed = rgb.copy()
    keyed[5:15, 5:25] = key
    yield "rgb_colour_key.png", encode(Image.fromarray(keyed), "PNG", transparency=key)
    rgb16 = rgb.astype(np.uint16) * 257
    rgb16 = np.clip(rgb16.astype(np.int64) + np.random.default_rng(10).integers(-120, 120, rgb16.shape), 0, 65535)
    yield "rgb16.png", png(45, 34, 16, 2, rgb16.astype(">u2").tobytes())
    yield "interlaced.png", interlaced(rgb)
    yield "exif_6.png", encode(Image.fromarray(rgb), "PNG", exif=exif(6))


def interlaced(rgb: np.ndarray) -> bytes:
    """An Adam7 PNG."""
    height, width, _ = rgb.shape
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, across, down in passes:
        part = rgb[y::down, x::across]
        data += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    plain = png(width, height, 8, 2, rgb.tobytes())
    # Same chunks with the interlace flag set and the passes as data.
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return plain[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def jpegs() -> Iterator[tuple[str, bytes]]:
    image = pictures.rgb_image(70, 52, 11)
    grey = Image.fromarray(pictures.grey(70, 52, 12))
    yield "jpeg_grey.jpg", encode(grey, "JPEG", quality=90)
    yield "jpeg_444.jpg", encode(image, "JPEG", quality=90, subsampling="4:4:4")
    yield "jpeg_422.jpg", encode(image, "JPEG", quality=90, subsampling="4:2:2")
    yield "jpeg_420.jpg", encode(image, "JPEG", quality=90, subsampling="4:2:0")
    yield "jpeg_420_low.jpg", encode(image, "JPEG", quality=30, subsampling="4:2:0")
    yield "jpeg_420_odd.jpg", encode(pictures.rgb_image(37, 29, 13), "JPEG", quality=85, subsampling="4:2:0")
    yield "jpeg_progressive.jpg", encode(image, "JPEG", quality=85, progressive=True)
    yield "jpeg_cmyk.jpg", encode(image.convert("CMYK"), "JPEG", quality=90)
    small = pictures.rgb_image(40, 24, 14)
    for orientation in range(1, 9):
        yield f"exif_{orientation}.jpg", encode(small, "JPEG", quality=92, subsampling="4:4:4", exif=exif(orientation))


def others() -> Iterator[tuple[str, bytes]]:
    rgb = pictures.colour(52, 39, 15)
    image, clear = Image.fromarray(rgb), Image.fromarray(with_alpha(rgb))
    grey16 = Image.fromarray(pictures.grey(52, 39, 16, levels=65536))
    palette = image.quantize(40, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    second = pictures.rgb_image(52, 39, 17).quantize(40)
    yield "webp_lossless.webp", encode(image, "WEBP", lossless=True)
    yield "webp_lossless_alpha.webp", encode(clear, "WEBP", lossless=True, exact=True)
    yield "webp_lossy.webp", encode(image, "WEBP", quality=80)
    yield "webp_exif_8.webp", encode(image, "WEBP", lossless=True, exif=exif(8))
    yield "gif.gif", encode(palette, "GIF")
    yield "gif_two_frames.gif", encode(palette, "GIF", save_all=True, append_images=[second], duration=100)
    yield "gif_clear.gif", encode(palette, "GIF", transparency=5)
    yield "bmp.bmp", encode(image, "BMP")
    yield "bmp_palette.bmp", encode(palette, "BMP")
    yield "bmp_grey.bmp", encode(image.convert("L"), "BMP")
    yield "tiff.tif", encode(image, "TIFF")
    yield "tiff_lzw.tif", encode(image, "TIFF", compression="tiff_lzw")
    yield "tiff_deflate.tif", encode(image, "TIFF", compression="tiff_adobe_deflate")
    yield "tiff_packbits_grey.tif", encode(image.convert("L"), "TIFF", compression="packbits")
    yield "tiff_grey16.tif", encode(grey16, "TIFF")
    yield "tiff_rgba.tif", encode(clear, "TIFF")
    yield "tiff_exif_6.tif", encode(image, "TIFF", tiffinfo={ORIENTATION: 6})
    yield "tiff_two_pages.tif", encode(image, "TIFF", save_all=True, append_images=[pictures.rgb_image(30, 20, 18)])


def scans() -> Iterator[tuple[str, bytes]]:
    """What the tiny models look at: one larger and one smaller than their 112 pixels."""
    yield "scan_a.png", encode(Image.fromarray(pictures.grey(150, 117, 1)), "PNG")
    yield "scan_b.png", encode(pictures.rgb_image(60, 88, 2), "PNG")


def decode(data: bytes) -> Image.Image:
    """Pillow's, upright; 16-bit grey is scaled to 8."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.float64)
        most = (1 << max(8, int(levels.max()).bit_length())) - 1
        if most < 1 << 14:
            levels = (levels * 65535 + most // 2) // most
        image = Image.fromarray(np.rint(levels * 255 / 65535).astype(np.uint8))
    return image


def processor(size: int) -> Gemma3ImageProcessor:
    return Gemma3ImageProcessor(
        size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )


def pixels(image: Image.Image, size: int | None) -> torch.Tensor:
    """What the reference's resizing makes of it, back as levels: uint8 (height, width, 3). No size: no resizing."""
    proc = processor(size or FULL_SIZE)
    values = proc(image, do_resize=size is not None, return_tensors="pt")["pixel_values"][0]
    exact = values * 127.5 + 127.5
    levels = exact.round()
    assert (exact - levels).abs().max() < 1e-3
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous()


def digest(tensor: torch.Tensor) -> str:
    return blake3(tensor.numpy().tobytes()).hexdigest()


def normalised() -> torch.Tensor:
    """The 256 levels as the model gets them: f32."""
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    return processor(16)(Image.fromarray(levels), return_tensors="pt")["pixel_values"][0, 0].reshape(-1)


PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
PAN_AND_SCAN_SIZES = [
    (1000, 1000), (600, 500), (599, 500), (500, 600), (1200, 800), (1477, 1198), (2000, 600), (2001, 600), (600, 2000),
    (3000, 300), (300, 3001), (800, 250), (511, 300), (512, 300), (513, 300), (768, 512), (1025, 257), (5000, 256), (1, 1),
]  # fmt: skip


def crops(width: int, height: int) -> list[list[int]]:
    """The reference's boxes as [x, y, width, height]; none: no pan-and-scan."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    settings = {k: v for k, v in PAN_AND_SCAN.items() if k != "do_pan_and_scan"}
    boxes = []
    for part in processor(FULL_SIZE).pan_and_scan_batched(torch.stack([x, y]), **settings):
        boxes.append([int(part[0].min()), int(part[1].min()), part.shape[2], part.shape[1]])
    return boxes


CROPPED = ["rgb_1792x896.png", "rgb_448x1792.png", "rgb_2311x640.png", "rgb_1477x1198.png", "exif_6.jpg", "grey16_dark.png"]
CROPPED_SETTINGS = [
    {},
    {"pan_and_scan_min_crop_size": 16, "pan_and_scan_max_num_crops": 5, "pan_and_scan_min_ratio_to_activate": 1.3},
]


def cropped(image: Image.Image, settings: dict) -> list[str]:
    """The digests of an image and its crops as the reference prepares them."""
    made = processor(SMALL_SIZE)(image, return_tensors="pt", **(PAN_AND_SCAN | settings))["pixel_values"]
    exact = made * 127.5 + 127.5
    assert (exact - exact.round()).abs().max() < 1e-3
    return [digest(levels.permute(1, 2, 0).contiguous()) for levels in exact.round().to(torch.uint8)]


def write(folder: Path) -> None:
    """The files, `expected.json` beside them and `expected.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    listing, tensors = {}, {"normalised": normalised()}
    for name, data in [*scans(), *pngs(), *jpegs(), *others()]:
        assert len(data) < 40_000, (name, len(data))
        (folder / name).write_bytes(data)
        image = decode(data)
        decoded, full, small = pixels(image, None), pixels(image, FULL_SIZE), pixels(image, SMALL_SIZE)
        height, width, _ = decoded.shape
        tensors[f"{name}.{SMALL_SIZE}"] = small
        tensors[f"{name}.{FULL_SIZE}.grid"] = full[::GRID_STEP, ::GRID_STEP].contiguous()
        if name.endswith(".jpg") or "lossy." in name:
            tensors[f"{name}.decoded"] = decoded
        listing[name] = {
            "width": width,
            "height": height,
            "decoded": digest(decoded),
            str(SMALL_SIZE): digest(small),
            str(FULL_SIZE): digest(full),
        }
    boxes = [{"width": w, "height": h, "crops": crops(w, h)} for w, h in PAN_AND_SCAN_SIZES]
    pixels_of_crops = [
        {"file": name, "settings": settings, str(SMALL_SIZE): cropped(decode((folder / name).read_bytes()), settings)}
        for name in CROPPED
        for settings in CROPPED_SETTINGS
    ]
    listed = {"grid_step": GRID_STEP, "files": listing, "pan_and_scan": boxes, "cropped": pixels_of_crops}
    tiny.write_json(folder / "expected.json", listed)
    (folder / "expected.safetensors").write_bytes(save(tensors))
