"""`labelmill models`: what the registry holds, which version an alias names, and what can be trained."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.cli.arguments import Alias, Group, RegistryUri
from labelmill.cli.output import print_table, put
from labelmill.terminal import printable

if TYPE_CHECKING:
    from labelmill.model.bundle import Bundle

__all__ = ["models"]

models = typer.Typer(
    cls=Group,
    help="List, show, promote, roll back and export models; list the architectures to train.",
    rich_markup_mode=None,
)

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
        put(f"no models in {printable(store.uri)}", err=True)
        return
    print_table(["model", "versions", "newest", "aliases"], rows)


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
    print_table(None, _facts(bundle))
    rows = [
        [alias, str(row.number), f"{bundle.name}@{row.version}", row.promoted_at, row.reason]
        for alias in store.aliases(bundle.name)
        for row in store.history(bundle.name, alias)
    ]
    if rows:
        put("")
        print_table(["alias", "number", "version", "promoted at", "reason"], rows)


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
) -> str:
    """Point an alias to a version, and with it all that follow it.

    The version's files are verified first: when one is damaged, nothing changes.

    Example: labelmill models promote digits@3 --reason "better on night pictures"
    """
    from labelmill.model.registry import Registry

    row = Registry(registry).promote(reference, alias, reason=reason)
    name = reference.partition("@")[0]
    return f"{name}@{alias} is now {name}@{row.version}"


@models.command("rollback")
def roll_back_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model, without a version.")],
    registry: RegistryUri = "./demo/registry",
    alias: Alias = "current",
) -> str:
    """Point an alias to the version it named before.

    Example: labelmill models rollback digits
    """
    from labelmill.model.registry import Registry

    row = Registry(registry).rollback(name, alias)
    return f"{name}@{alias} is now {name}@{row.version}"


@models.command("export")
def export_model(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="digits@3, digits@current")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An empty or a new one.")],
    form: Annotated[GraphForm, typer.Option("--format", help="Who shall run it.")] = GraphForm.ONNX,
    registry: RegistryUri = "./demo/registry",
) -> str:
    """Write a model as a graph for ONNX Runtime, TensorRT, OpenVINO and others, its preprocessing inside.

    It takes RGB pixels as bytes and gives calibrated confidences; labels and thresholds lie beside it. Before it is
    handed over it is run and compared with the model.

    Example: labelmill models export digits@current ./digits-onnx --format onnx
    """
    from labelmill.model.registry import Registry

    bundle = Registry(registry).resolve(reference)
    from labelmill.model.export import export_bundle  # takes seconds to import, which a wrong name need not wait for

    done = export_bundle(bundle, folder, form.value)
    return f"{done.graph}: confidences differ from those of {reference} by at most {done.difference:.1g}"


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
        put("no architecture is like that: leave a filter out", err=True)
        raise typer.Exit(1)
    if sort is not Order.NAME:
        rows.sort(key=lambda row: row.num_parameters if sort is Order.PARAMETERS else row.num_multiply_adds or 0)
    cells = [
        [row.name, _amount(row.num_parameters), str(row.image_size_px), _amount(row.num_multiply_adds), mark]
        for row in rows
        for mark in ["yes" if row.pretrained else "no"]
    ]
    print_table(["architecture", "parameters", "pixels", "operations", "pretrained"], cells)


def _amount(number: int | None) -> str:
    """Three digits: 11.7M."""
    if number is None:
        return "unknown"
    unit = next((unit for unit, size in _UNITS.items() if number >= size), "")
    return f"{number / _UNITS.get(unit, 1):.3g}{unit}"
