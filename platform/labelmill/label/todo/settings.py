"""What of a spec decides a row, beside its picture and the bundle: what was asked for, whatever a machine then took."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from labelmill.spec import LabelSpec

__all__ = ["Settings"]

# What rows said before that labelmill labelled until it went by what is asked for: what a machine computed in.
_COMPUTED_IN = {"auto": ("f32", "bf16", "int8"), "float32": ("f32", "int8"), "bfloat16": ("bf16", "int8")}


@dataclass(frozen=True)
class Settings:
    """`digest` is what new rows carry; rows with it, or with one of `as_good`, are final for this run."""

    digest: str
    as_good: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: LabelSpec) -> Settings:
        digest, *as_good = (_digest(spec, precision) for precision in (spec.precision, *_COMPUTED_IN[spec.precision]))
        return cls(digest, tuple(as_good))

    @property
    def final(self) -> tuple[str, ...]:
        return self.digest, *self.as_good


def _digest(spec: LabelSpec, precision: str) -> str:
    """16 hex digits."""
    settings = {
        "embeddings": spec.embeddings,
        "max_pixels": spec.max_pixels,
        "precision": precision,
        "scores": spec.scores,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
