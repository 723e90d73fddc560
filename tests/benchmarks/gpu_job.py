"""A whole label job under Ray on the GPUs of this machine, start-up included: what its receipt says.

    CUDA_VISIBLE_DEVICES=0 PYTHONPATH=platform python tests/benchmarks/gpu_job.py PHOTOS --work WORK

The pictures of PHOTOS are linked to often enough. The network is untrained, which its speed does not tell; but its
labels lie so close to one another that `precision: auto` would not take bfloat16, as it does with a trained one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from account import command, machine, write_json
from gpu import driver, untrained
from store import many_pictures, unique_pictures

_FIGURES = (
    "engine",
    "workers",
    "cores",
    "gpus",
    "outcome",
    "pictures_labelled",
    "statuses",
    "wall_s",
    "labelling_s",
    "pictures_per_s",
    "steady_pictures_per_s",
    "computed_in",
    "startup_s",
    "operators",
    "pictures_per_gpu_s",
    "cpu_s_per_1000",
    "peak_memory_bytes",
    "stage_s",
    "bottleneck",
)


def main() -> None:
    arguments = parse()
    work = arguments.work.resolve()
    shutil.rmtree(work / "job", ignore_errors=True)
    (work / "job").mkdir(parents=True)
    os.environ["LABELMILL_CACHE"] = str(work / "cache")
    untrained(arguments.architecture, work / "job")
    store = many_pictures(unique_pictures(arguments.pictures, work), arguments.count, work)
    spec = {
        "kind": "label",
        "name": "gpu-job",
        "registry": str(work / "job" / "registry"),
        "model": "untrained@1",
        "images": str(store),
        "output": str(work / "job" / "labels"),
        "precision": "bfloat16",
    }
    file = work / "job" / "label.yaml"
    file.write_text(yaml.safe_dump(spec))
    subprocess.run([sys.executable, "-m", "labelmill", "run", str(file)], check=True)
    [receipt] = [json.loads(path.read_text()) for path in (work / "job/labels/_labelmill/receipts").glob("*.json")]
    results = {
        "benchmark": "gpu_job",
        "command": command(),
        "gpu": torch.cuda.get_device_name(),
        "driver": driver(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "receipt": {name: receipt[name] for name in _FIGURES if name in receipt},
    }
    write_json(arguments.results / f"gpu_job-{arguments.architecture.replace('/', '-')}.json", results)
    print(json.dumps(results["receipt"], indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--work", type=Path, required=True, help="where pictures, registry and table are kept")
    parser.add_argument("--architecture", default="timm/resnet50", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=60_000, help="pictures to label (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
