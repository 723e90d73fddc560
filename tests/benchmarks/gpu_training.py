"""One training run in bfloat16 on a GPU, beside forward and backward passes alone.

    CUDA_VISIBLE_DEVICES=0 PYTHONPATH=platform python tests/benchmarks/gpu_training.py PHOTOS --work WORK

The pictures of PHOTOS are linked to often enough; their labels mean nothing, which the speed does not tell. The rate of
labelmill is that of the epochs after the first: pictures read, decoded, augmented, and a step of the optimizer for each
batch. `steps_alone` does those steps on one batch that is on the GPU already.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from account import command, machine, write_json
from gpu import driver
from store import many_pictures, original_name, unique_pictures

from labelmill.model.network import build_network

_LABELS = 10
_EPOCH = re.compile(r"epoch \d+/\d+ .*?([0-9.,]+) pictures/s")


def main() -> None:
    arguments = parse()
    work = arguments.work.resolve()
    shutil.rmtree(work / "training", ignore_errors=True)
    (work / "training").mkdir(parents=True)
    os.environ["LABELMILL_CACHE"] = str(work / "cache")
    spec = write_spec(arguments, work)
    alone = steps_alone(arguments)
    rates: list[float] = []
    for rate in trained(spec):
        rates.append(rate)
        if len(rates) > 1:  # after each epoch, since a machine that is lent may be taken back
            write_rates(arguments, rates, alone)


def write_rates(arguments: argparse.Namespace, rates: list[float], alone: float) -> None:
    steady = sum(rates[1:]) / len(rates[1:])
    results = {
        "benchmark": "gpu_training",
        "command": command(),
        "gpu": torch.cuda.get_device_name() if arguments.gpus else None,
        "driver": driver() if arguments.gpus else None,
        "machine": machine(),
        "architecture": arguments.architecture,
        "optimize": optimize(arguments),
        "pictures_per_s_of_each_epoch": rates,
        "pictures_per_s": round(steady, 1),
        "steps_alone_pictures_per_s": alone,
        "share_of_steps_alone": round(steady / alone, 3),
    }
    write_json(arguments.results / f"gpu_training-{arguments.architecture.replace('/', '-')}.json", results)
    print(results, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--work", type=Path, required=True, help="where pictures and registry are kept")
    parser.add_argument("--architecture", default="timm/resnet50", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=16_000, help="pictures to train on (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--image-size-px", type=int, default=224, help="default: %(default)s")
    parser.add_argument("--gpus", type=int, default=1, help="0 trains on the CPU, to try this file (default: 1)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def optimize(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": 1e-3,
        "precision": "bfloat16" if arguments.gpus else "float32",
    }


def write_spec(arguments: argparse.Namespace, work: Path) -> Path:
    """The spec of the run, which names pictures and labels that lie in `work`."""
    store = many_pictures(unique_pictures(arguments.pictures, work), arguments.count, work)
    labels = work / "training" / "labels.csv"
    names = sorted(path.name for path in store.iterdir())
    number_of = {name: number for number, name in enumerate(sorted({original_name(name) for name in names}))}
    with labels.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "split"])
        for number, name in enumerate(names):
            split = {0: "validation", 1: "test"}.get(number // len(number_of) % 40, "train")
            rows.writerow([name, f"label-{number_of[original_name(name)] % _LABELS}", split])
    source = {
        "kind": "train",
        "name": "gpu-training",
        "registry": str(work / "training" / "registry"),
        "task": "multi_class",
        "data": {"images": str(store), "labels": str(labels)},
        "model": {
            "architecture": arguments.architecture,
            "weights": "scratch",
            "image_size_px": arguments.image_size_px,
        },
        "optimize": optimize(arguments),
        "workers": {"count": 1, "gpus": arguments.gpus},
    }
    file = work / "training" / "train.json"
    file.write_text(json.dumps(source))
    return file


def trained(spec: Path) -> Iterator[float]:
    """Pictures a second of each epoch, when it ends. What the run says is passed on."""
    command = [sys.executable, "-m", "labelmill", "run", str(spec)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="", flush=True)
            if found := _EPOCH.search(line):
                yield float(found[1].replace(",", ""))
    if run.returncode:
        raise SystemExit(run.returncode)


def steps_alone(arguments: argparse.Namespace) -> float:
    """Forward, backward and the optimizer's step, in the same precision and layout."""
    device = torch.device("cuda" if arguments.gpus else "cpu")
    network = build_network(arguments.architecture, _LABELS, image_size_px=arguments.image_size_px).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    shape = (arguments.batch_size, 3, arguments.image_size_px, arguments.image_size_px)
    pixels = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    targets = torch.randint(0, _LABELS, (arguments.batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bool(arguments.gpus)):
            logits = network(pixels).float()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()

    for _ in range(5):
        step()
    if arguments.gpus:
        torch.cuda.synchronize()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 5:
        step()
        if arguments.gpus:
            torch.cuda.synchronize()
        count += 1
    return round(count * arguments.batch_size / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    main()
