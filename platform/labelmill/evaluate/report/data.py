"""What the training pictures are like: how many there are of each label, and what is doubtful about them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelmill.page.charts import share_bar
from labelmill.page.curves import key
from labelmill.page.document import Section, folded, table

__all__ = ["data_section", "pictures_of", "unreadable_pictures"]

_LABELS_SHOWN, _SUSPECTS_SHOWN, _GROUPS_SHOWN, _PICTURES_OF_GROUP = 40, 24, 8, 6
_JUDGES = {
    "suspects": "The model, which did not learn from these pictures, is sure of another answer (confident learning).",
    "training_suspects": "The features of all other training pictures say something else (confident learning).",
}
_SPLIT_COLOURS = {"train": 1, "validation": 3, "test": 2}


def data_section(metrics: Mapping[str, Any], thumbnails: Mapping[str, str]) -> Section:
    """`metrics` are a bundle's; `thumbnails` those of `pictures_of`."""
    found = metrics["findings"].get("data", {})
    parts = [
        _counts(metrics),
        _rare(found.get("rare_labels")),
        _sources(found.get("sources")),
        *(_suspects(found.get(name), thumbnails, judge) for name, judge in _JUDGES.items()),
        _duplicates(found.get("duplicates"), thumbnails),
        f"<h3>Unreadable pictures</h3>{unreadable_pictures(metrics)}",
    ]
    return Section("data", "Data", "".join(parts))


def pictures_of(findings: Mapping[str, Any]) -> list[str]:
    """The uris of those pictures that the section shows."""
    found = findings.get("data", {})
    suspects = [picture for name in _JUDGES for picture in _most_doubtful(found.get(name))]
    groups = (found.get("duplicates") or {}).get("groups", [])[:_GROUPS_SHOWN]
    twins = [picture for group in groups for picture in group["pictures"][:_PICTURES_OF_GROUP]]
    return [picture["uri"] for picture in (*suspects, *twins)]


def _counts(metrics: Mapping[str, Any]) -> str:
    sizes, positives = metrics["num_pictures"], metrics["num_positives"]
    most = max((sum(counts.values()) for counts in positives.values()), default=1) or 1
    order = sorted(positives, key=lambda label: -sum(positives[label].values()))
    rows = [[escape(label), _bar(positives[label], most), *_numbers(positives[label], sizes)] for label in order]
    head = ["label", "", *sizes]
    whole = [["all pictures", "", *_numbers(sizes, sizes)]]
    legend = "".join(key(_SPLIT_COLOURS.get(split, 0), split, "square") for split in sizes)
    more = rows[_LABELS_SHOWN:]
    return (
        f"<p>{legend}</p>{_sticky(head, whole + rows[:_LABELS_SHOWN])}"
        f"{folded(f'{len(more):,} more labels', _sticky(head, more)) if more else ''}"
    )


def _bar(counts: Mapping[str, int], most: int) -> str:
    shares = [(f"c{_SPLIT_COLOURS.get(split, 0)}", count / most) for split, count in counts.items()]
    return f'<div class="thin">{share_bar(shares, f"{sum(counts.values()):,} pictures")}</div>'


def _numbers(counts: Mapping[str, int], splits: Mapping[str, int]) -> list[str]:
    return [f"{counts[split]:,}" for split in splits]


def _sticky(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f'<div class="sticky bars">{table(head, rows)}</div>'


def _rare(rare: Sequence[Mapping[str, Any]] | None) -> str:
    if not rare:
        return ""
    names = ", ".join(f"<b>{escape(row['label'])}</b>" for row in rare[:_LABELS_SHOWN])
    more = f" and {len(rare) - _LABELS_SHOWN} more" if len(rare) > _LABELS_SHOWN else ""
    return f"<h3>Too rare to be measured</h3><p>{names}{more}: fewer than ten pictures to measure them by.</p>"


def _sources(sources: Sequence[Mapping[str, Any]] | None) -> str:
    if not sources:
        return ""
    rows = [
        [escape(source["images"]), f"{source['num_pictures']:,}", f"{source['weight']:g}", f"{source['share']:.1%}"]
        for source in sources
    ]
    head = ["further source", "pictures", "weight", "share of an epoch"]
    return f'<h3>Mixed in</h3><div class="sticky">{table(head, rows)}</div>'


def _most_doubtful(suspects: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    pictures: Sequence[Mapping[str, Any]] = suspects["pictures"][:_SUSPECTS_SHOWN] if suspects else []
    return pictures


def _suspects(suspects: Mapping[str, Any] | None, thumbnails: Mapping[str, str], judge: str) -> str:
    if not suspects or not suspects["num"]:
        return ""
    shown = _most_doubtful(suspects)
    sheet = "".join(_figure(picture, thumbnails, _doubt(picture)) for picture in shown)
    some = f" The {len(shown)} most doubtful of them:" if len(shown) < suspects["num"] else ""
    return (
        f"<h3>Labels that may be wrong <small>{suspects['num']:,} of {suspects['num_pictures']:,} pictures</small></h3>"
        f'<p>{judge}{some}</p><div class="sheet">{sheet}</div>'
    )


def _doubt(picture: Mapping[str, Any]) -> str:
    given, suggested = (escape(", ".join(picture[name])) or "none" for name in ("given", "suggested"))
    return f"{picture['split']}<br>labelled {given}<br>rather <b>{suggested}</b>"


def _duplicates(found: Mapping[str, Any] | None, thumbnails: Mapping[str, str]) -> str:
    if found is None:
        return ""
    if not found["num_groups"]:
        return "<h3>Duplicates</h3><p>None.</p>"
    leaked = [f"{count:,} {split}" for split, count in found["num_in_train"].items() if count]
    exact, near = found["num_exact"], found["num_near"]
    words = f"Pictures that repeat another one byte for byte: {exact:,}, to the eye: {near:,}."
    if leaked:
        flattery = f"{' and '.join(leaked)} pictures have a twin in train, which flatters the model."
        words += f' <span class="bad">{flattery}</span>'
    if found["num_conflicting"]:
        words += f" Groups of twins that are labelled differently: {found['num_conflicting']:,}."
    groups = "".join(_group(group, thumbnails) for group in found["groups"][:_GROUPS_SHOWN])
    return f"<h3>Duplicates <small>in groups: {found['num_groups']:,}</small></h3><p>{words}</p>{groups}"


def _group(group: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
    words = {"across_splits": "across splits", "conflicting": "labelled differently"}
    marks = ["the same bytes" if group["exact"] else "alike", *(words[name] for name in words if group[name])]
    pictures = "".join(
        _figure(picture, thumbnails, f"{picture['split']}<br>{escape(', '.join(picture['labels'])) or 'none'}")
        for picture in group["pictures"][:_PICTURES_OF_GROUP]
    )
    head = f'<p class="group">{group["num_pictures"]} pictures, {", ".join(marks)}</p>'
    return f'{head}<div class="sheet">{pictures}</div>'


def _figure(picture: Mapping[str, Any], thumbnails: Mapping[str, str], words: str) -> str:
    uri = escape(picture["uri"], quote=True)
    shown = thumbnails.get(picture["uri"]) or '<div class="blank">cannot be shown</div>'
    return f'<figure title="{uri}">{shown}<figcaption>{words}</figcaption></figure>'


def unreadable_pictures(found: Mapping[str, Any]) -> str:
    """`found` are a bundle's metrics or an evaluation: num_unreadable, and unreadable with the first of them."""
    count, shown = found["num_unreadable"], found["unreadable"]
    if not count:
        return "<p>Every picture could be read.</p>"
    rows = [[escape(uri), escape(reason)] for uri, reason in shown.items()]
    more = f", the first {len(shown)} here" if count > len(shown) else ""
    return f'<p>{count:,}, left out{more}.</p><div class="wide">{table(["picture", "reason"], rows)}</div>'
