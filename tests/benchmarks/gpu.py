"""How much of a GPU does labelling use? Decoding, the network, and the two overlapped; without Ray.

    PYTHONPATH=platform python tests/benchmarks/gpu.py PHOTOS

`overlapped` is what the process does that has a GPU in a label job: so many threads each take the bytes of a batch of
JPEGs to the network's answers. `share_of_forward` is the best of them over the forward pass alone, of the same engine,
with its pixels on the GPU already. `forward_compiled` is that of `torch.compile`, which the engine does not use. The
figures are pictures a second.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from account import bars, command, machine, write_json, write_plot

from labelmill.images.screen import size_for_gpu
from labelmill.images.transform import evaluation_views
from labelmill.model.bundle import WEIGHTS_NAME, Bundle, BundleDraft
from labelmill.model.engines.gpu_decoder import decode, views
from labelmill.model.engines.torch_engine import TorchEngine
from labelmill.model.labeler import Labeler
from labelmill.model.network import build_network, default_preprocessing, save_weights
from labelmill.model.registry import Registry

_BATCH = 128


def main() -> None:
    arguments = parse()
    if not torch.cuda.is_available():
        raise SystemExit("expected a GPU that torch can use, found none")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABELMILL_CACHE"] = f"{folder}/cache"
        bundle = untrained(arguments.architecture, Path(folder))
        found = measure(arguments, bundle, Path(folder) / "registry")
    results = {
        "benchmark": "gpu",
        "command": command(),
        "gpu": torch.cuda.get_device_name(),
        "driver": driver(),
        "machine": machine(),
        "architecture": arguments.architecture,
        **found,
    }
    name = f"gpu-{arguments.architecture.replace('/', '-')}"
    write_json(arguments.results / f"{name}.json", results)
    shown = {
        "the limit": found["forward_alone"],
        "labelmill": max(found["overlapped"].values()),
        "decoded by nvJPEG": found["decode_alone"],
        "and resized": found["decode_and_resize_alone"],
        "decoded by all cores": found["decode_on_the_cores"],
    }
    write_plot(arguments.results / f"{name}.svg", [bars(f"{arguments.architecture}, pictures a second", shown)])
    for key, value in found.items():
        print(f"- {key}: {value}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--architecture", default="timm/resnet50", help="default: %(default)s")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3, 4], help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def untrained(architecture: str, folder: Path) -> Bundle:
    """Speed does not depend on the weights."""
    torch.manual_seed(0)
    draft = folder / "draft"
    (draft / "report").mkdir(parents=True)
    (draft / "report" / "index.html").write_text("untrained")
    labels = tuple(f"label-{number}" for number in range(1000))
    save_weights(build_network(architecture, len(labels)), draft / WEIGHTS_NAME)
    card = BundleDraft(
        folder=draft,
        task="multi_class",
        architecture=architecture,
        labels=labels,
        preprocessing=default_preprocessing(architecture),
        thresholds=(0.0,) * len(labels),
        calibration=None,
        metrics={},
        data_fingerprint="0" * 64,
        spec={"kind": "train", "name": "untrained"},
        library_versions={"torch": torch.__version__},
    )
    return Registry(str(folder / "registry")).publish("untrained", card)


def measure(arguments: argparse.Namespace, bundle: Bundle, registry: Path) -> dict[str, Any]:
    images, seconds = read(arguments.pictures), arguments.seconds
    images = [image for image in images if size_for_gpu(image, [bundle.preprocessing], max_pixels=10**9)]
    batches = [[images[(start + row) % len(images)] for row in range(_BATCH)] for start in range(0, 64 * 37, 37)]
    joined = [(np.frombuffer(b"".join(batch), np.uint8), [len(image) for image in batch]) for batch in batches]
    engine = TorchEngine(bundle)
    side_px = bundle.preprocessing.image_size_px
    pixels = torch.randint(0, 256, (256, side_px, side_px, 3), dtype=torch.uint8, device="cuda")
    nothing, device = np.empty((0, side_px, side_px, 3), np.uint8), torch.device("cuda")

    def forward_alone(_: int) -> int:
        return len(engine.forward(pixels)[0])

    def decode_alone(turn: int) -> int:
        return len(decode(*joined[turn % len(joined)], device) or [])

    def decode_and_resize(turn: int) -> int:
        return len(views(decode(*joined[turn % len(joined)], device) or [], bundle.preprocessing))

    def overlapped(turn: int) -> int:
        [(logits, _)] = engine.gpu.forward(*joined[turn % len(joined)], [nothing])  # type: ignore[union-attr]
        return len(logits)

    labeler = Labeler(bundle, "torch", batch_size=_BATCH)

    def whole(turn: int) -> int:
        answers = labeler.label(batches[turn % len(batches)])
        return sum(answer.status == "ok" for answer in answers)

    chosen, by_batch = engine._largest, {}
    for size in (32, 64, 128, 256):
        engine._largest = size
        by_batch[str(size)] = rate(overlapped, seconds, max(arguments.threads))
    engine._largest = chosen
    threads = {str(count): rate(overlapped, seconds, count) for count in arguments.threads}
    found: dict[str, Any] = {
        "pictures": len(images),
        "left_to_the_cores": len(read(arguments.pictures)) - len(images),
        "precision": engine.precision,
        "batch_of_the_network": engine._largest,
        "forward_alone": rate(forward_alone, seconds),
        "decode_alone": rate(decode_alone, seconds),
        "decode_and_resize_alone": rate(decode_and_resize, seconds),
        "overlapped": threads,
        "overlapped_by_batch_of_the_network": by_batch,
        "one_process_from_bytes_to_answers": rate(whole, seconds, 4),
        "cores": len(os.sched_getaffinity(0)),
        "decode_on_the_cores": on_all_cores(registry, arguments),
        "forward_compiled": compiled(engine, pixels, seconds),
    }
    found["share_of_forward"] = round(max(threads.values()) / found["forward_alone"], 3)
    return found


def read(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


def rate(step: Callable[[int], int], seconds: float, threads: int = 1) -> float:
    """Pictures a second that so many threads get through; the first steps, which load and record, do not count."""
    for turn in range(3):
        step(turn)
    torch.cuda.synchronize()
    started = time.perf_counter()

    def work(first: int) -> int:
        turn, count = first, 0
        while time.perf_counter() - started < seconds:
            count += step(turn)
            turn += threads
        return count

    with ThreadPoolExecutor(threads) as pool:
        count = sum(pool.map(work, range(threads)))
    torch.cuda.synchronize()
    return round(count / (time.perf_counter() - started), 1)


def compiled(engine: TorchEngine, pixels: torch.Tensor, seconds: float) -> dict[str, float] | None:
    """What `torch.compile` would give and take; None where it finds no C compiler."""
    network = torch.compile(engine._module, dynamic=False)
    started = time.perf_counter()

    def step(_: int) -> int:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            return len(network(pixels))

    try:
        step(0)
    except RuntimeError as exc:
        print(f"torch.compile: {str(exc).splitlines()[0]}")
        return None
    torch.cuda.synchronize()
    compile_s = time.perf_counter() - started
    return {"pictures_per_s": rate(step, seconds), "compile_s": round(compile_s, 1)}


def on_all_cores(registry: Path, arguments: argparse.Namespace) -> float:
    """What as many processes as there are cores decode and resize without a GPU."""
    count = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    barrier, answers = context.Barrier(count), context.SimpleQueue()
    given = (registry, arguments.pictures, arguments.seconds, barrier, answers)
    processes = [context.Process(target=_decode_on_a_core, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return round(sum(answers.get() for _ in processes), 1)


def _decode_on_a_core(registry: Path, pictures: Path, seconds: float, barrier: Barrier, answers: Any) -> None:
    preprocessing = Registry(str(registry)).resolve("untrained@1").preprocessing
    images, count = read(pictures), 0
    barrier.wait()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        evaluation_views(images[count % len(images)], [preprocessing])
        count += 1
    answers.put(count / (time.perf_counter() - started))


def driver() -> str:
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
    )
    return asked.stdout.strip()


if __name__ == "__main__":
    main()
