"""Ten pictures a class: a last layer on frozen features against fine-tuning everything.

    python tests/benchmarks/few_shot.py CIFAR10

CIFAR10 holds train/<label>/ and test/<label>/. A backbone learns six of the labels from --backbone-pictures each; of
the other four there are ten labelled pictures each, eight that train and two that validate, drawn anew in each of
--draws rounds. Each round makes a version by linear_probe, by prototype, and by fine_tune with each of
--learning-rates, the best of which counts, chosen on the test pictures: so the comparison leans to fine_tune. All are
measured on --test-pictures test pictures of each label.
"""

import argparse
import csv
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from account import bars, command, machine, write_json, write_plot

import labelmill.train
from labelmill.model.bundle import Bundle
from labelmill.spec import load_spec

_KNOWN = ("airplane", "automobile", "bird", "cat", "deer", "dog")
_NEW = ("frog", "horse", "ship", "truck")
_NUM_TRAIN, _NUM_VALIDATION = 8, 2


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("labelmill").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="labelmill-few-shot-") as name:
        folder = Path(name)
        backbone = _backbone(folder, arguments)
        rounds = [_round(folder, arguments, draw) for draw in range(arguments.draws)]
    accuracy = {approach: [each[approach]["accuracy"] for each in rounds] for approach in rounds[0]}
    results = {
        "benchmark": "few_shot",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "image_size_px": arguments.image_size,
        "backbone": {"labels": _KNOWN, "accuracy": backbone.metrics["test"]["accuracy"]},
        "labels": _NEW,
        "pictures_per_label": {"train": _NUM_TRAIN, "validation": _NUM_VALIDATION, "test": arguments.test_pictures},
        "mean_accuracy": {approach: round(statistics.mean(values), 4) for approach, values in accuracy.items()},
        "rounds": rounds,
    }
    write_json(arguments.results / "few_shot.json", results)
    write_plot(arguments.results / "few_shot.svg", [bars("accuracy on four new classes", results["mean_accuracy"])])
    print(f"\n| approach | accuracy of {arguments.draws} draws | mean |\n|---|---|---|")
    for approach, values in accuracy.items():
        print(f"| {approach} | {', '.join(f'{value:.3f}' for value in values)} | {statistics.mean(values):.3f} |")


def _backbone(folder: Path, arguments: argparse.Namespace) -> Bundle:
    rows = [
        *_rows(
            arguments.cifar10, "train", _KNOWN, [("train", arguments.backbone_pictures), ("validation", 100)], seed=0
        ),
        *_rows(arguments.cifar10, "test", _KNOWN, [("test", 200)], seed=0),
    ]
    model = {"architecture": arguments.architecture, "weights": "scratch", "image_size_px": arguments.image_size}
    optimize = {"epochs": arguments.backbone_epochs, "batch_size": 128, "learning_rate": 2e-3}
    return _run(folder, arguments, "backbone", rows, model=model, optimize=optimize)[0]


def _round(folder: Path, arguments: argparse.Namespace, draw: int) -> dict[str, dict[str, float]]:
    rows = [
        *_rows(arguments.cifar10, "train", _NEW, [("train", _NUM_TRAIN), ("validation", _NUM_VALIDATION)], seed=draw),
        *_rows(arguments.cifar10, "test", _NEW, [("test", arguments.test_pictures)], seed=0),
    ]
    model = {"architecture": arguments.architecture, "weights": "backbone@1"}
    found: dict[str, dict[str, float]] = {}
    for approach in ("linear_probe", "prototype"):
        made = _run(
            folder, arguments, f"{approach}-{draw}", rows, model=model, approach=approach, few_shot={"views": 16}
        )
        found[approach] = _figures(*made)
    tuned = []
    for rate in arguments.learning_rates:
        optimize = {"epochs": 30, "batch_size": 16, "learning_rate": rate, "seed": draw}
        made = _run(folder, arguments, f"fine_tune-{rate:g}-{draw}", rows, model=model, optimize=optimize)
        tuned.append(_figures(*made) | {"learning_rate": rate})
    found["fine_tune"] = max(tuned, key=lambda figures: figures["accuracy"])
    return found


def _figures(bundle: Bundle, wall_s: float) -> dict[str, float]:
    return {"accuracy": bundle.metrics["test"]["accuracy"], "wall_s": round(wall_s, 1)}


def _rows(
    cifar10: Path, part: str, labels: Sequence[str], wanted: Sequence[tuple[str, int]], *, seed: int
) -> list[tuple[str, str, str]]:
    """uri, label and split: of each label as many pictures, drawn at random, for each of the wanted splits."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in labels:
        files = sorted(path.name for path in (cifar10 / part / label).iterdir())
        order = iter(rng.permutation(len(files)).tolist())
        for split, count in wanted:
            rows += [(f"{part}/{label}/{files[next(order)]}", label, split) for _ in range(count)]
    return rows


def _run(
    folder: Path, arguments: argparse.Namespace, name: str, rows: Sequence[tuple[str, str, str]], **fields: Any
) -> tuple[Bundle, float]:
    with (folder / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "labels", "split"), *rows])
    spec = {
        "kind": "train",
        "name": name,
        "registry": str(folder / "registry"),
        "task": "multi_class",
        "data": {"images": str(arguments.cifar10), "labels": str(folder / f"{name}.csv")},
        "augment": {"crop_scale": [0.5, 1.0]},
        **fields,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    started = time.monotonic()
    bundle = labelmill.train.run(load_spec(str(folder / f"{name}.yaml"))).bundle
    print(f"{name}: accuracy {bundle.metrics['test']['accuracy']:.4f}", flush=True)
    return bundle, time.monotonic() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path, help="folder with train/<label>/ and test/<label>/")
    parser.add_argument("--architecture", default="timm/resnet10t", help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=32, help="side in pixels (default: %(default)s)")
    parser.add_argument("--backbone-pictures", type=int, default=900, help="of each label (default: %(default)s)")
    parser.add_argument("--backbone-epochs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--test-pictures", type=int, default=200, help="of each label (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
