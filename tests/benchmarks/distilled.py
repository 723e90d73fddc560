"""Does a small network learn more with a teacher than alone?

    python tests/benchmarks/distilled.py CIFAR10 --work WORK

CIFAR10 holds train/<label>/ and test/<label>/. `labelmill run` trains a teacher, and then, for each seed, the same
student twice by the same recipe: alone, and with `distill: {teachers: [...]}`. That block is all that differs.
"""

import argparse
import csv
import os
import statistics
import time
from pathlib import Path
from typing import Any

from account import command, machine, write_json

import labelmill.train
from labelmill.spec import LoadedSpec, TrainSpec


def main() -> None:
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ["LABELMILL_CACHE"] = str(arguments.work / "cache")
    labels = write_labels(arguments)
    teacher = train(arguments, labels, "teacher", arguments.teacher, arguments.teacher_epochs, seed=0)
    distill = {
        "teachers": [teacher["model"]],
        "temperature": arguments.temperature,
        "weight": arguments.weight,
    }
    students: dict[str, list[dict[str, Any]]] = {"alone": [], "distilled": []}
    for seed in range(arguments.seeds):
        for name, block in (("alone", {}), ("distilled", {"distill": distill})):
            found = train(arguments, labels, name, arguments.student, arguments.epochs, seed=seed, **block)
            students[name].append(found)
            print(f"{name}, seed {seed}: {found['accuracy']:.4f}", flush=True)
    means = {name: statistics.fmean(run["accuracy"] for run in runs) for name, runs in students.items()}
    results = {
        "benchmark": "distilled",
        "command": command(),
        "machine": machine(),
        "student": arguments.student,
        "image_size_px": arguments.image_size_px,
        "points_gained": round(100 * (means["distilled"] - means["alone"]), 2),
        "mean_accuracy": {name: round(mean, 4) for name, mean in means.items()},
        "teacher": teacher,
        "distill": distill,
        "students": students,
    }
    write_json(arguments.results / "distilled.json", results)
    print(f"- teacher: {teacher['accuracy']:.4f}\n- students: {results['mean_accuracy']}")
    print(f"- points_gained: {results['points_gained']}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path, help="folder with train/<label>/ and test/<label>/")
    parser.add_argument("--work", type=Path, required=True, help="where registry and cache are kept")
    parser.add_argument("--teacher", default="timm/resnet18", help="default: %(default)s")
    parser.add_argument("--student", default="timm/test_resnet", help="default: %(default)s")
    parser.add_argument("--image-size-px", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--teacher-epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="of the students (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=4.0, help="default: %(default)s")
    parser.add_argument("--weight", type=float, default=0.7, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def write_labels(arguments: argparse.Namespace) -> Path:
    """All pictures: those of test measure, a tenth of train chooses the epoch."""
    labels: Path = arguments.work / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "split"])
        for split in ("train", "test"):
            for number, path in enumerate(sorted(arguments.cifar10.glob(f"{split}/*/*"))):
                part = "validation" if split == "train" and number % 10 == 0 else split
                rows.writerow([path.relative_to(arguments.cifar10), path.parent.name, part])
    return labels


def train(
    arguments: argparse.Namespace, labels: Path, name: str, architecture: str, epochs: int, *, seed: int, **blocks: Any
) -> dict[str, Any]:
    """Train and publish, unless the same spec did before; what came of it."""
    source = {
        "kind": "train",
        "name": name,
        "registry": str(arguments.work / "registry"),
        "task": "multi_class",
        "data": {"images": str(arguments.cifar10.absolute()), "labels": str(labels.absolute())},
        "model": {"architecture": architecture, "weights": "scratch", "image_size_px": arguments.image_size_px},
        "optimize": {
            "epochs": epochs,
            "batch_size": 64,
            "learning_rate": arguments.learning_rate,
            "warmup_epochs": 1,
            "seed": seed,
        },
        "workers": {"count": 1},
        **blocks,
    }
    started = time.monotonic()
    bundle = labelmill.train.run(LoadedSpec(TrainSpec.model_validate(source), source, name)).bundle
    return {
        "model": bundle.reference,
        "architecture": architecture,
        "epochs": epochs,
        "seed": seed,
        "accuracy": bundle.metrics["test"]["accuracy"],
        "test_pictures": bundle.metrics["test"]["num_pictures"],
        "wall_s": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    main()
