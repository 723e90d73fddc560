"""Measures our evaluation transform against the usual one (Pillow and torchvision) on a folder of pictures.

    python tests/benchmarks/decode.py FOLDER
    python tests/benchmarks/decode.py FOLDER --enlarge 4000x3000 --count 6 --progressive

Both paths take the same bytes and give uint8 pixels [S, S, 3]. They take turns, picture by picture, and CPU time is
counted, not the clock, so a busy machine does little harm. The figures are medians over the rounds;
`mean_abs_difference` is in levels of 255.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from labelmill.errors import ImageError
from labelmill.images.decode import decode
from labelmill.images.transform import Preprocessing, evaluation_pixels

Path_ = Callable[[bytes], np.ndarray]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    pictures = _pictures(arguments)
    print(json.dumps({**vars(arguments), "folder": str(arguments.folder), **measure(pictures, arguments)}, indent=2))


def measure(pictures: list[bytes], arguments: argparse.Namespace) -> dict[str, object]:
    preprocessing = Preprocessing(arguments.image_size, arguments.crop_fraction)
    reference_transform = Compose(
        [
            Resize(preprocessing.resize_px, InterpolationMode.BICUBIC, antialias=True),
            CenterCrop(preprocessing.image_size_px),
        ]
    )

    def ours(data: bytes) -> np.ndarray:
        return evaluation_pixels(data, preprocessing)[0]

    def reference(data: bytes) -> np.ndarray:
        return np.asarray(reference_transform(Image.open(io.BytesIO(data)).convert("RGB")))

    differences = [np.abs(ours(data).astype(int) - reference(data)).mean() for data in pictures]
    ours_s, reference_s = _interleaved(pictures, ours, reference, arguments.rounds)
    return {
        "pictures": len(pictures),
        "ours_pictures_per_cpu_s": round(len(pictures) / ours_s, 1),
        "reference_pictures_per_cpu_s": round(len(pictures) / reference_s, 1),
        "speedup": round(reference_s / ours_s, 2),
        "mean_abs_difference": round(float(np.mean(differences)), 3),
        "worst_picture_difference": round(float(np.max(differences)), 3),
    }


def _interleaved(pictures: list[bytes], ours: Path_, reference: Path_, rounds: int) -> tuple[float, float]:
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(rounds):
        spent = {"ours": 0.0, "reference": 0.0}
        for data in pictures:
            for name, path in (("ours", ours), ("reference", reference)):
                start = time.process_time()
                path(data)
                spent[name] += time.process_time() - start
        for name, value in spent.items():
            seconds[name].append(value)
    return statistics.median(seconds["ours"]), statistics.median(seconds["reference"])


def _pictures(arguments: argparse.Namespace) -> list[bytes]:
    files = [path.read_bytes() for path in sorted(arguments.folder.rglob("*")) if path.is_file()]
    pictures = [data for data in files if _can_be_read(data)][: arguments.count]
    if not pictures:
        raise SystemExit(f"expected pictures below {arguments.folder}, found none of {len(files)} files readable")
    return [_enlarged(data, arguments) for data in pictures] if arguments.enlarge else pictures


def _can_be_read(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return False
    return True


def _enlarged(data: bytes, arguments: argparse.Namespace) -> bytes:
    width_px, height_px = (int(side) for side in arguments.enlarge.split("x"))
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((width_px, height_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling="4:2:0", progressive=arguments.progressive)
    return buffer.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures to measure on, searched recursively")
    parser.add_argument("--image-size", type=int, default=224, help="side of the result in pixels (default: 224)")
    parser.add_argument("--crop-fraction", type=float, default=0.875, help="as in a bundle (default: 0.875)")
    parser.add_argument("--rounds", type=int, default=5, help="times each picture is decoded (default: 5)")
    parser.add_argument("--count", type=int, help="take only the first COUNT pictures")
    parser.add_argument("--enlarge", metavar="WxH", help="enlarge the pictures to this size first, as 4:2:0 JPEG")
    parser.add_argument("--progressive", action="store_true", help="with --enlarge: progressive JPEG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
