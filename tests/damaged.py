"""Pictures as stores really hold them: every format we read, in many kinds, and then damaged.

As a command it decodes as many as asked for and says what became of them:

    PYTHONPATH=platform python tests/damaged.py --seed 1 --count 20000
"""

import argparse
import faulthandler
import json
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from pictures import encoded, exif_bytes, scene

__all__ = ["DAMAGES", "damaged", "originals"]


def originals() -> dict[str, bytes]:
    """Whole pictures by name: format, then kind. Each can be decoded."""
    rgb = Image.fromarray(scene(61, 43))
    frames = [Image.fromarray(scene(61, 43, seed)) for seed in range(3)]
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    palette = rgb.quantize(32)
    sixteen = Image.fromarray(np.linspace(0, 65535, 61 * 43, dtype=np.uint16).reshape(43, 61))
    gray, bilevel, inks = rgb.convert("L"), rgb.convert("1"), rgb.convert("CMYK")
    animated = {"save_all": True, "append_images": frames[1:], "duration": 50}
    profile = b"\0" * 3000
    made = {
        "jpeg baseline": (rgb, "JPEG", {"quality": 85}),
        "jpeg 4:4:4 with exif": (rgb, "JPEG", {"subsampling": "4:4:4", "exif": exif_bytes(6)}),
        "jpeg progressive": (rgb, "JPEG", {"progressive": True}),
        "jpeg gray": (gray, "JPEG", {}),
        "jpeg gray progressive": (gray, "JPEG", {"progressive": True}),
        "jpeg cmyk": (inks, "JPEG", {}),
        "jpeg cmyk progressive": (inks, "JPEG", {"progressive": True}),
        "jpeg with profile": (rgb, "JPEG", {"icc_profile": profile, "optimize": True}),
        "jpeg with restarts": (rgb, "JPEG", {"restart_marker_blocks": 3}),
        "png rgb": (rgb, "PNG", {}),
        "png palette": (palette, "PNG", {}),
        "png palette with transparency": (palette, "PNG", {"transparency": 3}),
        "png alpha": (alpha, "PNG", {}),
        "png gray alpha": (alpha.convert("LA"), "PNG", {}),
        "png 16 bits": (sixteen, "PNG", {}),
        "png bilevel": (bilevel, "PNG", {}),
        "png animated": (frames[0], "PNG", animated),
        "png with profile and exif": (rgb, "PNG", {"icc_profile": profile, "exif": exif_bytes(3)}),
        "gif": (palette, "GIF", {}),
        "gif animated": (frames[0], "GIF", animated),
        "gif transparent": (palette, "GIF", {"transparency": 1}),
        "webp lossy": (rgb, "WEBP", {"exif": exif_bytes(8)}),
        "webp lossless": (rgb, "WEBP", {"lossless": True}),
        "webp alpha": (alpha, "WEBP", {}),
        "webp animated": (frames[0], "WEBP", animated),
        "bmp": (rgb, "BMP", {}),
        "bmp palette": (palette, "BMP", {}),
        "bmp bilevel": (bilevel, "BMP", {}),
        "bmp alpha": (alpha, "BMP", {}),
        "avif": (rgb, "AVIF", {}),
        "avif alpha": (alpha, "AVIF", {}),
        "avif animated": (frames[0], "AVIF", animated),
        "tiff raw": (rgb, "TIFF", {}),
        "tiff cmyk": (inks, "TIFF", {}),
        "tiff palette": (palette, "TIFF", {}),
        "tiff 16 bits": (sixteen, "TIFF", {}),
        "tiff alpha": (alpha, "TIFF", {"compression": "tiff_deflate"}),
        "tiff of pages": (frames[0], "TIFF", {"save_all": True, "append_images": frames[1:]}),
        "tiff big": (rgb, "TIFF", {"big_tiff": True}),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"tiff {compression}"] = (rgb, "TIFF", {"compression": compression})
    for compression in ("group3", "group4", "tiff_ccitt"):
        made[f"tiff {compression}"] = (bilevel, "TIFF", {"compression": compression})
    files = {name: encoded(picture, kind, **options) for name, (picture, kind, options) in made.items()}
    ycck = bytearray(files["jpeg cmyk"])
    ycck[ycck.index(b"Adobe") + 11] = 2  # the transform: the first three channels are YCC
    return files | {"jpeg ycck": bytes(ycck)}


Damage = Callable[[bytearray, random.Random], bytes]


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _flip_bits(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _edit_header(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(2, min(len(data), 200))] = rng.randrange(256)
    return bytes(data)


def _write_sizes(data: bytearray, rng: random.Random) -> bytes:
    """Numbers that a careless reader allocates, seeks to or divides by."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(["<H", ">H", "<I", ">I", "<Q"])
        value = rng.choice((0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
        size = struct.calcsize(kind)
        at = rng.randrange(min(len(data), 300) - size)
        data[at : at + size] = struct.pack(kind, value & (1 << 8 * size) - 1)
    return bytes(data)


def _swap_chunks(data: bytearray, rng: random.Random) -> bytes:
    size = rng.randint(1, max(1, len(data) // 4))
    first, second = sorted(rng.randrange(len(data) - size) for _ in range(2))
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]
    return bytes(data)


def _lose_or_repeat_chunk(data: bytearray, rng: random.Random) -> bytes:
    size, at = rng.randint(1, max(1, len(data) // 4)), rng.randrange(len(data))
    data[at : at + size] = data[at : at + size] * rng.choice((0, 2, 3))
    return bytes(data)


def _leave_hole(data: bytearray, rng: random.Random) -> bytes:
    """As a torn download does."""
    size, at = rng.randint(1, len(data) // 2), rng.randrange(len(data))
    filling = rng.choice((b"\0", b"\xff", b"<"))
    data[at : at + size] = filling * len(data[at : at + size])
    return bytes(data)


def _add_garbage(data: bytearray, rng: random.Random) -> bytes:
    garbage = rng.randbytes(rng.randint(1, 3000))
    return bytes(data) + garbage if rng.random() < 0.8 else garbage[:8] + bytes(data)


DAMAGES: tuple[Damage, ...] = (
    _cut,
    _flip_bits,
    _edit_header,
    _write_sizes,
    _swap_chunks,
    _lose_or_repeat_chunk,
    _leave_hole,
    _add_garbage,
)


def damaged(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many damaged pictures, the same for the same seed, over all formats and damages in turn."""
    files = list(originals().items())
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        name, data = files[number % len(files)]
        # In whole rounds, so that every kind meets every damage; now and then two.
        harm = DAMAGES[(number // len(files) + number) % len(DAMAGES)]
        data = harm(bytearray(data), rng)
        if rng.random() < 0.2 and len(data) > 400:
            data = rng.choice(DAMAGES)(bytearray(data), rng)
        yield f"{number} {name} {harm.__name__[1:]}", data


def main() -> None:
    """Decode them one after another; print what became of them as JSON, and end with 1 where that is a defect of ours.

    What is being decoded stands in the file `--now` (a crash of the process leaves it there).
    """
    from labelmill.errors import ImageError
    from labelmill.images.transform import Preprocessing, evaluation_pixels

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--max-pixels", type=int, default=1_000_000)
    parser.add_argument("--now", default="/dev/null")
    chosen = parser.parse_args()
    faulthandler.enable()
    preprocessing = Preprocessing(32, 0.875)
    for data in originals().values():
        evaluation_pixels(data, preprocessing)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statuses: Counter[str] = Counter()
    wrong, slowest = [], (0.0, "")
    with open(chosen.now, "w", buffering=1) as now:  # noqa: PTH123
        for name, data in damaged(chosen.seed, chosen.count):
            now.seek(0)
            now.write(f"{name:80}\n")
            started = time.perf_counter()
            try:
                pixels, _, _ = evaluation_pixels(data, preprocessing, max_pixels=chosen.max_pixels)
                assert pixels.shape == (32, 32, 3)
                statuses["ok"] += 1
            except ImageError as exc:
                statuses[exc.status] += 1
                if not str(exc) or "\n" in str(exc) or "at 0x" in str(exc) or len(str(exc)) > 300:
                    wrong.append((name, f"unfit for a row: {exc}"))
            except Exception as exc:  # noqa: BLE001 - which is what we look for
                wrong.append((name, f"{type(exc).__name__}: {exc}"))
            slowest = max(slowest, (time.perf_counter() - started, name))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    result = {"statuses": statuses, "wrong": wrong[:20], "grown_bytes": grown, "slowest": slowest}
    print(json.dumps(result | {"num_wrong": len(wrong)}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
