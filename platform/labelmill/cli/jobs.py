"""The commands that take a spec: is it right, what would it do, do it; and those that need nothing."""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labelmill.cli.arguments import Overrides, SpecPath
from labelmill.cli.output import print_findings, put
from labelmill.errors import SpecError
from labelmill.terminal import log_to, printable_lines

if TYPE_CHECKING:
    from labelmill.check import Finding
    from labelmill.spec import LoadedSpec

__all__ = ["jobs"]

jobs = typer.Typer()


@jobs.command("check")
def check_command(
    path: SpecPath,
    overrides: Overrides = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only read the spec; reach for nothing.")] = False,
    preview: Annotated[
        Path | None,
        typer.Option("--preview", metavar="FILE.html", help="Write a sheet of pictures as training would see them."),
    ] = None,
) -> None:
    """Is a spec valid, and can everything it names be reached?

    Exits with 0 when all is well, 1 when something cannot be reached, 2 when the spec is not valid.

    Example: labelmill check jobs/train.yaml --preview sheet.html --set augment.preset=medium
    """
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or ())
    summary = f"valid, {loaded.spec.kind} {loaded.spec.name}"
    if offline:
        if preview is not None:
            raise SpecError("--preview reads pictures: leave out --offline")
        print_findings([("spec", path, True, summary)], width=len(path))
        return
    _check_places(loaded, path, summary)
    if preview is not None:
        _preview(loaded, preview)


def _preview(loaded: "LoadedSpec", path: Path) -> None:
    from labelmill.train.preview import write_preview

    num_pictures = write_preview(loaded, path)
    print_findings([("preview", str(path), True, f"{num_pictures} pictures as training sees them")], width=0)


def _check_places(loaded: "LoadedSpec", path: str, summary: str) -> None:
    from labelmill.check import check

    findings: list[Finding] = []
    lines = [("spec", path, True, summary)]
    for finding in check(loaded.spec):
        findings.append(finding)
        lines.append((finding.subject, finding.place, finding.ok, finding.detail))
    print_findings(lines, width=max(len(place) for _, place, _, _ in lines))
    failed = [finding for finding in findings if not finding.ok]
    if not all(finding.answered for finding in findings):
        # A thread still hangs in a store's client: leaving the usual way would tear it down under its feet.
        sys.stdout.flush()
        os._exit(1)
    if failed:
        raise typer.Exit(1)


@jobs.command("plan")
def plan_command(
    path: SpecPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """What would a label job do: counts, bytes, requests, time and money.

    Lists the store, subtracts the table, labels a random sample of what is left, and writes nothing. Exits with 3 when
    so much of the sample fails that the run would stop, with 4 when so many pictures are gone.

    Example: labelmill plan jobs/label.yaml --json
    """
    from labelmill.label.preview import preview
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or ())
    with log_to(sys.stderr):
        found = preview(loaded)
    put(found.to_json() if as_json else printable_lines(str(found)))
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@jobs.command("run")
def run_command(path: SpecPath, overrides: Overrides = None) -> str:
    """Do what a spec describes: train, evaluate, label or serve.

    On a Ray of its own on this machine, or on the one that RAY_ADDRESS names. Running the same file again continues
    what was interrupted.

    Example: labelmill run jobs/train.yaml --set optimize.epochs=3
    """
    from labelmill.spec import load_spec
    from labelmill.unattended import told_of_end

    loaded = load_spec(path, overrides or ())
    with log_to(sys.stderr), told_of_end(loaded.spec):
        result = importlib.import_module(f"labelmill.{loaded.spec.kind}").run(loaded)
    return "" if result is None else str(result)


@jobs.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a spec, for editors and other tools.

    Example: labelmill schema > jobs/labelmill.schema.json
    """
    from labelmill.spec import json_schema

    put(json.dumps(json_schema(), indent=2))


@jobs.command("demo")
def demo_command() -> str:
    """Train, label and serve on real pictures, start to end.

    Example: labelmill demo
    """
    from labelmill.demo import run_demo

    with log_to(sys.stderr):
        return str(run_demo())
