"""Measures training against a plain PyTorch and timm loop with the same recipe, pictures and splits.

    python tests/benchmarks/training.py TRAIN TEST --seeds 0 1 2

TRAIN and TEST hold a folder of pictures for each label; a tenth of TRAIN validates. Both train the same network from
scratch and keep their best epoch; test accuracy is of that one. The plain loop is fed by a DataLoader, with the number
of its workers that is fastest. Each run is a process tree of its own, the contenders take turns. The rate is that of
the epochs after the first. labelmill runs with one worker, and once with two of half the cores each.
"""

import argparse
import csv
import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from account import bars, command, machine, write_json, write_plot
from measuring import measure

from labelmill.model.registry import Registry

_BENCHMARKS = Path(__file__).parent
_EPOCH = re.compile(r"epoch \d+/\d+ .*?([0-9.]+) pictures/s")


@dataclass(frozen=True)
class Bench:
    work: Path
    recipe: dict[str, Any]
    labels: list[str]
    examples: dict[str, list[tuple[str, int]]]  # of each split: path, number of the label
    cores: int

    def labelmill(self, seed: int, workers: int) -> dict[str, Any]:
        folder = _fresh(self.work / f"labelmill-{seed}-{workers}")
        recipe = self.recipe
        spec = {
            "kind": "train",
            "name": "bench",
            "registry": str(folder / "registry"),
            "task": "multi_class",
            "data": {"images": self._root(), "labels": str(self._labels_file())},
            "model": {
                "architecture": recipe["architecture"],
                "weights": "scratch",
                "image_size_px": recipe["image_size_px"],
            },
            "augment": {"crop_scale": recipe["crop_scale"]},
            "optimize": {
                **{name: recipe[name] for name in ("epochs", "batch_size", "learning_rate", "warmup_epochs")},
                "weight_decay": recipe["weight_decay"],
                "seed": seed,
            },
            "workers": {"count": workers, "cpus": self.cores / workers},
        }
        file = folder / "train.json"
        file.write_text(json.dumps(spec, indent=2))
        cost = measure([sys.executable, "-m", "labelmill", "run", str(file)], _environment(), folder / "log.txt")
        rates = [float(rate) for rate in _EPOCH.findall((folder / "log.txt").read_text())]
        metrics = Registry(str(folder / "registry")).resolve("bench@1").metrics
        return _found(
            f"labelmill, {workers} worker{'s' * (workers > 1)}", seed, metrics["test"]["accuracy"], rates, cost
        )

    def plain(self, seed: int, loaders: int, *, epochs: int | None = None) -> dict[str, Any]:
        folder = _fresh(self.work / f"plain-{seed}-{loaders}")
        trial = {
            "recipe": self.recipe | {"seed": seed} | ({"epochs": epochs} if epochs else {}),
            "labels": self.labels,
            "examples": self.examples,
            "threads": self.cores,
            "workers": loaders,
            "result": str(folder / "result.json"),
        }
        file = folder / "trial.json"
        file.write_text(json.dumps(trial))
        cost = measure([sys.executable, "-m", "field.plain_training", str(file)], _environment(), folder / "log.txt")
        result = json.loads((folder / "result.json").read_text())
        return _found("plain loop", seed, result["accuracy"], result["pictures_per_s"], cost)

    def _root(self) -> str:
        return os.path.commonpath([path for found in self.examples.values() for path, _ in found])

    def _labels_file(self) -> Path:
        path = self.work / "labels.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["uri", "labels", "split"])
            for split, found in self.examples.items():
                rows.writerows([uri, self.labels[label], split] for uri, label in found)
        return path


def main() -> None:
    arguments = _arguments()
    bench = prepare(arguments)
    loaders = fastest_loaders(bench, arguments.loaders)
    runs: list[dict[str, Any]] = []
    for run in _runs(bench, arguments, loaders):
        runs.append(run)
        print(json.dumps(run), flush=True)
    about = {
        "benchmark": "training",
        "command": command(),
        "machine": machine(),
        "recipe": bench.recipe,
        "pictures": {split: len(found) for split, found in bench.examples.items()},
        "loaders_of_the_plain_loop": loaders,
    }
    summary = _summary(runs)
    write_json(arguments.results / "training.json", {**about, "summary": summary, "runs": runs})
    write_plot(
        arguments.results / "training.svg",
        [
            bars("test accuracy, mean of the seeds", {name: found["accuracy"] for name, found in summary.items()}),
            bars("pictures a second, steady", {name: found["pictures_per_s"] for name, found in summary.items()}),
        ],
    )
    print(_table(summary))


def prepare(arguments: argparse.Namespace) -> Bench:
    labels = sorted(path.name for path in arguments.train.iterdir() if path.is_dir())
    learnt = _examples(arguments.train, labels, arguments.train_pictures)
    examples = {
        "train": [found for index, found in enumerate(learnt) if index // len(labels) % 10],
        "validation": [found for index, found in enumerate(learnt) if not index // len(labels) % 10],
        "test": _examples(arguments.test, labels, None),
    }
    recipe = {
        "architecture": arguments.architecture,
        "image_size_px": arguments.image_size_px,
        "epochs": arguments.epochs,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "warmup_epochs": 0.5,
        "weight_decay": 0.05,
        "crop_scale": [0.5, 1.0],
    }
    arguments.work.mkdir(parents=True, exist_ok=True)
    return Bench(arguments.work.resolve(), recipe, labels, examples, len(os.sched_getaffinity(0)))


def fastest_loaders(bench: Bench, candidates: Sequence[int]) -> int:
    """The number of the DataLoader's workers that the plain loop is fastest with, by two epochs with each."""
    rates = {count: bench.plain(0, count, epochs=2)["pictures_per_s"] for count in candidates}
    print(f"plain loop, pictures/s by workers of the DataLoader: {rates}", flush=True)
    return max(rates, key=lambda count: rates[count])


def _runs(bench: Bench, arguments: argparse.Namespace, loaders: int) -> Iterator[dict[str, Any]]:
    for number, seed in enumerate(arguments.seeds):
        turns = [lambda seed=seed: bench.labelmill(seed, 1), lambda seed=seed: bench.plain(seed, loaders)]
        for turn in turns if number % 2 == 0 else turns[::-1]:
            yield turn()
    yield bench.labelmill(arguments.seeds[0], 2)


def _examples(folder: Path, labels: Sequence[str], most: int | None) -> list[tuple[str, int]]:
    """As many of each label, in an order that mixes them."""
    files = [sorted((folder / label).iterdir()) for label in labels]
    each = min(map(len, files)) if most is None else min(most // len(labels), *map(len, files))
    return [(str(files[label][index].resolve()), label) for index in range(each) for label in range(len(labels))]


def _found(name: str, seed: int, accuracy: float, rates: Sequence[float], cost: Any) -> dict[str, Any]:
    return {
        "contender": name,
        "seed": seed,
        "accuracy": accuracy,
        "pictures_per_s": statistics.median(rates[1:]),
        "wall_s": round(cost.wall_s, 2),
        "cpu_s": round(cost.cpu_s, 2),
        "peak_memory_bytes": cost.peak_memory_bytes,
        "others_cpu_s": round(cost.others_cpu_s, 2),
    }


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found = {}
    for name in dict.fromkeys(run["contender"] for run in runs):
        own = [run for run in runs if run["contender"] == name]
        accuracies = [run["accuracy"] for run in own]
        found[name] = {
            "runs": len(own),
            "accuracy": round(statistics.mean(accuracies), 4),
            "accuracy_deviation": round(statistics.stdev(accuracies), 4) if len(own) > 1 else 0.0,
            "pictures_per_s": round(statistics.median(run["pictures_per_s"] for run in own), 1),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in own), 1),
            "wall_s": round(statistics.median(run["wall_s"] for run in own), 1),
        }
    return found


def _table(summary: dict[str, dict[str, float]]) -> str:
    lines = [
        "| | runs | test accuracy | pictures/s, steady | CPU-s, whole run | s, whole run |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {found['runs']} | {found['accuracy']:.4f} ± {found['accuracy_deviation']:.4f} "
        f"| {found['pictures_per_s']:.0f} | {found['cpu_s']:.0f} | {found['wall_s']:.0f} |"
        for name, found in summary.items()
    ]
    return "\n".join(lines)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _environment() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environ | {"PYTHONPATH": os.pathsep.join([str(_BENCHMARKS), *filter(None, [environ.get("PYTHONPATH")])])}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="a folder of pictures for each label, to learn from")
    parser.add_argument("test", type=Path, help="the same, to measure on")
    parser.add_argument("--architecture", default="timm/resnet10t", help="default: %(default)s")
    parser.add_argument("--image-size-px", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--train-pictures", type=int, default=10_000, help="at most (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run of each (default: 0 1 2)")
    parser.add_argument("--loaders", type=int, nargs="+", default=[1, 2], help="workers of the DataLoader to try")
    parser.add_argument("--work", type=Path, default=Path("benchmark-work/training"), help="for runs and their logs")
    parser.add_argument("--results", type=Path, default=_BENCHMARKS / "results", help="default: beside this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
