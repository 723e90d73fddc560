"""How good a bundle is on labelled pictures, answered by the very Labeler that labels in bulk and online."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelmill.evaluate.job import EvaluateResult
    from labelmill.spec import LoadedSpec

__all__ = ["run"]


def run(loaded: "LoadedSpec") -> "EvaluateResult":
    """Run an evaluation: see `labelmill.evaluate.job.run`."""
    # Not at the top: training imports its parts of this package, and needs no job for it.
    from labelmill.evaluate.job import run as run_job

    return run_job(loaded)
