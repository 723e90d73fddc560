"""`labelmill nights`: what became of each run on a label table, and which nights never were."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.cli.arguments import TableUri
from labelmill.cli.output import print_table, put
from labelmill.errors import LabelmillError

if TYPE_CHECKING:
    from labelmill.table.nights import Gap, Night

__all__ = ["nights_command"]


def nights_command(
    table: TableUri,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="FILE.prom", help="Write the last run's figures for Prometheus; - prints."),
    ] = None,
) -> None:
    """What became of each run on a label table, the last one below, and which nights never were.

    Starts that the schedule of a run's spec wanted, and for which none began, have a line of their own. With --metrics
    it prints nothing, and writes a textfile for Prometheus' node_exporter: whoever reaches the store can do so.

    Example: labelmill nights ./demo/labels
    """
    from labelmill.storage import open_store
    from labelmill.table.nights import exposition, gaps, nights

    found = nights(table)
    if metrics is not None:
        _write(metrics, exposition(open_store(table).uri, found))
        return
    missing = gaps(found, datetime.now(UTC))
    if as_json:
        put(json.dumps([_as_json(one) for one in _in_order(found, missing)], indent=2))
    elif not found:
        put(f"no run on {table} yet")
    else:
        _print(found, missing)


def _in_order(found: "Sequence[Night]", missing: "Sequence[Gap]") -> "list[Night | Gap]":
    return sorted([*found, *missing], key=_begins)


def _begins(one: "Night | Gap") -> datetime:
    from labelmill.table.nights import Night

    return one.started_at if isinstance(one, Night) else one.first


def _as_json(one: "Night | Gap") -> dict[str, Any]:
    from labelmill.table.nights import Gap

    if isinstance(one, Gap):
        return {
            "outcome": "no run",
            "job": one.job,
            "wanted_at": one.first.isoformat(),
            "last_wanted_at": one.last.isoformat(),
            "nights": one.count,
            "run_before_at_work": one.at_work,
        }
    schedule = one.schedule.model_dump(mode="json") if one.schedule else None
    return asdict(one) | {"started_at": one.started_at.isoformat(), "schedule": schedule}


def _print(found: "Sequence[Night]", missing: "Sequence[Gap]") -> None:
    from labelmill.table.nights import Night

    several = len({night.job for night in found}) > 1
    rows = []
    for one in _in_order(found, missing):
        cells = _run(one) if isinstance(one, Night) else _no_run(one)
        rows.append([*([one.job] if several else []), *cells])
    titles = ["started (UTC)", "outcome", "labelled", "failed", "gone", "took", "money", "model", ""]
    print_table([*(["job"] if several else []), *titles], rows)


def _run(night: "Night") -> list[str]:
    from labelmill.label.receipt.amounts import duration

    code = f" ({night.exit_code})" if night.exit_code else ""
    money = f"{night.cost:,.2f} {night.currency}" if night.cost is not None else ""
    failures = ", ".join(f"{name} {count:,}" for name, count in night.statuses.items() if name != "ok")
    return [
        f"{night.started_at.astimezone(UTC):%Y-%m-%d %H:%M}",
        f"{night.outcome}{code}",
        f"{night.labelled:,}",
        f"{night.failed:,}",
        f"{night.vanished:,}",
        duration(night.duration_s),
        money,
        night.model,
        night.error or failures,
    ]


def _no_run(gap: "Gap") -> list[str]:
    why = "the run before was still at work" if gap.at_work else "the schedule wanted one"
    more = f", and {gap.count - 1:,} more up to {gap.last:%Y-%m-%d %H:%M}" if gap.count > 1 else ""
    return [f"{gap.first:%Y-%m-%d %H:%M}", "no run", "", "", "", "", "", "", f"{why}{more}"]


def _write(name: str, text: str) -> None:
    """Beside, and then renamed: Prometheus may read at any moment, and reads only what ends in .prom."""
    if name == "-":
        put(text.rstrip("\n"))
        return
    path = Path(name)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, "utf-8")
        aside.chmod(0o644)  # read by another user
        aside.replace(path)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise LabelmillError(
            f"--metrics: expected a place for a file, got {name!r} ({exc.strerror}): make its folder, or correct it"
        ) from exc
