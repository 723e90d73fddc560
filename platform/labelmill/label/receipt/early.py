"""The receipt of a run that ended before it held its table: skipped, since another run did, or without its model."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from labelmill.ending import how_it_ends
from labelmill.errors import BusyError, StorageError
from labelmill.label.receipt.receipt import Receipt
from labelmill.spec import LabelSpec, LoadedSpec
from labelmill.storage import open_store
from labelmill.table.receipts import keep_receipt

__all__ = ["kept_if_it_ends_early"]

logger = logging.getLogger(__name__)

_WITHIN_S = 5.0


@contextmanager
def kept_if_it_ends_early(loaded: LoadedSpec, spec: LabelSpec) -> Iterator[None]:
    """For the time before a run keeps its own receipt. Where there is no table nothing is written: its address may be
    a wrong one."""
    began = datetime.now(UTC)
    try:
        yield
    except BaseException as exc:
        try:
            _keep(loaded, spec, exc, began)
        except StorageError as why:
            logger.warning("the receipt of this run was not written: %s", why)
        raise


def _keep(loaded: LoadedSpec, spec: LabelSpec, exc: BaseException, began: datetime) -> None:
    store = open_store(spec.output, timeout_s=_WITHIN_S)
    if not any(store.keys("_delta_log")):
        return
    ends = how_it_ends(exc)
    receipt = Receipt(
        run_id=f"{0:09d}-{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        job=spec.name,
        model=", ".join(spec.references),
        bundle_digest="",
        table=store.uri,
        images="",
        engine="",
        precision=spec.precision,
        outcome="skipped" if isinstance(exc, BusyError) and not ends.by_signal else "stopped",
        exit_code=ends.code,
        error=ends.why,
        started_at=began.isoformat(timespec="seconds"),
        wall_s=round((datetime.now(UTC) - began).total_seconds(), 2),
        spec=loaded.source,
    )
    keep_receipt(open_store(store.address("_labelmill"), timeout_s=_WITHIN_S), receipt.run_id, receipt.to_json())
