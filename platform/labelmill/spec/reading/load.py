"""A file becomes a checked spec."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from labelmill.errors import SpecError
from labelmill.spec.evaluate import EvaluateSpec
from labelmill.spec.label import LabelSpec
from labelmill.spec.nearest import listing, nearest
from labelmill.spec.reading.problems import describe
from labelmill.spec.reading.source import Source, apply_override, read_source
from labelmill.spec.reading.substitute import Substitution, substitute
from labelmill.spec.serve import ServeSpec
from labelmill.spec.train.train import TrainSpec

__all__ = ["LoadedSpec", "Spec", "load_spec"]

Spec = TrainSpec | EvaluateSpec | LabelSpec | ServeSpec

KINDS: dict[str, type[Spec]] = {
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
    "label": LabelSpec,
    "serve": ServeSpec,
}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A valid spec.

    `source` is what was written, overrides included, before substitution: it holds no secret and may be stored.
    `path` is the file as it was named.
    """

    spec: Spec
    source: dict[str, Any] = field(repr=False)
    path: str


def load_spec(path: str | Path, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> LoadedSpec:
    """Read and check the spec in a YAML or JSON file.

    `overrides` are `path.to.field=value`, with the value in YAML; `environ` (default: os.environ) fills `${NAME}`.
    SpecError: names every mistake with its line or override, the field, what was expected, and what came.
    """
    source = read_source(str(path))
    for override in overrides:
        apply_override(source, override)
    filled = substitute(source.data, os.environ if environ is None else environ)
    model = _model(source, filled)
    try:
        spec = model.model_validate(filled.data)
    except ValidationError as exc:
        problems = describe(exc.errors(include_url=False), source, filled, model)
    else:
        problems = describe([], source, filled, model)
        if not problems:
            return LoadedSpec(spec, _without_keys(source.data), source.path)
    if len(problems) > 1:
        raise SpecError(f"{source.path}: {len(problems)} mistakes", *problems) from None
    raise SpecError(problems[0]) from None


def _model(source: Source, filled: Substitution) -> type[Spec]:
    kind = filled.data.get("kind")
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind]
    origin = source.origin(("kind",))
    if "kind" not in filled.data:
        near = nearest("kind", list(source.data))
        hint = f" (did you mean kind where it says {near}?)" if near else ""
        raise SpecError(f"{origin}: kind: required, and missing: {listing(KINDS)}{hint}")
    if ("kind",) in filled.problems:
        raise SpecError(f"{origin}: kind: {filled.problems['kind',]}")
    known = isinstance(kind, str | int | float) and not filled.holds_secret(("kind",))
    came = repr(kind) if known else "nothing" if kind is None else "something else"
    near = nearest(kind, KINDS) if isinstance(kind, str) else None
    hint = f": did you mean {near}?" if near else ""
    raise SpecError(f"{origin}: kind: expected {listing(KINDS)}, got {came}{hint}")


def _without_keys(data: dict[str, Any]) -> dict[str, Any]:
    """A copy in which keys that stand in the file itself, instead of the environment, are masked."""
    data = copy.deepcopy(data)
    if isinstance(data.get("api_keys"), list):
        data["api_keys"] = [key if "${" in str(key) else "**********" for key in data["api_keys"]]
    return data
