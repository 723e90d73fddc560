"""Is a network in 8-bit integers faster, and as good?

    python tests/benchmarks/quantized.py CIFAR10 --work WORK

CIFAR10 holds train/<label>/ and test/<label>/. A network is trained within the benchmark (trained.py) and published;
`labelmill run` with approach: quantize makes an 8-bit version of it, calibrated on training pictures; both answer the
test pictures. Then the forward pass of either is timed on one thread, in turns, in pictures per CPU-second.
"""

import argparse
import csv
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from account import command, machine, write_json
from trained import trained_network

import labelmill.train
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec

_BATCH, _BATCHES_A_TURN = 8, 4


def main() -> None:
    arguments = parse()
    os.environ["LABELMILL_CACHE"] = str(arguments.work / "cache")
    source = arguments.cifar10
    model = trained_network(
        arguments.work / "models", arguments.architecture, source / "train", arguments.epochs, arguments.max_pictures
    )
    loaded = quantize_spec(arguments, model / "registry")
    bundle = labelmill.train.run(loaded).bundle
    whole = Registry(loaded.spec.registry).resolve("bench@1")
    labelers = {"float32": Labeler(whole, "openvino", num_threads=1), "int8": Labeler(bundle, num_threads=1)}
    assert [labeler.precision for labeler in labelers.values()] == list(labelers)
    turns = in_turns(labelers, arguments.turns)
    medians = {name: statistics.median(rates) for name, rates in turns.items()}
    found = bundle.metrics["findings"]["quantize"]
    results: dict[str, Any] = {
        "benchmark": "quantized",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "image_size_px": whole.preprocessing.image_size_px,
        "speedup": round(medians["int8"] / medians["float32"], 3),
        "points_lost": round(100 * found["loss"], 2),
        "accuracy": {"float32": found["before"], "int8": found["after"], "test_pictures": found["num_pictures"]},
        "calibration_pictures": found["num_calibration_pictures"],
        "pictures_per_cpu_s": {name: round(rate, 2) for name, rate in medians.items()},
        "turns": {name: [round(rate, 2) for rate in rates] for name, rates in turns.items()},
        "weights_bytes": {"float32": found["size_bytes_before"], "int8": found["size_bytes_after"]},
    }
    write_json(arguments.results / f"quantized-{arguments.architecture.replace('/', '-')}.json", results)
    for name in ("speedup", "points_lost", "accuracy", "pictures_per_cpu_s"):
        print(f"- {name}: {results[name]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar10", type=Path, help="folder with train/<label>/ and test/<label>/")
    parser.add_argument("--work", type=Path, required=True, help="where networks, registry and cache are kept")
    parser.add_argument("--architecture", default="timm/resnet18", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=6, help="of training, on small pictures (default: %(default)s)")
    parser.add_argument("--max-pictures", type=int, default=10_000, help="to train on (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=20, help="of timing, each of 32 pictures (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def quantize_spec(arguments: argparse.Namespace, registry: Path) -> LoadedSpec:
    """The spec of the run: the ranges come from training pictures, a quarter of the test pictures chooses nothing but
    is asked for, and the others measure."""
    labels = arguments.work / "labels.csv"
    with labels.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "split"])
        for split in ("train", "test"):
            for number, path in enumerate(sorted(arguments.cifar10.glob(f"{split}/*/*"))):
                part = "validation" if split == "test" and number % 4 == 0 else split
                rows.writerow([path.relative_to(arguments.cifar10), path.parent.name, part])
    source = {
        "kind": "train",
        "name": "bench",
        "registry": str(registry),
        "task": "multi_class",
        "approach": "quantize",
        "data": {"images": str(arguments.cifar10.absolute()), "labels": str(labels.absolute())},
        "quantize": {"model": "bench@1", "max_accuracy_loss": 1.0},
    }
    return LoadedSpec(TrainSpec.model_validate(source), source, "quantize")


def in_turns(labelers: dict[str, Labeler], turns: int) -> dict[str, list[float]]:
    """Pictures per CPU-second of each, turn by turn, so that a busy machine slows them alike."""
    side = next(iter(labelers.values())).bundle.preprocessing.image_size_px
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, side, side, 3), dtype=np.uint8)
    rates: dict[str, list[float]] = {name: [] for name in labelers}
    for labeler in labelers.values():
        labeler.confidences(pixels)  # the first call prepares memory
    for _ in range(turns):
        for name, labeler in labelers.items():
            started = time.process_time()
            for _ in range(_BATCHES_A_TURN):
                labeler.confidences(pixels)
            rates[name].append(_BATCH * _BATCHES_A_TURN / (time.process_time() - started))
    return rates


if __name__ == "__main__":
    main()
