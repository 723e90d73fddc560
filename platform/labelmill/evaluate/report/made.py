"""How to make it again: the spec as it was written, what else was found on the way, and the libraries."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import yaml

from labelmill.page.document import Section, table

__all__ = ["other_section", "spec_section"]

_SHOWN_ELSEWHERE = frozenset({"data", "search"})


def spec_section(spec: Mapping[str, Any], library_versions: Mapping[str, str]) -> Section:
    text = yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=100)
    versions = ", ".join(f"{library} {number}" for library, number in library_versions.items())
    return Section(
        "spec",
        "Spec",
        f"<p>This file gives the same run again: <code>labelmill run spec.yaml</code></p><pre>{escape(text)}</pre>"
        f"<p>Made with {escape(versions)}.</p>",
    )


def other_section(findings: Mapping[str, Any]) -> Section | None:
    """What an approach found out that has no section of its own, so that nothing is kept from the reader."""
    rows = [
        [escape(f"{name}: {path}".removesuffix(": ").replace("_", " ")), escape(value)]
        for name, found in findings.items()
        if name not in _SHOWN_ELSEWHERE
        for path, value in _leaves(found)
    ]
    return Section("findings", "Also found", f'<div class="wide">{table(["", ""], rows)}</div>') if rows else None


def _leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Every value with the way to it; empty ones are no finding."""
    match value:
        case dict():
            return [leaf for name, inner in value.items() for leaf in _leaves(inner, f"{path} {name}".strip())]
        case None | [] | "":
            return []
        case float():
            return [(path, f"{value:.4g}")]
        case list() if all(isinstance(inner, str | int | float) for inner in value):
            return [(path, ", ".join(map(str, value)))]
        case list():
            return [(path, json.dumps(value, ensure_ascii=False))]
    return [(path, str(value))]
