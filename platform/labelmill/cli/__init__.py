"""The command line. It alone writes to the terminal; commands import what they need when they run."""

import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from labelmill import __version__
from labelmill.errors import LabelmillError
from labelmill.terminal import log_to, printable

if TYPE_CHECKING:
    from rich.console import Console

    from labelmill.check import Finding
    from labelmill.model.bundle import Bundle
    from labelmill.spec import LoadedSpec

__all__ = ["app", "main"]

# Plain help: boxes and colours are for terminals only, and importing them would double the time of `check`.
app = typer.Typer(
    name="labelmill",
    help="Train an image classifier, label an object store with it in bulk, serve the same model.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(
    help="List, show, promote, roll back and export models; list the architectures to train.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(models, name="models")


class ShowUnlessTold(TyperGroup):
    """A group whose first argument may also be a table: `labels TABLE` is `labels show TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


labels = typer.Typer(
    cls=ShowUnlessTold,
    help="Show a label table and keep it in order: `labelmill labels TABLE` shows it.\n\n"
    "Example: labelmill labels ./demo/labels --status unreadable",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(labels, name="labels")

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A job spec, YAML or JSON.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field: optimize.epochs=3. May be repeated."),
]
RegistryUri = Annotated[
    str, typer.Option("--registry", envvar="LABELMILL_REGISTRY", metavar="URI", help="Where the models are.")
]
TableUri = Annotated[str, typer.Argument(metavar="TABLE", help="The output of a label job.")]
Alias = Annotated[str, typer.Option("--alias", help="The alias to move.")]


_UNITS = {"G": 1e9, "M": 1e6, "k": 1e3}


def amount(text: str) -> float:
    """300000, 5M or 1.5G as a number."""
    unit = text[-1:]
    try:
        return float(text.removesuffix(unit)) * _UNITS[unit] if unit in _UNITS else float(text)
    except ValueError as exc:
        raise typer.BadParameter(f"expected a number such as 300000, 5M or 1.5G, got {text!r}") from exc


class GraphForm(StrEnum):
    ONNX = "onnx"
    OPENVINO = "openvino"


class Order(StrEnum):
    NAME = "name"
    PARAMETERS = "parameters"
    OPERATIONS = "operations"


def main() -> None:
    """The entry point: an error of ours is one message on stderr, anything else is a bug and shows its traceback."""
    try:
        app(prog_name="labelmill")
    except LabelmillError as exc:
        _flush()
        typer.echo(f"error: {printable(str(exc))}", err=True)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    finally:
        _flush()


def _flush() -> None:
    """Nobody may be reading any more; the interpreter would complain of that at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def labelmill(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"labelmill {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("check")
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
            raise typer.BadParameter("--preview reads pictures: leave out --offline")
        _print_findings([("spec", path, True, summary)], width=len(path))
        return
    _check_places(loaded, path, summary)
    if preview is not None:
        _preview(loaded, preview)


def _preview(loaded: "LoadedSpec", path: Path) -> None:
    from labelmill.train.preview import write_preview

    num_pictures = write_preview(loaded, path)
    _print_findings([("preview", str(path), True, f"{num_pictures} pictures as training sees them")], width=0)


def _check_places(loaded: "LoadedSpec", path: str, summary: str) -> None:
    from labelmill.check import check

    findings: list[Finding] = []
    lines = [("spec", path, True, summary)]
    for finding in check(loaded.spec):
        findings.append(finding)
        lines.append((finding.subject, finding.place, finding.ok, finding.detail))
    _print_findings(lines, width=max(len(place) for _, place, _, _ in lines))
    failed = [finding for finding in findings if not finding.ok]
    if not all(finding.answered for finding in findings):
        # A thread still hangs in a store's client: leaving the usual way would tear it down under its feet.
        sys.stdout.flush()
        os._exit(1)
    if failed:
        raise typer.Exit(1)


def _print_findings(lines: Iterable[tuple[str, str, bool, str]], *, width: int) -> None:
    marks = ("✓", "✗") if _can_print("✓✗") else ("ok", "--")
    for subject, place, ok, detail in lines:
        mark = typer.style(marks[0], fg="green") if ok else typer.style(marks[1], fg="red")
        typer.echo(f"{mark} {subject:<8}  {printable(place):<{width}}  {printable(detail)}")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


@app.command("plan")
def plan_command(
    path: SpecPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """What would a label job do: counts, bytes, requests, time and money.

    Lists the store, subtracts the table, labels a random sample of what is left, and writes nothing. Exits with 1 when
    so much of the sample fails that the run would stop.

    Example: labelmill plan jobs/label.yaml --json
    """
    from labelmill.label.preview import preview
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or ())
    with log_to(sys.stderr):
        found = preview(loaded)
    typer.echo(found.to_json() if as_json else printable(str(found)))
    if found.would_stop:
        raise typer.Exit(1)


@app.command("run")
def run_command(path: SpecPath, overrides: Overrides = None) -> None:
    """Do what a spec describes: train, evaluate, label or serve.

    On a Ray of its own on this machine, or on the one that RAY_ADDRESS names. Running the same file again continues
    what was interrupted.

    Example: labelmill run jobs/train.yaml --set optimize.epochs=3
    """
    from labelmill.spec import load_spec

    loaded = load_spec(path, overrides or ())
    with log_to(sys.stderr):
        result = importlib.import_module(f"labelmill.{loaded.spec.kind}").run(loaded)
    if result is not None:
        typer.echo(printable(str(result)))


@models.command("list")
def list_models(registry: RegistryUri = "./demo/registry") -> None:
    """Every model, its newest version and its aliases.

    Example: labelmill models list --registry s3://bucket/models
    """
    from labelmill.model.registry import Registry

    store = Registry(registry)
    rows = []
    for name in store.names():
        versions = store.versions(name)
        aliases = ", ".join(f"{alias} -> {version}" for alias, version in store.aliases(name).items())
        rows.append([name, str(len(versions)), str(versions[-1]), aliases])
    if not rows:
        typer.echo(f"no models in {store.uri}", err=True)
        return
    _print_table(["model", "versions", "newest", "aliases"], rows)


@models.command("show")
def show_model(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="digits@3, digits@current")],
    registry: RegistryUri = "./demo/registry",
) -> None:
    """What a model is: labels, metrics, digest, history.

    Example: labelmill models show digits@current
    """
    from labelmill.model.registry import Registry

    store = Registry(registry)
    bundle = store.resolve(reference)
    _print_table(None, _facts(bundle))
    rows = [
        [alias, str(row.number), f"{bundle.name}@{row.version}", row.promoted_at, row.reason]
        for alias in store.aliases(bundle.name)
        for row in store.history(bundle.name, alias)
    ]
    if rows:
        typer.echo()
        _print_table(["alias", "number", "version", "promoted at", "reason"], rows)


def _facts(bundle: "Bundle") -> list[list[str]]:
    return [
        ["model", bundle.reference],
        ["digest", bundle.digest],
        ["stored at", bundle.uri],
        ["task", bundle.task],
        ["architecture", f"{bundle.architecture}, {bundle.preprocessing.image_size_px} px"],
        ["labels", f"{len(bundle.labels)}: {', '.join(bundle.labels)}"],
        *[[name.replace("_", " "), _number(value)] for name, value in _metrics(bundle.metrics)],
    ]


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | str]]:
    """The single numbers: what is kept for each label stands in the report."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from ((f"{name} {inner}", number) for inner, number in _metrics(value) if " " not in inner)
        elif isinstance(value, int | float | str):
            yield name, value


def _number(value: float | str) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@models.command("promote")
def promote_model(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version that the alias shall name.")],
    registry: RegistryUri = "./demo/registry",
    alias: Alias = "current",
    reason: Annotated[str, typer.Option("--reason", help="Kept in the alias's history.")] = "",
) -> None:
    """Point an alias to a version, and with it all that follow it.

    The version's files are verified first: when one is damaged, nothing changes.

    Example: labelmill models promote digits@3 --reason "better on night pictures"
    """
    from labelmill.model.registry import Registry

    row = Registry(registry).promote(reference, alias, reason=reason)
    name = reference.partition("@")[0]
    typer.echo(f"{name}@{alias} is now {name}@{row.version}")


@models.command("rollback")
def roll_back_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model, without a version.")],
    registry: RegistryUri = "./demo/registry",
    alias: Alias = "current",
) -> None:
    """Point an alias to the version it named before.

    Example: labelmill models rollback digits
    """
    from labelmill.model.registry import Registry

    row = Registry(registry).rollback(name, alias)
    typer.echo(f"{name}@{alias} is now {name}@{row.version}")


@models.command("export")
def export_model(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="digits@3, digits@current")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An empty or a new one.")],
    form: Annotated[GraphForm, typer.Option("--format", help="Who shall run it.")] = GraphForm.ONNX,
    registry: RegistryUri = "./demo/registry",
) -> None:
    """Write a model as a graph for ONNX Runtime, TensorRT, OpenVINO and others, its preprocessing inside.

    It takes RGB pixels as bytes and gives calibrated confidences; labels and thresholds lie beside it. Before it is
    handed over it is run and compared with the model.

    Example: labelmill models export digits@current ./digits-onnx --format onnx
    """
    from labelmill.model.export import export_bundle
    from labelmill.model.registry import Registry

    done = export_bundle(Registry(registry).resolve(reference), folder, form.value)
    typer.echo(f"{done.graph}: confidences differ from those of {reference} by at most {done.difference:.1g}")


@models.command("architectures")
def list_architectures(
    words: Annotated[
        list[str] | None, typer.Option("--filter", metavar="WORD", help="In the name; * and ? match. May be repeated.")
    ] = None,
    max_parameters: Annotated[float | None, typer.Option(parser=amount, metavar="N", help="At most: 5M.")] = None,
    max_operations: Annotated[
        float | None,
        typer.Option(parser=amount, metavar="N", help="At most so many multiply-adds: 500M, 4G."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(metavar="PX", help="Made for this side in pixels.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only those with weights to start from.")] = False,
    sort: Annotated[Order, typer.Option(help="What decides the order; the smallest comes first.")] = Order.NAME,
) -> None:
    """What `model.architecture` may name: parameters, side in pixels, multiply-adds for one picture.

    Example: labelmill models architectures --filter mobilenet --max-operations 300M --sort operations
    """
    from labelmill.spec import find_architectures

    rows = find_architectures(
        *(words or ()),
        max_parameters=max_parameters,
        max_multiply_adds=max_operations,
        image_size_px=image_size,
        pretrained=pretrained,
    )
    if not rows:
        typer.echo("no architecture is like that: leave a filter out", err=True)
        raise typer.Exit(1)
    if sort is not Order.NAME:
        rows.sort(key=lambda row: row.num_parameters if sort is Order.PARAMETERS else row.num_multiply_adds or 0)
    cells = [
        [row.name, _amount(row.num_parameters), str(row.image_size_px), _amount(row.num_multiply_adds), mark]
        for row in rows
        for mark in ["yes" if row.pretrained else "no"]
    ]
    _print_table(["architecture", "parameters", "pixels", "operations", "pretrained"], cells)


def _amount(number: int | None) -> str:
    """Three digits: 11.7M."""
    if number is None:
        return "unknown"
    unit = next((unit for unit, size in _UNITS.items() if number >= size), "")
    return f"{number / _UNITS.get(unit, 1):.3g}{unit}"


@labels.command("show")
def show_labels(
    table: TableUri,
    status: Annotated[str | None, typer.Option("--status", help="Only rows with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many rows to show.")] = 20,
    current: Annotated[bool, typer.Option("--current", help="One row a picture: the newest.")] = False,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only rows of this model.")] = None,
) -> None:
    """Show a label table: its rows, statuses and label counts. `labelmill labels TABLE` is short for it.

    Example: labelmill labels show ./demo/labels --status unreadable --limit 5
    """
    from labelmill.cli.show import print_labels

    print_labels(table, status=status, limit=limit, current=current, model=model, console=_console())


@labels.command("compact")
def compact_labels(table: TableUri) -> None:
    """Merge a table's small files, day by day, into files of up to 256 MiB.

    A run merges its own day when it ends; this is for tables that many short runs have written. Refused while a run is
    on the table. The files that were merged stay until a vacuum.

    Example: labelmill labels compact ./demo/labels
    """
    from labelmill.table.upkeep import compact

    done = compact(table)
    typer.echo(f"{printable(table)}: {done.files_before:,} files before, {done.files_after:,} now")


@labels.command("vacuum")
def vacuum_labels(
    table: TableUri,
    older_than_h: Annotated[
        float, typer.Option("--older-than-h", min=0, help="Hours for which readers may still use an older version.")
    ] = 168,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are only listed.")] = False,
) -> None:
    """List, or with --delete remove, the data files that a table needs no more.

    Those are files that were merged into others, and files of runs that died before they committed them. Refused while
    a run is on the table.

    Example: labelmill labels vacuum ./demo/labels --delete
    """
    from labelmill.table.upkeep import find_unneeded, vacuum

    files = (vacuum if delete else find_unneeded)(table, older_than_h=older_than_h)
    for file in files:
        typer.echo(printable(file.key))
    size = f"{len(files):,} files, {sum(file.size_bytes for file in files) / 2**20:,.1f} MiB"
    typer.echo(f"{size} deleted" if delete else f"{size} to delete; --delete does it")


@labels.command("view")
def view_labels(
    table: TableUri,
    dialect: Annotated[str, typer.Option("--for", metavar="ENGINE", help="duckdb, spark or trino")] = "duckdb",
) -> None:
    """Print what to paste into DuckDB, Spark or Trino for a view with the newest row of each picture.

    Example: labelmill labels view ./demo/labels --for spark
    """
    from labelmill.table.view import view_text

    typer.echo(view_text(table, dialect), nl=False)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a spec, for editors and other tools.

    Example: labelmill schema > jobs/labelmill.schema.json
    """
    from labelmill.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command("demo")
def demo_command() -> None:
    """Train, label and serve on real pictures, start to end.

    Example: labelmill demo
    """
    from labelmill.demo import run_demo

    with log_to(sys.stderr):
        result = run_demo()
    typer.echo(printable(str(result)))


def _console() -> "Console":
    from rich.console import Console

    # Not on a terminal a line is a row, however long.
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def _print_table(header: list[str] | None, rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in header or rows[0]:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    _console().print(table)
