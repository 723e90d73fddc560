"""Bulk labelling: an image store in, a label table out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmill.label.receipt.receipt import Receipt
    from labelmill.spec import LoadedSpec

__all__ = ["run"]


def run(loaded: LoadedSpec) -> Receipt:
    """Run a label job: see `labelmill.label.job.run`. Looking at a table then need not wait for Ray to be imported."""
    from labelmill.label.job import run as run_job

    return run_job(loaded)
