"""Measures what a loss and chosen thresholds are worth with several labels a picture, and what calibration does.

    python tests/benchmarks/mosaics.py TRAIN TEST --seeds 0 1 2

TRAIN and TEST hold a folder of pictures for each label. Four of them side by side make a picture whose labels are those
of its parts; a few labels are made rare. The same network learns them from scratch once by plain binary cross-entropy
and once by the asymmetric loss. Macro F1 is taken on the test pictures, at a threshold of 0.5 on confidences as they
come, and at the thresholds that labelmill chose on the validation pictures after it calibrated the model.
"""

import argparse
import csv
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from account import bars, command, machine, write_json, write_plot
from measuring import measure as run_measured
from PIL import Image

from labelmill.dataset import Examples, load_examples
from labelmill.evaluate.answers import answer, measure
from labelmill.metrics import reliability
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry

_LOSSES = {"cross_entropy": {"name": "cross_entropy"}, "asymmetric": {"name": "asymmetric"}}
_PART_PX = 32
_SPLITS = ("train", "validation", "test")


def main() -> None:
    arguments = _arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    folder = arguments.work.resolve()
    sizes = dict(zip(_SPLITS, (arguments.mosaics, arguments.mosaics // 4, arguments.mosaics // 2), strict=True))
    write_mosaics(arguments.train, arguments.test, folder / "pictures", sizes)
    runs = [
        found
        for seed in arguments.seeds
        for loss in _LOSSES
        for found in [trained(folder, loss, seed, arguments.epochs, arguments.architecture)]
    ]
    summary = _summary(runs)
    about = {"benchmark": "mosaics", "command": command(), "machine": machine(), "mosaics": sizes}
    write_json(arguments.results / "mosaics.json", {**about, "summary": summary, "runs": runs})
    charts = {name: {key: row[name] for key, row in summary.items()} for name in ("macro_f1", "ece")}
    titles = {"macro_f1": "macro F1, mean of the seeds", "ece": "expected calibration error, mean of the seeds"}
    write_plot(arguments.results / "mosaics.svg", [bars(titles[name], values) for name, values in charts.items()])
    print(json.dumps(summary, indent=2))


def write_mosaics(train: Path, test: Path, folder: Path, sizes: dict[str, int]) -> None:
    """Write the pictures and `labels.csv`. A label's share falls from common to rare, ten to one."""
    labels = sorted(path.name for path in train.iterdir() if path.is_dir())
    shares = np.geomspace(1, 0.1, len(labels))
    learnt, kept = ({label: sorted((root / label).iterdir()) for label in labels} for root in (train, test))
    parts = {  # no picture is part of mosaics of two splits
        "train": {label: files[: len(files) * 4 // 5] for label, files in learnt.items()},
        "validation": {label: files[len(files) * 4 // 5 :] for label, files in learnt.items()},
        "test": kept,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "split"])
        for number, split in enumerate(_SPLITS):
            rng = np.random.default_rng(number)
            for index in range(sizes[split]):
                chosen = rng.choice(labels, 4, p=shares / shares.sum())
                files = [parts[split][label][rng.integers(len(parts[split][label]))] for label in chosen]
                name = f"{split}-{index:05d}.png"
                _mosaic(files).save(folder / name)
                rows.writerow([name, ";".join(sorted(set(chosen.tolist()))), split])


def _mosaic(files: Sequence[Path]) -> Image.Image:
    canvas = Image.new("RGB", (2 * _PART_PX, 2 * _PART_PX))
    for place, file in enumerate(files):
        with Image.open(file) as part:
            canvas.paste(
                part.convert("RGB").resize((_PART_PX, _PART_PX)), (place % 2 * _PART_PX, place // 2 * _PART_PX)
            )
    return canvas


def trained(folder: Path, loss: str, seed: int, epochs: int, architecture: str) -> dict[str, Any]:
    """Train by the command line, and measure the published bundle at both kinds of threshold."""
    spec = {
        "kind": "train",
        "name": "mosaics",
        "registry": str(folder / f"registry-{loss}-{seed}"),
        "task": "multi_label",
        "data": {"images": str(folder / "pictures"), "labels": str(folder / "pictures" / "labels.csv")},
        "model": {"architecture": architecture, "weights": "scratch", "image_size_px": 2 * _PART_PX},
        "augment": {"crop_scale": [0.9, 1.0]},
        "optimize": {"epochs": epochs, "batch_size": 64, "learning_rate": 2e-3, "seed": seed, "loss": _LOSSES[loss]},
    }
    file = folder / f"{loss}-{seed}.json"
    file.write_text(json.dumps(spec, indent=2))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run_measured([sys.executable, "-m", "labelmill", "run", str(file)], environ, folder / f"{loss}-{seed}.log")
    bundle = Registry(str(spec["registry"])).resolve("mosaics@1")
    examples = _test_examples(folder / "pictures", bundle.labels)
    answers = answer(Labeler(bundle), examples)
    plain = replace(bundle, calibration=None, thresholds=(0.5,) * len(bundle.labels))
    found: dict[str, Any] = {"loss": loss, "seed": seed}
    for name, card in (("at_half", plain), ("chosen", bundle)):
        metrics = measure(card, answers)
        ece = reliability(card.task, answers.targets, card.confidences(answers.logits))["ece"]
        found[name] = {
            "macro_f1": metrics["macro_f1"],
            "micro_f1": metrics["micro_f1"],
            "map": metrics["map"],
            "ece": ece,
        }
    print(json.dumps(found), flush=True)
    return found


def _test_examples(folder: Path, labels: tuple[str, ...]) -> Examples:
    everything = load_examples(str(folder), str(folder / "labels.csv"), task="multi_label", known=labels)
    rows = [row for row, uri in enumerate(everything.uris.to_pylist()) if Path(uri).name.startswith("test-")]
    return everything.take(np.array(rows))


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        f"{loss}, {words}": {
            name: round(statistics.mean(run[key][name] for run in runs if run["loss"] == loss), 4)
            for name in ("macro_f1", "micro_f1", "map", "ece")
        }
        for loss in _LOSSES
        for key, words in (("at_half", "threshold 0.5, uncalibrated"), ("chosen", "chosen thresholds, calibrated"))
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="a folder of pictures for each label, to learn from")
    parser.add_argument("test", type=Path, help="the same, to measure on")
    parser.add_argument("--architecture", default="timm/resnet10t", help="default: %(default)s")
    parser.add_argument("--mosaics", type=int, default=4000, help="to learn from (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run of each (default: 0 1 2)")
    parser.add_argument("--work", type=Path, default=Path("benchmark-work/mosaics"), help="for runs and their logs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="default: beside this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
