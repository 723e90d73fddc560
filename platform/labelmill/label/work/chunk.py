"""What a worker tells the driver of a chunk: a few hundred bytes, and the few small pictures that the receipt shows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.label.work.samples import Sample
from labelmill.label.work.spent import Spent
from labelmill.metrics.histograms import histograms
from labelmill.table.data_file import DataFile

__all__ = ["Chunk", "chunk_of"]


@dataclass
class Chunk:
    """What became of one chunk: its data file, what its rows say, and what they cost."""

    chunk: int
    file: DataFile
    num_rows: int
    statuses: dict[str, int]
    labels: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)  # of waiting or working, by stage
    spent: list[Spent] = field(default_factory=list)  # by each process that had a part in it, since its last chunk
    busy_s: float = 0.0  # wall-clock from the first look at the chunk to its finished file
    node: str = ""  # on which it was finished: its address, and the first digits of its id
    computed_in: dict[str, str] = field(default_factory=dict)  # the precision, by the machine whose networks answered
    histograms: dict[str, dict[str, int]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Chunk:
        """From what `to_json` wrote, parsed."""
        parts = {
            "file": DataFile(**fields["file"]),
            "samples": [Sample(**sample) for sample in fields["samples"]],
            "spent": [Spent.from_fields(spent) for spent in fields["spent"]],
        }
        return cls(**{**fields, **parts})


def chunk_of(number: int, file: DataFile, rows: pa.Table) -> Chunk:
    """What the rows of a finished data file say."""
    # A picture has the same status for every model: it was fetched and decoded once for all.
    statuses = dict(zip(rows["uri"].to_pylist(), rows["status"].to_pylist(), strict=True))
    labels: Counter[str] = Counter()
    models = rows["model"].unique().to_pylist()
    for model in models:
        own = rows.filter(pc.equal(rows["model"], model))
        found = Counter(pc.list_flatten(own["labels"]).combine_chunks().field("label").to_pylist())
        labels.update({label if len(models) == 1 else f"{model} {label}": count for label, count in found.items()})
    counts = dict(Counter(statuses.values()))
    return Chunk(number, file, len(statuses), counts, dict(labels), histograms=histograms(rows))
