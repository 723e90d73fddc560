"""Measures the input path of training, decode to normalised batch, against timm's loader and Ray Data.

    python tests/benchmarks/feed.py PICTURES --preset light --count 2000 --rounds 3

PICTURES is a folder of pictures, repeated by links until there are --count. All contenders draw the same kind of views:
random resized crops (bicubic), flips and, with the preset medium, colours and erasing; each gives float32 batches
[B, 3, S, S], normalised, in random order. timm's `create_loader` runs with and without its prefetcher and with several
numbers of workers, and the best of these counts. Ray Data runs our own decode and augmentation.

Each run is a process tree of its own: a first epoch to warm up, then --epochs whose CPU-seconds, of the whole tree, and
wall time are counted. The contenders take turns; the figures are medians over the rounds, written as JSON and SVG.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from account import bars, command, machine, write_json, write_plot
from store import many_pictures, unique_pictures

Epoch = Callable[[int], Iterator[int]]  # number of the epoch -> sizes of its batches
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    arguments = _arguments()
    if arguments.only:
        print(json.dumps(_measured(_CONTENDERS[arguments.only](arguments), arguments)))
        return
    names = [name for name in _CONTENDERS if not arguments.contenders or name in arguments.contenders]
    runs = [{"contender": name, **_run(name)} for _ in range(arguments.rounds) for name in names]
    medians = {
        name: {
            key: round(statistics.median(run[key] for run in runs if run["contender"] == name), 2)
            for key in ("pictures_per_cpu_s", "pictures_per_s")
        }
        for name in names
    }
    rates = {name: figures["pictures_per_cpu_s"] for name, figures in medians.items()}
    best = max((rate for name, rate in rates.items() if name.startswith("timm")), default=None)
    results = {
        "benchmark": "feed",
        "command": command(),
        "machine": machine(),
        "medians": medians,
        "cpu_over_best_timm": round(rates["labelmill"] / best, 3) if best and "labelmill" in rates else None,
        "runs": runs,
    }
    name = f"feed-{arguments.preset}"
    write_json(arguments.results / f"{name}.json", results)
    panels = [
        bars("pictures per CPU-second", rates),
        bars("pictures a second", {name: figures["pictures_per_s"] for name, figures in medians.items()}),
    ]
    write_plot(arguments.results / f"{name}.svg", panels)
    print(json.dumps({"medians": medians, "cpu_over_best_timm": results["cpu_over_best_timm"]}, indent=2))


def _run(name: str) -> dict[str, Any]:
    # One thread for every library: a process a core, and what they would burn in waiting counts, too.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *sys.argv, "--only", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {result['pictures_per_cpu_s']:.1f} pictures per CPU-second, load {result['load']}", flush=True)
    return result


def _measured(epoch: Epoch, arguments: argparse.Namespace) -> dict[str, Any]:
    list(epoch(1))
    cpu_s, started, pictures = _tree_cpu_s(), time.monotonic(), 0
    for number in range(2, arguments.epochs + 2):
        pictures += sum(epoch(number))
    cpu_s, wall_s = _tree_cpu_s() - cpu_s, time.monotonic() - started
    return {
        "pictures": pictures,
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(wall_s, 2),
        "pictures_per_cpu_s": round(pictures / cpu_s, 1),
        "pictures_per_s": round(pictures / wall_s, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def _tree_cpu_s() -> float:
    """Of this process and all below it, those that have ended included."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(spent.user + spent.system + spent.children_user + spent.children_system for spent in times)


def _labelmill(arguments: argparse.Namespace) -> Epoch:
    import torch

    from labelmill.dataset import load_training_set
    from labelmill.images.transform import Preprocessing
    from labelmill.train.feed.feed import Feed, Share
    from labelmill.train.loop.allocator import keep_freed_memory
    from labelmill.train.loop.loop import to_device

    keep_freed_memory()
    spec, preprocessing = _spec(arguments), Preprocessing(arguments.image_size, 1.0, _MEAN, _STD)
    training_set = load_training_set(spec)
    share = Share.of(0, 1, arguments.batch_size)
    feed = Feed(
        spec,
        preprocessing,
        training_set.train,
        training_set.validation,
        share=share,
        rows=share.rows(len(training_set.train)),
        num_steps=len(training_set.train) // arguments.batch_size,
        num_pictures=training_set.num_pictures,
        num_threads=arguments.threads,
        cache_size_bytes=2**30,
    )

    def epoch(number: int) -> Iterator[int]:
        for batch in feed.training_batches(number):
            yield len(to_device(batch, preprocessing, torch.device("cpu"))[0])

    torch.set_num_threads(1)
    return epoch


def _timm(arguments: argparse.Namespace, *, num_workers: int, use_prefetcher: bool) -> Epoch:
    import torch
    from timm.data import create_dataset, create_loader

    augment = _spec(arguments).augment
    jitter = augment.colour
    torch.set_num_threads(1)
    loader = create_loader(
        create_dataset("", root=str(_store(arguments))),
        input_size=(3, arguments.image_size, arguments.image_size),
        batch_size=arguments.batch_size,
        is_training=True,
        scale=augment.crop_scale,
        hflip=0.5,
        color_jitter=(jitter.brightness, jitter.contrast, jitter.saturation) if jitter.brightness else None,
        re_prob=augment.erase,
        re_mode="pixel",
        interpolation="bicubic",
        mean=_MEAN,
        std=_STD,
        num_workers=num_workers,
        use_prefetcher=use_prefetcher,
        device=torch.device("cpu"),
    )
    return lambda number: (len(pixels) for pixels, _ in loader)


def _ray_data(arguments: argparse.Namespace) -> Epoch:
    import numpy as np
    import ray
    import torch

    from labelmill.images.augment import training_pixels
    from labelmill.images.transform import Preprocessing
    from labelmill.train.loop.loop import to_device

    spec, preprocessing = _spec(arguments), Preprocessing(arguments.image_size, 1.0, _MEAN, _STD)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    torch.set_num_threads(1)

    def decoded(rows: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng()
        data = (Path(path).read_bytes() for path in rows["path"])
        return {"pixels": np.stack([training_pixels(one, preprocessing, spec.augment, rng=rng) for one in data])}

    paths = [{"path": str(path)} for path in sorted(_store(arguments).rglob("*.*"))]

    def epoch(number: int) -> Iterator[int]:
        pictures = ray.data.from_items(paths, override_num_blocks=len(paths) // arguments.batch_size)
        shuffled = pictures.random_shuffle(seed=number).map_batches(decoded, batch_size=arguments.batch_size)
        for batch in shuffled.iter_batches(batch_size=arguments.batch_size, drop_last=True, prefetch_batches=2):
            targets = np.zeros((arguments.batch_size, 2), dtype=np.float32)
            yield len(to_device((batch["pixels"].copy(), targets), preprocessing, torch.device("cpu"))[0])

    return epoch


_CONTENDERS: dict[str, Callable[[argparse.Namespace], Epoch]] = {
    "labelmill": _labelmill,
    "timm, 1 worker": lambda arguments: _timm(arguments, num_workers=1, use_prefetcher=True),
    "timm, 2 workers": lambda arguments: _timm(arguments, num_workers=2, use_prefetcher=True),
    "timm, no worker": lambda arguments: _timm(arguments, num_workers=0, use_prefetcher=True),
    "timm, no prefetcher": lambda arguments: _timm(arguments, num_workers=2, use_prefetcher=False),
    "Ray Data": _ray_data,
}


def _spec(arguments: argparse.Namespace) -> Any:
    from labelmill.spec import TrainSpec

    augment = {"preset": arguments.preset} | (
        {"crop_scale": arguments.crop_scale} if arguments.crop_scale is not None else {}
    )
    return TrainSpec.model_validate(
        {
            "kind": "train",
            "name": "feed",
            "registry": str(arguments.work / "registry"),
            "task": "multi_class",
            "data": {
                "images": str(_store(arguments)),
                "labels": "folders",
                "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            },
            "model": {"architecture": "timm/resnet18", "weights": "scratch", "image_size_px": arguments.image_size},
            "augment": augment,
            "optimize": {"batch_size": arguments.batch_size, "epochs": arguments.epochs + 1},
        }
    )


def _store(arguments: argparse.Namespace) -> Path:
    """The pictures, half of them in each of two folders: every loader here wants labels."""
    root: Path = arguments.work / f"labelled-{arguments.count}"
    if not root.exists():
        arguments.work.mkdir(parents=True, exist_ok=True)
        flat = many_pictures(unique_pictures(arguments.pictures, arguments.work), arguments.count, arguments.work)
        making = root.with_suffix(".making")
        for label in ("even", "odd"):
            (making / label).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(sorted(flat.iterdir())):
            os.link(path, making / ("odd" if number % 2 else "even") / path.name)
        making.rename(root)
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="a folder of pictures, searched recursively")
    parser.add_argument("--preset", choices=["light", "medium"], default="light", help="default: %(default)s")
    parser.add_argument("--crop-scale", type=float, nargs=2, help="instead of the preset's")
    parser.add_argument("--image-size", type=int, default=224, help="side of the views (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=2000, help="pictures an epoch (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="measured epochs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of ours that decode (default: %(default)s)")
    parser.add_argument("--contenders", nargs="+", choices=list(_CONTENDERS), help="default: all")
    parser.add_argument("--only", choices=list(_CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, default=Path("feed-work"), help="kept between runs (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
