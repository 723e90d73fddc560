"""How fast a run went at which part of it, from its notes: (second, pictures finished since the note before)."""

from collections.abc import Sequence

__all__ = ["rate_between"]


def rate_between(finished: Sequence[tuple[float, int]], first: float, last: float) -> float:
    """Pictures a second between the moments when these shares of all pictures were finished; each moment lies on the
    line between two notes, so that the size of the notes matters little."""
    total = sum(count for _, count in finished)
    return (last - first) * total / (_moment(finished, last * total) - _moment(finished, first * total))


def _moment(finished: Sequence[tuple[float, int]], pictures: float) -> float:
    """When so many pictures were finished. SystemExit: too few notes to tell."""
    done, before = 0, finished[0][0] if finished else 0.0
    for at, count in finished:
        if count and done + count >= pictures:
            return before + (at - before) * max(0.0, pictures - done) / count
        done, before = done + count, at
    raise SystemExit(f"expected notes of {pictures:,.0f} pictures, got {done:,}")
