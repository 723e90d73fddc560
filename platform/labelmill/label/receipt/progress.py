"""How a run goes, while it goes: one line that is said again and again."""

from __future__ import annotations

import logging

from labelmill.label.receipt.amounts import duration
from labelmill.label.receipt.clock import Pace
from labelmill.label.receipt.receipt import Receipt

__all__ = ["show_progress", "show_waiting"]

logger = logging.getLogger(__name__)

# Whoever prints the log may show such a line in place of the one before, or only now and then.
_PASSING = {"passing": True}


def show_waiting(cores: int, in_use: int) -> None:
    """Log what a run waits for that has no worker yet."""
    if cores > in_use:
        logger.info("waiting for the first worker to start", extra=_PASSING)
    elif cores:
        logger.info("waiting for a core: the cluster has %d CPUs, %d in use", cores, in_use, extra=_PASSING)
    else:
        logger.info("waiting for a node: the cluster has no CPUs", extra=_PASSING)


def show_progress(pace: Pace | None, receipt: Receipt, num_pictures: int) -> None:
    """Log how far the run is, its rate and time left, what failed, and the stage that limits it now."""
    if pace is None:
        logger.info("waiting for the first pictures: the workers load the model", extra=_PASSING)
        return
    done = receipt.pictures_labelled
    left = f"{duration((num_pictures - done) / pace.pictures_per_s)} left" if pace.pictures_per_s else "stalled"
    limit = f", limited by {pace.limited_by}" if pace.limited_by else ""
    logger.info(
        "%s of %s (%d%%), %.0f pictures/s, %s, %s failed%s",
        f"{done:,}",
        f"{num_pictures:,}",
        100 * done // num_pictures,
        pace.pictures_per_s,
        left,
        f"{receipt.failed:,}",
        limit,
        extra=_PASSING,
    )
