"""A run's receipt as one page: what it did, where its time went, what it cost, and what its labels look like."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from labelmill.label.receipt.amounts import bytes_text, duration
from labelmill.label.receipt.clock import COMMIT, IDLE, OTHER, START_UP
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.work.samples import Sample
from labelmill.metrics.histograms import CONFIDENCE_BINS
from labelmill.page.charts import Bar, bar_chart, row_bar, share_bar
from labelmill.page.document import document, figures, table, tiles

__all__ = ["receipt_html"]

_LABELS_SHOWN = 40
_STAGES = {
    START_UP: "listing, subtracting, starting Ray and the workers",
    "fetch": "waiting for the pictures' bytes",
    "decode": "from bytes to pixels",
    "forward": "the network",
    "write": "putting data files",
    OTHER: "building rows, choosing samples",
    IDLE: "workers that were not started yet, or had nothing to do",
    COMMIT: "after the last picture: last commit, merging of small files, end of Ray",
}
_OUTCOMES = {
    "complete": "Complete: every picture listed has its row.",
    "nothing to do": "There was nothing to do.",
    "stopped": "Stopped before its end. What was committed stays; the same command goes on from there.",
}


def receipt_html(receipt: Receipt, sheet: Sheet) -> str:
    """The page. Everything that comes from outside (uris, labels, errors, the spec) is escaped."""
    body = [_head(receipt), _figures_of(receipt)]
    if receipt.pictures_labelled:
        body += [_time(receipt), _charts(receipt), _statuses(receipt, sheet), _labels(receipt, sheet)]
    body += [
        _nodes(receipt),
        _operators(receipt),
        _account(receipt),
        f"<h2>Spec</h2><pre>{escape(json.dumps(receipt.spec, indent=2, ensure_ascii=False))}</pre>",
    ]
    return document(f"{receipt.job}: receipt of {receipt.run_id}", body)


def _head(receipt: Receipt) -> str:
    started = receipt.started_at.replace("T", " ").replace("+00:00", " UTC")
    outcome = "good" if receipt.outcome != "stopped" else "bad"
    why = f" {escape(receipt.error)}" if receipt.error else ""
    return (
        f"<h1>{escape(receipt.job)}</h1><p>{escape(receipt.images)} labelled by <b>{escape(receipt.model)}</b> "
        f"into {escape(receipt.table)}, started {escape(started)}</p>"
        f'<p class="note {outcome}">{_OUTCOMES.get(receipt.outcome, escape(receipt.outcome))}{why}</p>'
    )


def _figures_of(receipt: Receipt) -> str:
    cells = [(f"{receipt.pictures_labelled:,}", "pictures labelled")]
    if receipt.pictures_done_before:
        cells.append((f"{receipt.pictures_done_before:,}", "were done before"))
    cells += [(f"{receipt.failed:,}", "without labels"), (duration(receipt.wall_s), "the whole run")]
    if receipt.pictures_labelled:
        cells.append((f"{receipt.pictures_per_s:,.0f}", "pictures/s, whole run"))
    if receipt.steady_pictures_per_s is not None:
        cells.append((f"{receipt.steady_pictures_per_s:,.0f}", "pictures/s, steady"))
    for rate, unit in ((receipt.pictures_per_core_s, "core"), (receipt.pictures_per_gpu_s, "GPU")):
        if rate is not None:
            cells.append((f"{rate:,.0f}", f"pictures/s a {unit}, steady"))
    if receipt.pictures_labelled:
        cells.append((f"{receipt.cpu_s_per_1000:.1f} s", "CPU for 1,000 pictures"))
    cells.append((f"{receipt.peak_memory_bytes / 2**30:.2f} GiB", "peak memory"))
    if receipt.cost and receipt.pictures_labelled:
        million = receipt.cost.per_million(receipt.pictures_labelled) or 0.0
        cells.append((escape(receipt.cost.said(million)), "per million pictures"))
    return tiles(cells)


def _time(receipt: Receipt) -> str:
    """Where the wall-clock went, as one bar and its legend."""
    whole = max(sum(receipt.wall_by_stage_s.values()), 1e-9)
    names = sorted(receipt.wall_by_stage_s, key=_place)
    shares = [(f"c{_place(name)}", receipt.wall_by_stage_s[name] / whole) for name in names]
    rows = [
        [
            f'<svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="c{_place(name)}" width="10" '
            f'height="10"/></svg>{escape(name)} <small>{_STAGES.get(name, "")}</small>',
            duration(receipt.wall_by_stage_s[name]),
            f"{receipt.wall_by_stage_s[name] / whole:.1%}",
        ]
        for name in names
        if receipt.wall_by_stage_s[name] > 0
    ]
    words = f"Most of the {duration(receipt.wall_s)} went into <b>{escape(receipt.bottleneck or '')}</b>."
    if receipt.limited_by not in (None, receipt.bottleneck):
        limit = escape(receipt.limited_by or "")
        words += f" While pictures were labelled it was <b>{limit}</b>, which limits a longer run."
    steps = ", ".join(f"{escape(name)} {duration(s)}" for name, s in receipt.startup_s.items() if s >= 0.05)
    return (
        f"<h2>Where the time went</h2><p>{words}</p>{share_bar(shares, 'Shares of the wall-clock by stage')}"
        f'<div class="stages">{table(["stage", "time", "share"], rows)}</div>'
        + (f"<p>Of the start-up: {steps}.</p>" if steps else "")
    )


def _place(name: str) -> int:
    """A stage's place in the bar, and its colour."""
    return list(_STAGES).index(name) if name in _STAGES else len(_STAGES)


def _charts(receipt: Receipt) -> str:
    charts = [(_rate_chart(receipt), "Pictures/s over the run")]
    found = receipt.histograms
    if found.get("confidence"):
        charts.append((_confidence_chart(found["confidence"]), "Confidence of the labels given"))
    if found.get("size_bytes"):
        charts.append((_doubling_chart(found["size_bytes"], _power_of_two, "File sizes"), "File sizes"))
    if found.get("long_side_px"):
        words = "Longer sides, in pixels"
        charts.append((_doubling_chart(found["long_side_px"], lambda px: f"{px:,.0f}", words), words))
    return f"<h2>Pictures</h2>{figures(charts)}"


def _confidence_chart(counts: Mapping[str, int]) -> str:
    width = 1 / CONFIDENCE_BINS
    bars = [
        _bar(f"{bin_ * width:.2f} to {(bin_ + 1) * width:.2f}", counts.get(str(bin_), 0))
        for bin_ in range(CONFIDENCE_BINS)
    ]
    ticks = [(share * CONFIDENCE_BINS, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return bar_chart(bars, ticks, "Confidence of the labels given")


def _doubling_chart(counts: Mapping[str, int], text: Callable[[float], str], words: str) -> str:
    """A histogram whose bins double: `counts` by the logarithm to base 2."""
    powers = [int(power) for power in counts]
    first, last = min(powers), max(powers)
    bars = [
        _bar(f"{text(2.0**power)} to {text(2.0 ** (power + 1))}", counts.get(str(power), 0))
        for power in range(first, last + 1)
    ]
    every = max(1, -(-len(bars) // 4))
    return bar_chart(bars, [(power - first, text(2.0**power)) for power in range(first, last + 2, every)], words)


def _power_of_two(size_bytes: float) -> str:
    """In binary units, in which the edges of the bins are round."""
    steps = min(int(math.log2(size_bytes)) // 10, 4)
    return f"{size_bytes / 1024**steps:,.0f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[steps]}"


def _bar(words: str, count: int) -> Bar:
    return Bar(count, f"{words}: {count:,}")


def _rate_chart(receipt: Receipt) -> str:
    width_s = receipt.bucket_s
    bars = [
        Bar(count / width_s, f"{duration(index * width_s)}: {count / width_s:,.0f} pictures/s")
        for index, count in enumerate(receipt.pictures_by_bucket)
    ]
    places = sorted({0, len(bars) // 2, len(bars)})
    ticks = [(place, duration(place * width_s) if place else "0") for place in places]
    return bar_chart(bars, ticks, "Pictures a second over the run")


def _statuses(receipt: Receipt, sheet: Sheet) -> str:
    rows = [
        [escape(status), f"{count:,}", f"{count / receipt.pictures_labelled:.2%}"]
        for status, count in sorted(receipt.statuses.items(), key=lambda item: -item[1])
    ]
    parts = [f"<h2>Statuses</h2>{table(['status', 'pictures', 'share'], rows)}"]
    for status, samples in sorted(sheet.failures.items()):
        reasons = [[escape(sample.uri), escape(sample.error or "")] for sample in samples]
        count = receipt.statuses.get(status, 0)
        listed = table(["picture", "reason"], reasons)
        parts.append(
            f'<h3>{escape(status)} <small>{_some(len(samples), count)}</small></h3><div class="wide">{listed}</div>'
        )
    return "".join(parts)


def _labels(receipt: Receipt, sheet: Sheet) -> str:
    most = max(receipt.labels.values(), default=1)
    counts = sorted(receipt.labels.items(), key=lambda item: -item[1])
    rows = [[escape(label), row_bar(count / most), f"{count:,}"] for label, count in counts[:_LABELS_SHOWN]]
    more = f"<p>And {len(counts) - len(rows):,} more, in the receipt's JSON.</p>" if len(counts) > len(rows) else ""
    listed = f'<div class="counts">{table(["label", "", "pictures"], rows)}</div>{more}' if rows else "<p>None.</p>"
    sheets = "".join(_sheet(label, samples, receipt.labels) for label, samples in sheet.labels(receipt.labels).items())
    return f"<h2>Labels</h2>{listed}" + (f"<h2>Samples</h2>{sheets}" if sheets else "")


def _sheet(label: str, samples: Sequence[Sample], counts: Mapping[str, int]) -> str:
    name = escape(label) or "no label"
    among = f"<small>{_some(len(samples), counts[label])}</small>" if label in counts else ""
    return f'<h3>{name} {among}</h3><div class="sheet">{"".join(_picture(sample) for sample in samples)}</div>'


def _picture(sample: Sample) -> str:
    words = " ".join(f"{escape(label)}&nbsp;{confidence:.2f}" for label, confidence in sample.labels) or "no label"
    uri = escape(sample.uri, quote=True)
    shown = (
        f'<img alt="{uri}" src="data:image/jpeg;base64,{escape(sample.thumbnail, quote=True)}">'
        if sample.thumbnail
        else '<div class="blank">too large to show</div>'
    )
    return f'<figure title="{uri}">{shown}<figcaption>{words}</figcaption></figure>'


def _some(shown: int, count: int) -> str:
    return f"{count:,}" if count <= shown else f"{shown} of {count:,}"


def _nodes(receipt: Receipt) -> str:
    """What each did, where there are several."""
    if len(receipt.nodes) < 2:
        return ""
    rows = [
        [escape(name), f"{node.pictures:,}", f"{node.pictures_per_s:,.0f}", duration(node.from_s), duration(node.to_s)]
        for name, node in sorted(receipt.nodes.items())
    ]
    listed = table(["node", "pictures", "pictures/s", "from", "to"], rows)
    return f'<h2>Nodes</h2><div class="wide">{listed}</div>'


def _operators(receipt: Receipt) -> str:
    """What Ray Data says of them."""
    if not receipt.operators:
        return ""
    rows = [
        [
            escape(name),
            f"{found.get('num_tasks_finished', 0):,.0f}",
            f"{found.get('num_tasks_failed', 0):,.0f}",
            duration(found.get("task_submission_backpressure_time", 0.0)),
            bytes_text(found.get("obj_store_mem_used", 0)),
            bytes_text(found.get("obj_store_mem_spilled", 0)),
        ]
        for name, found in receipt.operators.items()
    ]
    columns = ["operator", "tasks", "failed", "held back", "object store", "spilled"]
    return f'<h2>Ray Data</h2><div class="wide">{table(columns, rows)}</div>'


def _account(receipt: Receipt) -> str:
    asked = receipt.traffic
    rows = [
        ["run", escape(receipt.run_id)],
        ["workers", escape(receipt.workers or "none")],
        ["engine", escape(receipt.engine)],
        ["precision asked for", escape(receipt.precision)],
        ["computed in", escape(", ".join(sorted(set(receipt.computed_in.values()))))],
        ["bundle", escape(receipt.bundle_digest)],
        ["pictures listed", f"{receipt.pictures_listed:,}"],
        ["no longer in the store", f"{receipt.pictures_deleted:,}"],
        ["returned as they were", f"{receipt.pictures_returned:,}"],
        ["in an archive", f"{receipt.pictures_archived:,}"],
        ["CPU time", duration(receipt.cpu_s)],
        ["core-hours held", f"{receipt.cores * receipt.wall_s / 3600:,.3f}"],
        *([["GPU-hours held", f"{receipt.gpus * receipt.wall_s / 3600:,.3f}"]] if receipt.gpus else []),
        ["requests", f"{asked.lists:,} list, {asked.gets:,} get, {asked.puts:,} put"],
        ["retries", f"{receipt.retries:,}"],
        ["read, written", f"{bytes_text(asked.read_bytes)}, {bytes_text(asked.written_bytes)}"],
        ["commits, data files", f"{receipt.commits:,}, {receipt.files:,}"],
    ]
    if receipt.cost:
        cost = receipt.cost
        parts = {"cores": cost.cores, "GPUs": cost.gpus, "requests": cost.requests, "transfer": cost.transfer}
        rows.append(["cost", escape(cost.said(cost.total))])
        rows += [[f"&nbsp; {name}", escape(cost.said(amount))] for name, amount in parts.items() if amount]
    return f'<h2>Account</h2><div class="wide">{table(["", ""], rows)}</div>'
