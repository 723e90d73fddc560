"""A file becomes a checked spec."""

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
from labelmill.spec.reading.record import record_of
from labelmill.spec.reading.source import Source, apply_override, read_source
from labelmill.spec.reading.substitute import Substitution, substitute
from labelmill.spec.serve import ServeSpec
from labelmill.spec.train.train import TrainSpec

__all__ = ["LoadedSpec", "Spec", "load_spec", "spec_of"]

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

    `source` is what was written, overrides included, with its variables filled in: it may be stored, since what
    carries a secret keeps its `${NAME}`. `written` is the same with every variable as it was written. `path` is the
    file as it was named.
    """

    spec: Spec
    source: dict[str, Any] = field(repr=False)
    path: str
    written: dict[str, Any] = field(default_factory=dict, repr=False)


def load_spec(
    path: str | Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    secrets_are_elsewhere: bool = False,
) -> LoadedSpec:
    """Read and check the spec in a YAML or JSON file.

    `overrides` are `path.to.field=value`, with the value in YAML; `environ` (default: os.environ) fills `${NAME}`.
    `secrets_are_elsewhere`: a variable that carries a secret need not be set here, where the job does not run.
    SpecError: names every mistake with its line or override, the field, what was expected, and what came.
    """
    source = read_source(str(path))
    for override in overrides:
        apply_override(source, override)
    return _loaded(source, environ, secrets_are_elsewhere)


def spec_of(data: Mapping[str, Any], name: str) -> Spec:
    """The checked spec of what a file with it would hold; errors call it by `name`."""
    return _loaded(Source(name, dict(data))).spec


def _loaded(
    source: Source, environ: Mapping[str, str] | None = None, secrets_are_elsewhere: bool = False
) -> LoadedSpec:
    environ = os.environ if environ is None else environ
    filled = substitute(source.data, environ, secrets_are_elsewhere=secrets_are_elsewhere)
    model = _model(source, filled)
    try:
        spec = model.model_validate(filled.data)
    except ValidationError as exc:
        problems = describe(exc.errors(include_url=False), source, filled, model)
    else:
        problems = describe([], source, filled, model)
        if not problems:
            values = spec.model_dump(mode="json", exclude_unset=True)
            written = record_of(source.data, filled, source.data)
            return LoadedSpec(spec, record_of(source.data, filled, values), source.path, written)
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
