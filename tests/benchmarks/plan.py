"""Measures the subtraction: a listing of synthetic pictures against a real label table (Delta) of as many.

    python tests/benchmarks/plan.py --pictures 1_000_000
    python tests/benchmarks/plan.py --pictures 100_000_000 --folder /big/disk --result results/plan.json

In a control group of less memory than the machine has, as results/plan-*-4gib.json: put the shell into it first.

The table is written and committed through the product's own writer, in files of 2 million rows; the listing is made
while it is read, as a store's is. Of the pictures `--changed` differ: half have a new etag, a quarter are new, and a
quarter are listed no more. `plan_todo` runs in a process of its own; its memory is the sum of proportional set sizes
of that process and all below it, sampled four times a second, its disk what it has in its temporary folder and beside
the table. What it finds is checked against what was changed.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa

from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

PREFIX = "s3://media-archive-eu-west/photos/"
DAY = "2026-03-01"
DIGEST, SETTINGS = "d" * 64, "5" * 16
FILE_ROWS = 2_000_000
URI = "'{prefix}' || printf('%02x/%02x/%010d.jpg', i * 256 // {total}, (i * 65536 // {total}) % 256, i)"
ETAG = "printf('%016x%016x', hash(2 * ({seed})), hash(2 * ({seed}) + 1))"


class Pictures:
    """Which pictures there are: all below `total`, some of them only in the table or only in the listing."""

    def __init__(self, pictures: int, changed: float) -> None:
        self.period = round(2 / changed)
        self.total = round(pictures / (1 - changed / 4))
        self.uri = URI.format(prefix=PREFIX, total=self.total)
        self.is_changed = f"i % {self.period} = 0"
        self.is_new = f"i % {2 * self.period} = 1"
        self.is_gone = f"i % {2 * self.period} = {self.period + 1}"

    def listing(self) -> Iterator[pa.RecordBatch]:
        etag = ETAG.format(seed=f"CASE WHEN {self.is_changed} THEN -1 - i ELSE i END")
        with duckdb.connect(config={"threads": 1}) as connection:
            yield from connection.sql(
                f"SELECT {self.uri} AS uri, 100000 + i % 1000 AS size_bytes, {etag} AS etag, "
                f"make_timestamptz(1772323200000000 + i) AS modified_at FROM range({self.total}) AS r(i) "
                f"WHERE NOT ({self.is_gone})"
            ).to_arrow_reader(10_000)

    def rows(self, start: int, run_id: str, connection: duckdb.DuckDBPyConnection) -> pa.Table:
        """Rows of the table: as a label job writes them, with two labels each."""
        stop = min(start + FILE_ROWS, self.total)
        rows = connection.sql(
            f"SELECT {self.uri} AS uri, {ETAG.format(seed='i')} AS etag, 100000 + i % 1000 AS size_bytes, "
            "make_timestamptz(1772323200000000 + i) AS modified_at, 'ok' AS status, NULL AS error, "
            "640 + (i % 7) * 160 AS width_px, 480 + (i % 7) * 120 AS height_px, "
            "[{'label': 'label-' || (i % 80), 'confidence': (hash(i) % 10000 / 10000)::FLOAT}, "
            "{'label': 'label-' || (i % 13), 'confidence': (hash(i + 7) % 10000 / 10000)::FLOAT}] AS labels, "
            "NULL AS scores, NULL AS embedding, 'photos@3' AS model, "
            f"'{DIGEST}' AS bundle_digest, '{SETTINGS}' AS settings_digest, "
            f"'{run_id}' AS run_id, make_timestamptz(1772323200000000) AS labelled_at "
            f"FROM range({start}, {stop}) AS r(i) WHERE NOT ({self.is_new})"
        )
        return rows.to_arrow_table().select(DATA_SCHEMA.names).cast(DATA_SCHEMA)


def main() -> None:
    arguments = _arguments()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="labelmill-plan-benchmark-") as name:
        folder = (arguments.folder or Path(name)).resolve()
        if not (folder / "table.json").exists():
            (folder / "table.json").write_text(json.dumps(_step("write", arguments, folder)[0]))
        table = json.loads((folder / "table.json").read_text())
        found, used = _step("plan", arguments, folder)
    result = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_before": used.pop("load_before"),
        "pictures": arguments.pictures,
        "changed": arguments.changed,
        "table": table,
        **used,
        **found,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.result:
        arguments.result.write_text(text + "\n")


def write_table(arguments: argparse.Namespace) -> dict[str, object]:
    pictures, uri = Pictures(arguments.pictures, arguments.changed), str(arguments.folder / "table")
    writer, started, rows, size_bytes = TableWriter(uri), time.perf_counter(), 0, 0
    with duckdb.connect() as connection:
        for number, start in enumerate(range(0, pictures.total, FILE_ROWS)):
            part = pictures.rows(start, writer.run_id, connection)
            file = put_data_file(open_store(uri), f"labelled_on={DAY}/{number:06d}.parquet", part, DAY)
            writer.commit([file])
            rows, size_bytes = rows + part.num_rows, size_bytes + file.size_bytes
    files = LabelTable(uri).num_files
    return {"rows": rows, "files": files, "bytes": size_bytes, "write_s": round(time.perf_counter() - started, 1)}


def plan(arguments: argparse.Namespace) -> dict[str, object]:
    pictures, uri = Pictures(arguments.pictures, arguments.changed), str(arguments.folder / "table")
    started, cpu_s = time.perf_counter(), time.process_time()
    todo = plan_todo(
        pictures.listing(),
        LabelTable(uri),
        [DIGEST],
        Settings(SETTINGS),
        models=["photos@3"],
        store=open_store(f"{uri}/_labelmill"),
        run_id="000000999-plan",
        below=PREFIX,
    )
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    with duckdb.connect() as connection:
        new, changed, gone = connection.execute(
            f"SELECT count(*) FILTER ({pictures.is_new}), count(*) FILTER ({pictures.is_changed}), "
            f"count(*) FILTER ({pictures.is_gone}) FROM range({pictures.total}) AS r(i)"
        ).fetchall()[0]
    assert (todo.listed, todo.num_rows, todo.num_gone) == (pictures.total - gone, new + changed, gone), todo
    first, last = todo.read(0), todo.read(todo.num_chunks - 1)
    assert first["uri"][0].as_py() < last["uri"][-1].as_py()
    return {
        "listed": todo.listed,
        "to_label": todo.num_rows,
        "gone": todo.num_gone,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "listed_per_s": round(todo.listed / wall_s),
        "peak_rss_bytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


STEPS = {"write": write_table, "plan": plan}


def _step(name: str, arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Run one step in a process of its own; what it found, and what it used."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
    command += ["--pictures", str(arguments.pictures), "--changed", str(arguments.changed)]
    load = os.getloadavg()[0]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}, text=True)
    peaks = {"memory": 0, "disk": 0}
    watching = threading.Thread(target=_watch, args=(process.pid, [temporary, folder / "table/_labelmill"], peaks))
    watching.start()
    output, _ = process.communicate()
    watching.join()
    if process.returncode:
        raise SystemExit(f"step {name} ended with {process.returncode}")
    used = {"peak_memory_bytes": peaks["memory"], "peak_disk_bytes": peaks["disk"], "load_before": round(load, 2)}
    return json.loads(output), used


def _watch(pid: int, folders: list[Path], peaks: dict[str, int]) -> None:
    """Until the process ends: the proportional set sizes of its tree, and the disk that the folders take."""
    root = psutil.Process(pid)
    while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
        memory = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                memory += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peaks["memory"] = max(peaks["memory"], memory)
        peaks["disk"] = max(peaks["disk"], sum(map(_size_bytes, folders)))
        time.sleep(0.25)


def _size_bytes(folder: Path) -> int:
    done = subprocess.run(["du", "--summarize", "--block-size=1", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000_000, help="rows and listed pictures (default: 1_000_000)")
    parser.add_argument("--changed", type=float, default=0.01, help="share of them that differ (default: 0.01)")
    parser.add_argument("--folder", type=Path, help="keep the table here, and use it again (default: a temporary one)")
    parser.add_argument("--result", type=Path, help="a file to which the JSON goes as well")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
