"""The patterns with which a spec chooses among pictures.

They are those of .gitignore: a pattern without a slash is met by a file or folder of that name at any depth, one with
a slash starts at the top, and a folder that is met brings all below it.
"""

import re

__all__ = ["pattern_regex"]

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}|.", re.DOTALL)


def pattern_regex(pattern: str) -> str:
    """The pattern as a regular expression (RE2 and Python's alike) to be searched for in a key.

    >>> [bool(re.search(pattern_regex(pattern), "2026/05/a.jpg")) for pattern in ("*.jpg", "2026", "2026/*.jpg")]
    [True, True, False]
    """
    anywhere = "/" not in pattern.rstrip("/")
    name = "".join(_translated(token) for token in _TOKENS.findall(pattern.strip("/")))
    return f"{'(?:^|/)' if anywhere else '^'}{name}{'/' if pattern.endswith('/') else '(?:/|$)'}"


def _translated(token: str) -> str:
    match token:
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
    if len(token) > 2 and token[0] == "[":
        negated, inner = token[1] == "!", token[1:-1].removeprefix("!")
        escaped = re.sub(r"([\\\[\]^])", r"\\\1", inner)
        return f"[^/{escaped}]" if negated else f"[{escaped}]"
    if len(token) > 1 and token[0] == "{":
        return f"(?:{'|'.join(''.join(map(_translated, _TOKENS.findall(part))) for part in token[1:-1].split(','))})"
    return re.escape(token)
