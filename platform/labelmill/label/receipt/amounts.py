"""How amounts are said to a person: durations and bytes."""

from __future__ import annotations

__all__ = ["bytes_text", "duration"]


def duration(seconds: float) -> str:
    """Two units at most: 0.4 s, 38 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def bytes_text(count: float) -> str:
    """In decimal units, as stores bill them: 812 B, 4.1 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
