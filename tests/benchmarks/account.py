"""What the benchmarks leave: JSON with the machine in it, a plot, a table for the README."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "bars",
    "command",
    "compared",
    "machine",
    "medians",
    "ratios",
    "table",
    "write_json",
    "write_plot",
    "write_results",
]

_PACKAGES = ("labelmill", "ray", "torch", "torchvision", "timm", "openvino", "pillow", "simplejpeg", "numpy", "pyarrow")
_PEER_PACKAGES = ("daft", "pyspark", "ray", "torch", "torchvision", "timm", "pillow", "numpy", "pyarrow")
_FIGURES = (
    "pictures_per_s",
    "steady_pictures_per_s",
    "cpu_s_per_1000",
    "steady_cpu_s_per_1000",
    "wall_s",
    "peak_memory_bytes",
    "agreement",
    "decode_alone_pictures_per_s",
    "forward_alone_pictures_per_s",
)
_TITLES = {
    "labelmill": "labelmill",
    "labelmill_bfloat16": "labelmill, bfloat16",
    "limit": "the limit",
    "limit_bfloat16": "the limit, bfloat16",
    "daft": "Daft",
    "ray_data": "Ray Data, as documented",
    "dataloader": "PyTorch DataLoader",
    "daft_bfloat16": "Daft, bfloat16",
    "dataloader_bfloat16": "PyTorch DataLoader, bfloat16",
    "dataloader_compiled": "DataLoader, torch.compile",
    "spark": "Spark, pandas UDF",
}


def command() -> str:
    """How the benchmark was called. Of a path that leaves this folder the last two parts stay: the rest says where it
    ran."""
    given = [str(Path(*Path(text).parts[-2:])) if text.startswith(("/", "../")) else text for text in sys.argv[1:]]
    return " ".join([Path(sys.argv[0]).name, *given])


def machine(peers_python: str = sys.executable) -> dict[str, Any]:
    """What the figures were taken on and with."""
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line]
    code = f"import account, json; print(json.dumps(account.versions({_PEER_PACKAGES!r})))"
    peers = subprocess.run([peers_python, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu[0] if cpu else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": os.uname().release,
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": sys.version.split()[0],
        "versions": versions(_PACKAGES),
        "peer_versions": json.loads(peers.stdout) if peers.returncode == 0 else peers.stderr.strip(),
        "commit": _commit(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return commit.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def compared(runs: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> dict[str, Any]:
    """Of runs of two checkouts in turn, "before" and "now": the medians of both, and those of what a round's two runs
    differ by. Where the machine is slow for minutes, both runs of a round are."""
    before, now = ([run for run in runs if run["checkout"] == name] for name in ("before", "now"))
    pairs = list(zip(before, now, strict=True))

    def each(value: Callable[[str], Iterable[float]]) -> dict[str, float]:
        return {figure: round(statistics.median(value(figure)), 4) for figure in figures}

    return {
        "before": each(lambda figure: [run[figure] for run in before]),
        "now": each(lambda figure: [run[figure] for run in now]),
        "more": each(lambda figure: [new[figure] - old[figure] for old, new in pairs]),
        "ratio": each(lambda figure: [new[figure] / max(old[figure], 1e-9) for old, new in pairs]),
    }


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each contender and figure, over its runs."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(run["contender"] for run in runs):
        own = [run for run in runs if run["contender"] == name]
        found[name] = {key: statistics.median(run[key] for run in own) for key in _FIGURES if key in own[0]}
        found[name]["runs"] = len(own)
    return found


def ratios(figures: Mapping[str, Mapping[str, float]], precision: str = "") -> dict[str, float]:
    """What has to be shown: labelmill over the best peer of each figure, and over the limit. With `precision`
    "_bfloat16" labelmill in that over all peers, whatever they compute in; else those in float32 alone."""
    own, limit = figures.get(f"labelmill{precision}"), figures.get(f"limit{precision}")
    peers = [
        found
        for name, found in figures.items()
        if not name.startswith(("labelmill", "limit")) and (precision or not name.endswith("_bfloat16"))
    ]
    found: dict[str, float] = {}
    if own and peers:
        found = {
            "whole_job_over_best_peer": own["pictures_per_s"] / max(peer["pictures_per_s"] for peer in peers),
            "steady_over_best_peer": own["steady_pictures_per_s"]
            / max(peer["steady_pictures_per_s"] for peer in peers),
            "best_peers_cpu_over_own": min(peer["cpu_s_per_1000"] for peer in peers) / own["cpu_s_per_1000"],
            "best_peers_steady_cpu_over_own": min(peer["steady_cpu_s_per_1000"] for peer in peers)
            / own["steady_cpu_s_per_1000"],
        }
    if own and limit:
        found["steady_over_limit"] = own["steady_pictures_per_s"] / limit["steady_pictures_per_s"]
    return {name: round(value, 3) for name, value in found.items()}


def write_results(folder: Path, about: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """JSON and SVG of a bulk benchmark, named for the architecture; returns what the JSON says."""
    figures = medians(runs)
    compared = {"ratios": ratios(figures), "ratios_bfloat16": ratios(figures, "_bfloat16")}
    results = {**about, "medians": figures, **compared, "runs": list(runs)}
    name = f"{about['benchmark']}-{about['architecture'].replace('/', '-')}"
    write_json(folder / f"{name}.json", results)
    titled = {_TITLES[name]: found for name, found in figures.items()}
    whole = {name: found for name, found in titled.items() if "agreement" in found}
    panels = [
        bars("pictures a second, whole job", {n: f["pictures_per_s"] for n, f in whole.items()}),
        bars("pictures a second, steady", {n: f["steady_pictures_per_s"] for n, f in titled.items()}),
        bars("CPU-seconds per 1,000 pictures", {n: f["cpu_s_per_1000"] for n, f in titled.items()}),
        bars("peak memory, GiB", {n: f["peak_memory_bytes"] / 2**30 for n, f in whole.items()}),
    ]
    write_plot(folder / f"{name}.svg", panels)
    return results


def write_json(file: Path, results: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")


def table(results: Mapping[str, Any]) -> str:
    """Markdown: a line a contender, and what was to be shown."""
    lines = [
        f"{results['architecture']}, {results['pictures']:,} pictures, {results['machine']['cores']} cores of "
        f"{results['machine']['cpu']}, medians of {results['medians']['labelmill']['runs']} runs"
        if "labelmill" in results["medians"]
        else results["architecture"],
        "",
        "| | pictures/s, whole job | pictures/s, steady | CPU-s per 1,000, whole job | CPU-s per 1,000, steady "
        "| peak memory, GiB | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in sorted(results["medians"].items(), key=lambda item: -item[1]["steady_pictures_per_s"]):
        if name.startswith("limit"):
            lines.append(
                f"| {_TITLES[name]} | | {found['steady_pictures_per_s']:.1f} | | {found['cpu_s_per_1000']:.2f} | | |"
            )
            continue
        lines.append(
            f"| {_TITLES[name]} | {found['pictures_per_s']:.1f} | {found['steady_pictures_per_s']:.1f} "
            f"| {found['cpu_s_per_1000']:.2f} | {found['steady_cpu_s_per_1000']:.2f} "
            f"| {found['peak_memory_bytes'] / 2**30:.2f} | {found['agreement']:.2%} |"
        )
    for title, key in (("labelmill", "ratios"), ("labelmill in bfloat16", "ratios_bfloat16")):
        lines += ["", f"{title}:", "", *(f"- {name}: {value}" for name, value in results[key].items())]
    return "\n".join(lines)


def bars(title: str, values: Mapping[str, float]) -> str:
    """A panel of horizontal bars, 640 wide, as an SVG group that says its height."""
    longest = max([*values.values(), 1e-9])
    parts = [f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>']
    for row, (name, value) in enumerate(sorted(values.items(), key=lambda item: -item[1])):
        y, width = 26 + 22 * row, 350 * value / longest
        colours = {"labelmill": "#1f6feb", "the limit": "#b9bec6"}
        colour = next((colours[known] for known in colours if name.startswith(known)), "#8a94a6")
        parts.append(f'<text x="200" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="210" y="{y}" width="{width:.1f}" height="17" fill="{colour}"/>')
        parts.append(f'<text x="{216 + width:.1f}" y="{y + 13}">{value:,.4g}</text>')
    return f'<g data-height="{40 + 22 * len(values)}">{"".join(parts)}</g>'


def write_plot(file: Path, panels: Sequence[str]) -> None:
    """The panels of `bars`, one below the other, as an SVG file."""
    y, moved = 10, []
    for panel in panels:
        height = int(panel.partition('data-height="')[2].partition('"')[0])
        moved.append(f'<g transform="translate(10 {y})">{panel}</g>')
        y += height
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {y}" width="660" height="{y}" '
        f'font-family="sans-serif" font-size="12"><rect width="660" height="{y}" fill="white"/>{"".join(moved)}</svg>\n'
    )
