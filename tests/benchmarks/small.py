"""What a night with little to do costs: 0, 50 and 2,000 new pictures in a store of 50,000 that are labelled already.

    git worktree add ../before COMMIT
    python tests/benchmarks/small.py PICTURES --train-folder FOLDER --before ../before --rounds 5

Runs `labelmill run` over a folder, of this checkout and of another one in turn, each time with a copy of the same
table. Reports medians of wall time and of CPU-seconds of the whole process tree, medians of what the two runs of a
round differ by, and where the wall time of this checkout's runs went, as their receipts have it; "outside" is what came
before and after: imports, the check of bundle and store, the exit.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
from account import command, compared, machine, write_json
from field.contenders import Labelmill, Python, contender_environment
from field.trial import Trial
from labelling import Labelling, add_arguments, parser_for
from measuring import measure
from store import many_pictures

_NEW = (0, 50, 2000)


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--labelled", type=int, default=50_000, help="pictures in the table (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of both (default: %(default)s)")
    arguments = add_arguments(parser).parse_args()
    labelling = Labelling.prepare(arguments)
    store = many_pictures(labelling.unique, arguments.labelled, labelling.work)
    table = _labelled_table(labelling, store)
    runs: list[dict[str, Any]] = []
    for number in range(arguments.rounds + 1):
        for new in _NEW:
            for name, checkout in (("before", arguments.before), ("now", None)):
                with _new_pictures(labelling, store, new):
                    run = {"checkout": name, "new": new, **_run(labelling, store, table, new, checkout)}
                print(f"round {number}, {new} new, {name}: {run['wall_s']:.2f} s, {run['cpu_s']:.2f} CPU-s", flush=True)
                if number:  # the first converts the network and warms the disk's cache
                    runs.append(run)
    results = {
        "benchmark": "small",
        "command": command(),
        "machine": machine(),
        "architecture": arguments.architecture,
        "labelled": arguments.labelled,
        "compared": {
            f"{new} new": {**compared(of_new, ("wall_s", "cpu_s")), "seconds": _seconds(of_new)}
            for new in _NEW
            for of_new in [[run for run in runs if run["new"] == new]]
        },
        "runs": runs,
    }
    write_json(arguments.results / "small.json", results)
    print(json.dumps(results["compared"], indent=2))


@contextmanager
def _new_pictures(labelling: Labelling, store: Path, count: int) -> Iterator[None]:
    """That many pictures more, for the time of the block."""
    names = [store / f"new-{number:06d}.jpg" for number in range(count)]
    for left in store.glob("new-*.jpg"):  # by a benchmark that was stopped
        left.unlink()
    try:
        for number, name in enumerate(names):
            os.link(labelling.unique[number % len(labelling.unique)], name)
        yield
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _labelled_table(labelling: Labelling, store: Path) -> Path:
    """A table with a row for each picture of the store, as a job by either checkout would have left it."""
    from labelmill.label.todo.settings import Settings
    from labelmill.model.registry import Registry
    from labelmill.spec import LabelSpec
    from labelmill.storage import open_store
    from labelmill.table.data_file import put_data_file
    from labelmill.table.row import DATA_SCHEMA
    from labelmill.table.writer import TableWriter

    folder = labelling.work / "small-table"
    shutil.rmtree(folder, ignore_errors=True)
    bundle = Registry(str(labelling.model / "registry")).resolve("bench@1")
    spec = LabelSpec.model_validate(
        {"kind": "label", "name": "n", "registry": "r", "model": "m@1", "images": "i", "output": "o"}
    )
    digest = Settings.of(spec).as_good[0]  # float32, which the other checkout may know by that alone
    writer, day = TableWriter(str(folder)), "2026-01-01"
    for number, batch in enumerate(open_store(str(store)).list()):
        same = {"status": "ok", "model": "bench@1", "bundle_digest": bundle.digest, "settings_digest": digest}
        rows = [row | same | {"run_id": writer.run_id, "labels": []} for row in batch.to_pylist()]
        path = f"labelled_on={day}/{number:06d}.parquet"
        table = pa.Table.from_pylist(rows, schema=DATA_SCHEMA)
        writer.commit([put_data_file(open_store(str(folder)), path, table, day)])
    return folder


def _run(labelling: Labelling, store: Path, table: Path, new: int, checkout: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=labelling.work, prefix="small-") as name:
        folder = Path(name)
        shutil.copytree(table, folder / "output")
        trial = Trial(str(store), str(labelling.model), str(folder / "output"), name, 0, new, {"precision": "float32"})
        line = Labelmill("labelmill", "labelmill").command(trial, folder / "spec.yaml", Python())
        cost = measure(line, contender_environment(labelling.model, checkout), folder / "log.txt")
        [file] = (folder / "output" / "_labelmill" / "receipts").glob("*.json")
        receipt = json.loads(file.read_text())
    if receipt["pictures_labelled"] != new:
        raise SystemExit(f"expected {new} pictures to be labelled, got {receipt['pictures_labelled']}")
    stages = receipt["startup_s"] | {k: s for k, s in receipt["wall_by_stage_s"].items() if k != "start-up"}
    stages["outside"] = round(cost.wall_s - receipt["wall_s"], 3)
    return {
        "wall_s": round(cost.wall_s, 3),
        "cpu_s": round(cost.cpu_s, 3),
        "peak_memory_bytes": cost.peak_memory_bytes,
        "others_cpu_s": round(cost.others_cpu_s, 2),
        "stolen_cpu_s": cost.stolen_cpu_s,
        "seconds": stages,
    }


def _seconds(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Where the wall time of this checkout's runs went."""
    own = [run["seconds"] for run in runs if run["checkout"] == "now"]
    stages = dict.fromkeys(stage for seconds in own for stage in seconds)
    return {stage: round(median(seconds.get(stage, 0.0) for seconds in own), 2) for stage in stages}


if __name__ == "__main__":
    main()
