"""The limit: our own decode and our own forward, bare. One process a core, pictures in memory; no Ray, store or rows.

Writes limit.json: pictures a second over all cores, and those of decode and of forward alone.
"""

import json
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from field.trial import Trial
from labelmill.images.transform import evaluation_pixels
from labelmill.model.engines import load_engine
from labelmill.model.registry import Registry


def main() -> None:
    trial = Trial.of_this_process()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(trial.cores), context.SimpleQueue()
    workers = [context.Process(target=work, args=(trial, barrier, results)) for _ in range(trial.cores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed: its error stands above")
    found = [results.get() for _ in workers]
    # The processes begin together; each has its own share, and the machine's rate is the sum of theirs.
    limit = {
        "pictures_per_s": sum(one["pictures"] / one["wall_s"] for one in found),
        "decode_alone_pictures_per_s": sum(one["pictures"] / one["decode_s"] for one in found),
        "forward_alone_pictures_per_s": sum(one["pictures"] / one["forward_s"] for one in found),
        "cpu_s_per_1000": 1000 * sum(one["cpu_s"] for one in found) / sum(one["pictures"] for one in found),
    }
    Path(trial.output, "limit.json").write_text(json.dumps(limit))


def work(trial: Trial, barrier: Barrier, results: Any) -> None:
    bundle = Registry(str(Path(trial.model, "registry"))).resolve("bench@1")
    engine = load_engine(
        bundle,
        trial.settings.get("engine", "openvino"),
        precision=trial.settings.get("precision", "auto"),
        num_threads=1,
    )
    files = sorted(Path(trial.pictures).iterdir())[: trial.settings["in_memory"]]
    pictures = [path.read_bytes() for path in files]
    share, batch_size = trial.count // trial.cores, trial.settings["batch_size"]
    decode_s = forward_s = 0.0
    engine.forward(np.stack([evaluation_pixels(data, bundle.preprocessing)[0] for data in pictures[:batch_size]]))
    barrier.wait(timeout=120)  # broken by one that failed
    started, started_cpu = time.perf_counter(), time.process_time()
    for start in range(0, share, batch_size):
        begun = time.perf_counter()
        batch = [pictures[index % len(pictures)] for index in range(start, min(share, start + batch_size))]
        pixels = np.stack([evaluation_pixels(data, bundle.preprocessing)[0] for data in batch])
        decoded = time.perf_counter()
        engine.forward(pixels)
        decode_s += decoded - begun
        forward_s += time.perf_counter() - decoded
    wall_s = time.perf_counter() - started
    cpu_s = time.process_time() - started_cpu
    results.put({"pictures": share, "wall_s": wall_s, "cpu_s": cpu_s, "decode_s": decode_s, "forward_s": forward_s})


if __name__ == "__main__":
    main()
