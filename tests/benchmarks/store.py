"""A folder of many pictures, made of few: hard links under distinct names."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PICTURE_ENDINGS", "many_pictures", "original_name", "unique_pictures"]

PICTURE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
_DIGITS = 8


def unique_pictures(folder: Path, work: Path) -> list[Path]:
    """Copies of the pictures of a folder below `work`, so that links to them need not cross file systems."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_ENDINGS)
    if not found:
        raise SystemExit(f"expected pictures ({', '.join(sorted(PICTURE_ENDINGS))}) below {folder}, found none")
    copies = work / "unique"
    copies.mkdir(parents=True, exist_ok=True)
    unique = []
    for number, path in enumerate(found):
        copy = copies / f"{number:06d}-{path.name}"
        if not copy.exists():
            shutil.copyfile(path, copy)
        unique.append(copy)
    return unique


def many_pictures(unique: Sequence[Path], count: int, work: Path) -> Path:
    """A folder with `count` pictures and nothing else; it is kept for the next time."""
    store = work / f"store-{count}"
    done = work / f"store-{count}.done"
    if not done.exists():
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir(parents=True)
        for index in range(count):
            original = unique[index % len(unique)]
            os.link(original, store / f"{index:0{_DIGITS}d}_{original.name}")
        done.touch()
    return store


def original_name(name: str) -> str:
    """Of a picture of the store, the name of the picture that it is a link to."""
    return name[_DIGITS + 1 :]
