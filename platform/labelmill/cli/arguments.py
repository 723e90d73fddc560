"""Arguments and options that several commands take."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

__all__ = ["Alias", "Group", "ModelName", "Overrides", "RegistryUri", "SpecPath", "TableUri"]

SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A job spec, YAML or JSON.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field: optimize.epochs=3. May be repeated."),
]
RegistryUri = Annotated[
    str, typer.Option("--registry", envvar="LABELMILL_REGISTRY", metavar="URI", help="Where the models are.")
]


def _utf8(text: str) -> str:
    """What a table holds, and where it lies, has no other characters."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise typer.BadParameter(f"expected text in UTF-8, got {text!r}") from exc
    return text


TableUri = Annotated[str, typer.Argument(metavar="TABLE", parser=_utf8, help="The output of a label job.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME[@VERSION]", parser=_utf8, help="Only rows of this model, or version."),
]
Alias = Annotated[str, typer.Option("--alias", help="The alias to move.")]


class Group(TyperGroup):
    """Commands below one word, which alone explains them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parsed: list[str] = super().parse_args(ctx, args or list(ctx.help_option_names[-1:]))
        return parsed
