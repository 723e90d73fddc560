"""The nearest valid name to a misspelt one."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

__all__ = ["listing", "nearest"]


def nearest(word: str, choices: Collection[str]) -> str | None:
    """The choice that `word` most likely stood for: another case, the last part of a path, or a few letters off."""
    lowered = {choice.lower(): choice for choice in choices}
    if word.lower() in lowered:
        return lowered[word.lower()]
    tails = [choice for choice in choices if choice.endswith(f"/{word.lower()}")]
    if tails:
        return tails[0]
    found = get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def listing(choices: Iterable[str]) -> str:
    """`a, b or c`."""
    *head, last = choices
    return f"{', '.join(head)} or {last}" if head else last
