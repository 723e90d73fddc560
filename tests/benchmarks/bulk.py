"""Measures labelmill against its peers, and against the limit, on the same pictures, weights and labels.

    python tests/benchmarks/bulk.py PICTURES tune --train-folder FOLDER
    python tests/benchmarks/bulk.py PICTURES run --train-folder FOLDER --count 30000 --rounds 3

PICTURES is a folder of pictures, repeated by links under distinct names until there are --count. FOLDER holds a folder
of pictures for each label; the network is trained on it first. Peers: Daft, Ray Data as its documentation shows it, a
PyTorch DataLoader, Spark's pandas UDF; the limit is our own decode and forward, bare, on all cores. Those that end in
_bfloat16 compute in that.

`tune` tries the settings worth trying of each peer and keeps the best in --work; `run` takes those. Each run is a
process tree of its own; the contenders take turns, and the figures are medians over the rounds. Results: JSON and SVG
in --results, a Markdown table on the terminal. Peers need packages of their own: `pip install daft pyspark` (and Java
17) into the Python that --peers-python names. What is not there is skipped, and said to be.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from account import command, machine, table, write_results
from field.contenders import Contender, Python, Settings, contender_environment, contenders, read_limit
from field.trial import Trial
from labelling import add_arguments, parser_for
from measuring import RunFailed, measure
from pace import cpu_between, rate_between
from store import many_pictures, original_name, unique_pictures

_STEADY = (0.2, 0.9)  # shares of the pictures between which the rate counts as steady


@dataclass(frozen=True)
class Bench:
    """All that does not change from run to run."""

    arguments: argparse.Namespace
    work: Path
    python: Python
    model: Path
    unique: list[Path]
    reference: dict[str, str]
    cores: int

    def trial(self, name: str, count: int, settings: Settings) -> Trial:
        folder = self.work / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("output", "progress"):
            (folder / part).mkdir(parents=True)
        store = many_pictures(self.unique, count, self.work)
        where = (str(store), str(self.model), str(folder / "output"), str(folder / "progress"))
        return Trial(*where, self.cores, count, settings)


def main() -> None:
    arguments = _arguments()
    bench = prepare(arguments)
    taking_part = list(_taking_part(arguments, bench))
    if arguments.what == "tune":
        tune(bench, taking_part)
    else:
        run(bench, taking_part)


def prepare(arguments: argparse.Namespace) -> Bench:
    from trained import reference_labels, trained_network

    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    print(f"training {arguments.architecture}, unless it is trained already", flush=True)
    model = trained_network(
        work / "models", arguments.architecture, arguments.train_folder, arguments.epochs, arguments.train_pictures
    )
    unique = unique_pictures(arguments.pictures, work)
    reference = reference_labels(model, unique)
    cores = len(os.sched_getaffinity(0))
    return Bench(arguments, work, Python(peers=arguments.peers_python), model, unique, reference, cores)


def _taking_part(arguments: argparse.Namespace, bench: Bench) -> Iterator[Contender]:
    for name, contender in contenders(bench.cores).items():
        if name not in arguments.contenders:
            continue
        missing = contender.missing(bench.python)
        if missing:
            print(f"SKIPPED: {name} cannot run in {bench.python.peers}: {missing}", flush=True)
        else:
            yield contender


def tune(bench: Bench, taking_part: Sequence[Contender]) -> None:
    """Try each contender's candidates once on a few pictures; the best is the one that would end first at --count."""
    arguments = bench.arguments
    for contender in taking_part:
        if len(contender.candidates) == 1:
            continue
        tried = []
        for settings in contender.candidates:
            try:
                found = one_run(bench, contender, arguments.tune_count, settings)
            except RunFailed as exc:  # settings that a peer cannot run with are not its best
                print(f"{contender.name} {settings}: {exc}", flush=True)
                continue
            start_s = found["wall_s"] - arguments.tune_count / found["steady_pictures_per_s"]
            expected_s = start_s + arguments.count / found["steady_pictures_per_s"]
            tried.append({"settings": settings, "expected_s": expected_s, **found})
            print(f"{contender.name} {settings}: {expected_s:.0f} s expected for {arguments.count:,}", flush=True)
        if tried:
            tried.sort(key=lambda one: one["expected_s"])
            _tuned_file(bench, contender).write_text(json.dumps(tried, indent=2))


def _tuned_file(bench: Bench, contender: Contender) -> Path:
    return bench.work / f"tuned-{bench.model.name}-{contender.name}.json"


def best_settings(bench: Bench, contender: Contender) -> Settings:
    file = _tuned_file(bench, contender)
    if file.exists():
        settings: Settings = json.loads(file.read_text())[0]["settings"]
        return settings
    if len(contender.candidates) > 1:
        print(f"{contender.name} is not tuned: it runs with its first settings, {contender.candidates[0]}", flush=True)
    return contender.candidates[0]


def run(bench: Bench, taking_part: Sequence[Contender]) -> None:
    arguments = bench.arguments
    settings = {contender.name: best_settings(bench, contender) for contender in taking_part}
    about = {
        "benchmark": "bulk",
        "command": command(),
        "machine": machine(bench.python.peers),
        "architecture": arguments.architecture,
        "training": json.loads((bench.model / "training.json").read_text()),
        "pictures": arguments.count,
        "unique_pictures": len(bench.unique),
        "mean_picture_bytes": round(sum(path.stat().st_size for path in bench.unique) / len(bench.unique)),
        "conversion_s": converted_in_s(bench),
        "settings": settings,
    }
    runs: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, contender in _turns(taking_part, arguments):
        if contender.name in failed:
            continue
        count = min(arguments.limit_count, arguments.count) if contender.module == "field.by_limit" else arguments.count
        try:
            found = one_run(bench, contender, count, settings[contender.name])
        except RunFailed as exc:  # the others' figures stay good without it
            failed[contender.name] = str(exc)
            print(f"FAILED: {contender.name}: {exc}", flush=True)
            continue
        runs.append({"contender": contender.name, "round": number, **found})
        print(json.dumps(runs[-1]), flush=True)
        # After each run, since a long benchmark may be cut short.
        results = write_results(arguments.results, {**about, "failed": failed}, runs)
    if runs:
        print(table(results))


def _turns(taking_part: Sequence[Contender], arguments: argparse.Namespace) -> Iterator[tuple[int, Contender]]:
    """Each round begins with another contender: none always runs first, or after the same one."""
    for number in range(arguments.rounds):
        turn = number % len(taking_part)
        for contender in [*taking_part[turn:], *taking_part[:turn]]:
            if number == 0 or contender.name not in arguments.once:
                yield number, contender


def converted_in_s(bench: Bench) -> float:
    """Seconds that labelmill takes once for a model and machine to convert it; part of no run."""
    noted = bench.model / "conversion_s.json"
    if noted.exists():
        return float(json.loads(noted.read_text()))
    code = (
        "from labelmill.model.engines.graphs import converted_graph\n"
        "from labelmill.model.registry import Registry\n"
        f"converted_graph(Registry({str(bench.model / 'registry')!r}).resolve('bench@1'))"
    )
    started = time.monotonic()
    subprocess.run([bench.python.own, "-c", code], env=contender_environment(bench.model), check=True)
    noted.write_text(json.dumps(round(time.monotonic() - started, 2)))
    return converted_in_s(bench)


def one_run(bench: Bench, contender: Contender, count: int, settings: Settings) -> dict[str, Any]:
    trial = bench.trial(contender.name, count, settings)
    folder = Path(trial.output).parent
    load_before = os.getloadavg()[0]
    command = contender.command(trial, folder / "trial.json", bench.python)
    cost = measure(command, contender_environment(bench.model), folder / "log.txt")
    found: dict[str, Any] = {"pictures": count, "load_before": load_before, **asdict(cost)}
    cpu_curve = found.pop("cpu_curve")
    if contender.module == "field.by_limit":
        limit = read_limit(trial)
        return found | limit | {"steady_pictures_per_s": limit["pictures_per_s"]}
    finished = contender.finished(trial)
    return found | {
        "pictures_per_s": count / cost.wall_s,
        "steady_pictures_per_s": rate_between(finished, *_STEADY),
        "cpu_s_per_1000": 1000 * cost.cpu_s / count,
        "steady_cpu_s_per_1000": cpu_between(finished, cpu_curve, *_STEADY),
        **agreement(contender.answers(trial), bench.reference, count),
    }


def agreement(answers: Sequence[tuple[str, str]], reference: dict[str, str], count: int) -> dict[str, Any]:
    """Share of the rows that say what the reference says, and whether there is one row for each picture."""
    names = {name for name, _ in answers}
    if len(names) != count or len(answers) != count:
        raise RunFailed(f"expected {count} rows, one a picture, got {len(answers)} rows of {len(names)} pictures")
    return {"agreement": sum(label == reference[original_name(name)] for name, label in answers) / count}


def _arguments() -> argparse.Namespace:
    every = list(contenders(1))
    parser = parser_for(__doc__)
    parser.add_argument("what", choices=["tune", "run"])
    add_arguments(parser)
    parser.add_argument("--count", type=int, default=30_000, help="pictures of a run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default: %(default)s)")
    parser.add_argument("--once", type=_names, default=[], help="contenders that run in the first round only")
    parser.add_argument("--contenders", type=_names, default=every, help=",".join(every))
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers' packages")
    parser.add_argument("--tune-count", type=int, default=600, help="pictures of a trial of `tune` (default: 600)")
    parser.add_argument("--limit-count", type=int, default=6000, help="pictures that measure the limit (default: 6000)")
    arguments = parser.parse_args()
    unknown = sorted({*arguments.contenders, *arguments.once} - set(every))
    if unknown:
        parser.error(f"expected some of {', '.join(every)}, got {', '.join(unknown)}")
    return arguments


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
