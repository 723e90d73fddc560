"""Who takes part, in which Python, with which settings, and how to read what they leave behind."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.dataset as ds

from field.trial import Progress, Trial

__all__ = ["Contender", "Labelmill", "Python", "contender_environment", "contenders", "read_limit"]

Settings = dict[str, Any]

_BENCHMARKS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Python:
    """The interpreter of labelmill, and that of the peers, which may be the same."""

    own: str = sys.executable
    peers: str = sys.executable


@dataclass(frozen=True)
class Contender:
    """`candidates` gives the settings worth trying on a machine with so many cores, the most promising first."""

    name: str
    module: str
    candidates: list[Settings] = field(default_factory=lambda: [{}])
    imports: tuple[str, ...] = ()

    def command(self, trial: Trial, file: Path, python: Python) -> list[str]:
        trial.write(file)
        return [python.peers if self.imports else python.own, "-m", self.module, str(file)]

    def missing(self, python: Python) -> str | None:
        """Why it cannot take part here, or None."""
        if not self.imports:
            return None
        code = f"import {', '.join(self.imports)}"
        done = subprocess.run([python.peers, "-c", code], capture_output=True, text=True, check=False)
        return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def answers(self, trial: Trial) -> list[tuple[str, str]]:
        """(name of the picture, label) of every row that the contender left."""
        rows = ds.dataset(trial.output, format="parquet").to_table(columns=["uri", "label"]).to_pydict()
        return [(_name(uri), label) for uri, label in zip(rows["uri"], rows["label"], strict=True)]

    def finished(self, trial: Trial) -> list[tuple[float, int]]:
        """(seconds since the epoch, pictures finished then), in the order of time."""
        return Progress.read(trial.progress)


class Labelmill(Contender):
    """The command of a user: `labelmill run SPEC`, with what it leaves alone left alone."""

    def command(self, trial: Trial, file: Path, python: Python) -> list[str]:
        spec = {
            "kind": "label",
            "name": "bench",
            "registry": str(Path(trial.model, "registry")),
            "model": "bench@1",
            "images": trial.pictures,
            "output": trial.output,
        }
        file.write_text(json.dumps(spec | trial.settings, indent=2))
        return [python.own, "-m", "labelmill", "run", str(file)]

    def answers(self, trial: Trial) -> list[tuple[str, str]]:
        from labelmill.table.table import LabelTable

        return [
            (_name(uri), labels[0]["label"] if labels else "")
            for batch in LabelTable(trial.output).batches(["uri", "labels"])
            for uri, labels in zip(batch["uri"].to_pylist(), batch["labels"].to_pylist(), strict=True)
        ]

    def finished(self, trial: Trial) -> list[tuple[float, int]]:
        """By the rows' own times: a worker's chunk is finished when its rows are made."""
        from labelmill.table.table import LabelTable

        sql = "SELECT epoch(labelled_at) AS at, count(*) AS count FROM labels GROUP BY labelled_at ORDER BY labelled_at"
        return [(row["at"], row["count"]) for row in LabelTable(trial.output).query(sql, ["labelled_at"])]


def _name(uri: str) -> str:
    return unquote(uri).rpartition("/")[2]


def _every(cores: int) -> dict[str, list[Settings]]:
    return {
        "daft": [
            {"decode": "pillow", "process": True, "instances": cores, "threads": 1, "batch_size": 32},
            {"decode": "pillow", "process": True, "instances": cores, "threads": 1, "batch_size": 64},
            {"decode": "pillow", "process": True, "instances": cores, "threads": 1, "batch_size": 16},
            {"decode": "daft", "process": True, "instances": cores, "threads": 1, "batch_size": 32},
            {"decode": "daft", "process": False, "instances": 1, "threads": cores, "batch_size": 32},
        ],
        "ray_data": [
            {"read": "binary", "between": "none", "actors": cores, "actor_cpus": 0.5, "threads": 1, "batch_size": 32},
            {"read": "binary", "between": "none", "actors": cores, "actor_cpus": 0.5, "threads": 1, "batch_size": 64},
            {"read": "images", "between": "uint8", "actors": cores, "actor_cpus": 0.5, "threads": 1, "batch_size": 32},
            {"read": "images", "between": "uint8", "actors": 1, "actor_cpus": 1, "threads": 1, "batch_size": 32},
            {"read": "images", "between": "float32", "actors": 1, "actor_cpus": 1, "threads": 1, "batch_size": 32},
        ],
        "dataloader": [
            {"workers": cores, "threads": 1, "batch_size": 32},
            {"workers": cores, "threads": 1, "batch_size": 64},
            {"workers": cores, "threads": cores, "batch_size": 32},
            {"workers": max(1, cores - 1), "threads": 1, "batch_size": 32},
        ],
        "spark": [
            {"read": "paths", "threads": 1, "batch_size": 32},
            {"read": "paths", "threads": 1, "batch_size": 64},
            {"read": "content", "threads": 1, "batch_size": 32, "partition_mib": 64},
        ],
    }


def contenders(cores: int) -> dict[str, Contender]:
    """By name: labelmill, the limit, and the peers; and in bfloat16 all but the peers that gain least by it."""
    candidates = _every(cores)
    in_bfloat16 = {name: [one | {"bfloat16": True} for one in found] for name, found in candidates.items()}
    compiled: Settings = {"workers": cores, "threads": 1, "batch_size": 32, "compile": True}
    bare: Settings = {"batch_size": 32, "in_memory": 200}
    by_daft, by_dataloader = ("daft", "torch"), ("torchvision", "torch")
    every = [
        Labelmill("labelmill", "labelmill"),
        Labelmill("labelmill_bfloat16", "labelmill", [{"precision": "bfloat16"}]),
        Contender("limit", "field.by_limit", [bare]),
        Contender("limit_bfloat16", "field.by_limit", [bare | {"precision": "bfloat16"}]),
        Contender("daft", "field.by_daft", candidates["daft"], by_daft),
        Contender("daft_bfloat16", "field.by_daft", in_bfloat16["daft"], by_daft),
        Contender("ray_data", "field.by_ray_data", candidates["ray_data"], ("ray.data", "torch")),
        Contender("dataloader", "field.by_dataloader", candidates["dataloader"], by_dataloader),
        Contender("dataloader_bfloat16", "field.by_dataloader", in_bfloat16["dataloader"], by_dataloader),
        # Two minutes of compiling for a faster forward: worth it in long jobs, so it stands on a line of its own.
        Contender("dataloader_compiled", "field.by_dataloader", [compiled], by_dataloader),
        Contender("spark", "field.by_spark", candidates["spark"], ("pyspark", "torch", "pandas")),
    ]
    return {contender.name: contender for contender in every}


def contender_environment(model: Path, checkout: Path | None = None) -> dict[str, str]:
    """The caller's, without a Ray of its own; our modules can be found, those of another checkout if one is given, and
    converted graphs lie beside the model."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    package = [str(checkout.resolve() / "platform")] if checkout else []
    paths = [*package, str(_BENCHMARKS), *filter(None, [environ.get("PYTHONPATH")])]
    return environ | {"PYTHONPATH": os.pathsep.join(paths), "LABELMILL_CACHE": str(model / "cache")}


def read_limit(trial: Trial) -> dict[str, float]:
    found: dict[str, float] = json.loads(Path(trial.output, "limit.json").read_text())
    return found
