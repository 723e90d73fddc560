"""Text that comes from outside, names of files above all, as a terminal may be given it."""

__all__ = ["encodable", "printable", "printable_lines"]


def printable(text: str) -> str:
    """`text` on one line: what would steer a terminal is escaped, and so are bytes of a name that is not UTF-8.

    >>> print(printable("a\\x1b[2J\\nb"))
    a\\x1b[2J\\nb
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, which it keeps."""
    return "\n".join(map(printable, text.split("\n")))


def encodable(text: str, encoding: str) -> str:
    """`text` as a stream of this encoding shows it, so that what stands below one another is as wide as it seems."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # how Python holds a byte that is no character
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
