"""What kind of file this is, by its first bytes: names and content types are whatever somebody typed.

Only where not everything is a picture, among folders of labels and in a tar, an ending says whether a file is taken for
one. Whoever lists a prefix, a manifest or a labels file has said which files are pictures, whatever their names.
"""

from collections.abc import Callable

__all__ = [
    "FORMATS",
    "PICTURE_ENDINGS",
    "START_BYTES",
    "describe",
    "ends_like_a_picture",
    "has_ending",
    "is_picture",
    "sniff",
]

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")

PICTURE_ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
)
START_BYTES = 256

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_STARTS = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)  # without this check any text that starts with "BM" is a picture
_STRANGERS = (
    (b"%!ps", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%pdf", "a PDF document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"{", "JSON"),
    (b"8bps", "a Photoshop document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjxl ", "JPEG XL"),
    (b"\0\0\0\x0cjp  ", "JPEG 2000"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


def sniff(data: bytes) -> str | None:
    """One of `FORMATS`, or "heic", which is decoded where its extra is installed; None for anything else."""
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    brands = _brands(data)
    if {b"avif", b"avis"} & brands:
        return "avif"
    return "heic" if _HEIC_BRANDS & brands else None


def is_picture(name: str, start: Callable[[], bytes]) -> bool:
    """By the ending of the name; where it has none, by its first START_BYTES bytes, which `start` reads."""
    return ends_like_a_picture(name) if has_ending(name) else sniff(start()) is not None


def ends_like_a_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_ENDINGS)


def has_ending(name: str) -> bool:
    return "." in name.rpartition("/")[2]


def describe(data: bytes) -> str:
    """What a file that is no picture of ours seems to be, in a few words."""
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, words in _STRANGERS:
        if start.startswith(prefix):
            return words
    return f"unknown, it begins with the bytes {data[:8].hex(' ')}"


def _brands(data: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO media file (ISO/IEC 14496-12, section 4.3)."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
