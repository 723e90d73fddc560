"""How fast a run went at which part of it, from its notes: (second, pictures finished since the note before)."""

from collections.abc import Sequence

__all__ = ["cpu_between", "rate_between"]

Notes = Sequence[tuple[float, int]]


def rate_between(finished: Notes, first: float, last: float) -> float:
    """Pictures a second between the moments when these shares of all pictures were finished; each moment lies on the
    line between two notes, so that the size of the notes matters little."""
    total = sum(count for _, count in finished)
    return (last - first) * total / (_moment(finished, last * total) - _moment(finished, first * total))


def cpu_between(finished: Notes, cpu_curve: Sequence[tuple[float, float]], first: float, last: float) -> float:
    """CPU-seconds for 1,000 pictures between those moments; `cpu_curve` is (second, CPU-seconds until then)."""
    total = sum(count for _, count in finished)
    spent = [_value_at(cpu_curve, _moment(finished, share * total)) for share in (first, last)]
    return 1000 * (spent[1] - spent[0]) / ((last - first) * total)


def _moment(finished: Notes, pictures: float) -> float:
    """When so many pictures were finished. SystemExit: too few notes to tell."""
    done, before = 0, finished[0][0] if finished else 0.0
    for at, count in finished:
        if count and done + count >= pictures:
            return before + (at - before) * max(0.0, pictures - done) / count
        done, before = done + count, at
    raise SystemExit(f"expected notes of {pictures:,.0f} pictures, got {done:,}")


def _value_at(curve: Sequence[tuple[float, float]], moment: float) -> float:
    before = curve[0]
    for at, value in curve:
        if at >= moment:
            share = (moment - before[0]) / (at - before[0]) if at > before[0] else 0.0
            return before[1] + share * (value - before[1])
        before = (at, value)
    return before[1]
