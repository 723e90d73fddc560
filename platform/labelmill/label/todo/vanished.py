"""Whether so many pictures are gone that it is rather their place that is: a folder not mounted, a right lost."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Vanished", "outermost", "too_many"]

_JUDGED_FROM = 200  # pictures that the table holds
_FOLDERS_NAMED = 12


@dataclass(frozen=True)
class Vanished:
    """More than `max_vanished_rate` allows: of the pictures that the table holds `below` a prefix, how many are listed
    no more, and in which folders they were."""

    below: str
    num_held: int
    num_gone: int
    limit: float
    folders: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        named = ", ".join(f"{folder} {count:,}" for folder, count in self.folders[:_FOLDERS_NAMED])
        more = len(self.folders) - _FOLDERS_NAMED
        return (
            f"{self.num_gone:,} of the {self.num_held:,} pictures that the table holds below {self.below} are listed "
            f"no more ({self.num_gone / self.num_held:.1%}), max_vanished_rate allows {self.limit:.1%}. They were in: "
            f"{named}{f', and {more:,} more folders' if more > 0 else ''}. Nothing was written. If a folder is not "
            "mounted or cannot be listed, mend that and run the same command again; if they were removed, let it pass "
            "for once with --set max_vanished_rate=1"
        )


def too_many(num_gone: int, num_held: int, limit: float) -> bool:
    return num_held >= _JUDGED_FROM and num_gone > limit * num_held


def outermost(leaves: pa.Table) -> tuple[tuple[str, int], ...]:
    """The folders, the fullest first, with the number of pictures below each: those that follow the folder that all
    `leaves` (folder, pictures) have in common."""
    common = _common_folder(*pc.min_max(leaves["folder"]).as_py().values())
    place = pc.replace_substring_regex(pc.utf8_slice_codeunits(leaves["folder"], len(common)), "/.*", "/")
    counts = (
        pa.table({"place": place, "pictures": leaves["pictures"]}).group_by("place").aggregate([("pictures", "sum")])
    )
    ordered = counts.sort_by([("pictures_sum", "descending"), ("place", "ascending")]).to_pylist()
    return tuple((common + row["place"], row["pictures_sum"]) for row in ordered)


def _common_folder(first: str, last: str) -> str:
    """Of all that lie between the two in their order."""
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("/", 0, same) + 1]
