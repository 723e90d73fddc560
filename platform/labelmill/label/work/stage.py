"""What every worker of a run needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.label.todo.todo import Todo
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName, PrecisionName

__all__ = ["Stage"]


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to know; it travels to each once."""

    bundles: tuple[Bundle, ...]
    engines: tuple[EngineName, ...]
    precision: PrecisionName
    todo: Todo
    output: str
    run_id: str
    labelled_on: str
    settings_digest: str
    scores: str
    embeddings: bool
    max_pixels: int
    timeout_s: float  # for decoding and labelling one batch, or one picture where a batch took longer
    batch_size: int
    names_are_exclusive: bool  # whether the store honours "write only if absent"
    receipt_pictures: int = 0  # small pictures of each label that the receipt wants to show
    alone: bool = True  # on this machine, where no other node could do better
    max_requests_per_s: float | None = None  # of the whole run
    doubts_its_node: bool = False  # whether a worker that can read nothing of a chunk gives it back
