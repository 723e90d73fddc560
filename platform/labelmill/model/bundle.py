"""The bundle: everything a model needs to answer, addressed by the digest of its content.

A bundle is a folder of a registry: `bundle.json`, `weights.safetensors` and the report's files. `bundle.json` is the
manifest: it holds the model card and the size and sha256 of every other file. The digest is the sha256 of its canonical
JSON (keys sorted, no spaces) without the digest itself, so it covers every byte of the bundle, and the same content has
the same digest under any name. Nothing in a bundle is code, and nothing is unpickled.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import BundleError, NotFoundError
from labelmill.images.transform import Preprocessing
from labelmill.model.cache import kept
from labelmill.model.calibration import Calibration, check_calibration, confidences
from labelmill.storage import Store, open_store

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "WEIGHTS_NAME",
    "Bundle",
    "BundleDraft",
    "BundleFile",
    "ModelCard",
    "Task",
    "read_bundle",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"

Task = Literal["binary", "multi_class", "multi_label"]

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """Size and content of one file of a bundle."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a trained model is, beside its weights.

    binary has one label, the positive one; its logit goes through a sigmoid, as do multi_label's; multi_class has a
    softmax. `thresholds` has a value a label (multi_class: may be empty). `calibration` is one of the forms of
    `labelmill.model.calibration`. `spec` is the job spec before substitution.
    """

    task: Task
    architecture: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    thresholds: tuple[float, ...]
    calibration: Calibration | None
    metrics: dict[str, Any]
    data_fingerprint: str
    spec: dict[str, Any]
    library_versions: dict[str, str]

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise BundleError(f"task of a bundle must be one of {', '.join(get_args(Task))}, got {self.task!r}.")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise BundleError(f"labels of a bundle must be distinct and at least one, got {self.labels!r}.")
        if self.task == "binary" and len(self.labels) != 1:
            raise BundleError(f"a binary bundle has one label, the positive one, got {self.labels!r}.")
        if len(self.thresholds) != len(self.labels) and (self.thresholds or self.task != "multi_class"):
            raise BundleError(f"expected a threshold for each of {len(self.labels)} labels, got {self.thresholds!r}.")
        check_calibration(self.calibration, len(self.labels))

    def confidences(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated confidences [B, L] of logits [B, L]."""
        return confidences(self.task, logits, self.calibration)

    def decide(self, confidences: NDArray[np.float32]) -> list[tuple[str, float]]:
        """The labels of one picture, best first, from its confidences [L].

        multi_class: the top label. multi_label and binary: those at or above their thresholds. Of equal confidences the
        label that stands first in `labels` comes first.
        """
        if self.task == "multi_class":
            return self.top(confidences, 1)
        over = {
            label
            for label, confidence, threshold in zip(self.labels, confidences.tolist(), self.thresholds, strict=True)
            if confidence >= threshold
        }
        return [(label, confidence) for label, confidence in self.top(confidences) if label in over]

    def top(self, confidences: NDArray[np.float32], k: int | None = None) -> list[tuple[str, float]]:
        """The k best labels of one picture with their confidences, best first; all of them when k is None."""
        order = np.argsort(-confidences, kind="stable")[:k]
        return [(self.labels[index], float(confidences[index])) for index in order]


@dataclass(frozen=True, kw_only=True)
class BundleDraft(ModelCard):
    """A bundle to be published: every file under `folder` travels. It holds weights.safetensors at least."""

    folder: Path

    def manifest(self) -> dict[str, Any]:
        """What bundle.json will say, digest included."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}
        if WEIGHTS_NAME not in files:
            raise BundleError(f"draft {self.folder} holds no {WEIGHTS_NAME}: save the network's weights there first.")
        for name in files:
            _check_file_name(name, str(self.folder))
        content = {
            "format_version": FORMAT_VERSION,
            **_card_to_json(self),
            "files": {
                name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in files.items()
            },
        }
        return {**content, "digest": _digest(content)}

    def as_bundle(self) -> "Bundle":
        """The draft where it lies, for a Labeler to answer with before anything is published."""
        manifest = self.manifest()
        card = {field.name: getattr(self, field.name) for field in fields(ModelCard)}
        files = {name: BundleFile(**content) for name, content in manifest["files"].items()}
        return Bundle(name="draft", version=0, digest=manifest["digest"], uri=str(self.folder), files=files, **card)


@dataclass(frozen=True, kw_only=True)
class Bundle(ModelCard):
    """A published model: its card, where it lies and what its files must contain. Immutable; cheap to pickle."""

    name: str
    version: int
    digest: str
    uri: str
    files: dict[str, BundleFile]

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def __repr__(self) -> str:
        return (
            f"Bundle({self.reference}, {self.task}, {self.architecture} at {self.preprocessing.image_size_px} px, "
            f"{len(self.labels)} labels, digest {self.digest[:12]}, {self.uri})"
        )

    def read_file(self, name: str) -> bytes:
        """The content of one of `files`, checked against the manifest. BundleError when it is missing or differs."""
        expected = self.files.get(name)
        if expected is None:
            raise BundleError(f"{self.reference} has no file {name!r}; it has {', '.join(sorted(self.files))}.")
        try:
            data = open_store(self.uri).read(name)
        except NotFoundError as exc:
            raise BundleError(f"file {name} of {self.reference} is missing at {self.uri}: {_REPAIR}") from exc
        found = hashlib.sha256(data).hexdigest()
        if found != expected.sha256:
            raise BundleError(
                f"file {name} of {self.reference} at {self.uri} is damaged: expected sha256 {expected.sha256} "
                f"({expected.size_bytes} bytes), found {found} ({len(data)} bytes). {_REPAIR}"
            )
        return data

    def verify(self) -> None:
        """Read every file and compare it with the manifest. BundleError names the first that differs."""
        for name in self.files:
            self.read_file(name)

    def weights_path(self) -> Path:
        """The weights as a local file, fetched once a machine and checked against the manifest."""
        return self.local_files(WEIGHTS_NAME, kind="weights")[0]

    def local_files(self, *names: str, kind: str) -> list[Path]:
        """Some of `files` beside one another in one folder of this machine, fetched unless they are there unchanged."""

        def fetch(folder: Path) -> None:
            for name in names:
                (folder / Path(name).name).write_bytes(self.read_file(name))

        folder = kept(kind, "-".join(self.files[name].sha256[: 64 // len(names)] for name in names), fetch)
        return [folder / Path(name).name for name in names]


_REPAIR = "Restore the file from a copy, roll the alias back (labelmill models rollback), or train again."


def read_bundle(store: Store, name: str, version: int) -> Bundle:
    """The published version of a registry's store. NotFoundError when there is none; BundleError when it is damaged."""
    uri = store.address(f"{name}/{version}")
    content = _parse_manifest(store.read(f"{name}/{version}/{MANIFEST_NAME}"), uri)
    digest = content.pop("digest")
    try:
        files = {key: BundleFile(**value) for key, value in content["files"].items()}
        card = _card_from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BundleError(f"{uri}/{MANIFEST_NAME} lacks or garbles {exc}. {_REPAIR}") from exc
    for key in [*files, WEIGHTS_NAME]:
        _check_file_name(key, uri)
        if key not in files:
            raise BundleError(f"{uri}/{MANIFEST_NAME} names no {key}. {_REPAIR}")
    return Bundle(name=name, version=version, digest=digest, uri=uri, files=files, **card)


def _parse_manifest(data: bytes, uri: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
        format_version, digest = content["format_version"], content["digest"]
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{uri}/{MANIFEST_NAME} is not a manifest of a bundle ({exc}). {_REPAIR}") from exc
    if format_version != FORMAT_VERSION:
        raise BundleError(
            f"{uri}/{MANIFEST_NAME} has format version {format_version!r}, this labelmill reads {FORMAT_VERSION}: "
            "install a newer labelmill."
        )
    found = _digest({key: value for key, value in content.items() if key != "digest"})
    if found != digest:
        raise BundleError(
            f"{uri}/{MANIFEST_NAME} is damaged: it says digest {digest}, its content has {found}. {_REPAIR}"
        )
    return dict(content)


def _card_to_json(card: ModelCard) -> dict[str, Any]:
    content = {field.name: getattr(card, field.name) for field in fields(ModelCard)}
    return {**content, "preprocessing": card.preprocessing.to_json()}


def _card_from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    card = {field.name: content[field.name] for field in fields(ModelCard)}
    return {
        **card,
        "labels": tuple(card["labels"]),
        "thresholds": tuple(float(value) for value in card["thresholds"]),
        "preprocessing": Preprocessing.from_json(card["preprocessing"]),
    }


def _digest(content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as exc:
        raise BundleError(f"a bundle's card must be JSON without NaN or infinity: {exc}.") from exc
    return hashlib.sha256(text.encode()).hexdigest()


def _check_file_name(name: str, uri: str) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise BundleError(f"{uri} has a file named {name!r}: expected letters, digits, _ - . and / between folders.")
