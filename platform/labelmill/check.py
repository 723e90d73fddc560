"""Can everything that a spec names be reached? All questions are asked at the same time, and none for long."""

import csv
import io
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from labelmill.address import split_uri
from labelmill.cluster import check_answers, cluster_address
from labelmill.dataset.labels_file import FURTHER_COLUMNS
from labelmill.errors import DataError, LabelmillError, NotFoundError, SpecError, StorageError
from labelmill.label.inventory.inventory import open_inventory
from labelmill.model.cache import check_cache
from labelmill.model.engines.graphs import is_at_hand
from labelmill.model.registry import Registry
from labelmill.spec import (
    EvaluateData,
    EvaluateSpec,
    ExtraData,
    Images,
    LabelSpec,
    ServeSpec,
    Spec,
    TrainData,
    TrainSpec,
)
from labelmill.storage import Store, is_signed, open_store

__all__ = ["TIMEOUT_S", "Finding", "check"]

TIMEOUT_S = 5.0
MAX_LABELS_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question. `answered` is False when there was none within TIMEOUT_S."""

    subject: str
    place: str
    ok: bool
    detail: str
    answered: bool = True


@dataclass(frozen=True, slots=True)
class _Question:
    subject: str
    place: str
    ask: Callable[[], str]


def check(spec: Spec) -> Iterator[Finding]:
    """Reach out to every place that `spec` names; the findings come in the order of the spec's fields.

    Nothing is written but one throw-away object in an object store that the run would write to. A thread whose question
    found no answer is left behind: the caller should end the process.
    """
    questions = [*_questions(spec), _cache(spec), *_cluster(spec)]
    answers = [_asked(question) for question in questions]
    deadline = time.monotonic() + TIMEOUT_S
    for question, answer in zip(questions, answers, strict=True):
        yield _finding(question, answer, deadline)


def _questions(spec: Spec) -> list[_Question]:
    match spec:
        case TrainSpec():
            return [
                _Question("registry", spec.registry, lambda: _registry_to_publish_in(spec.registry)),
                *_pictures("images", "labels", spec.data),
                *(
                    question
                    for number, source in enumerate(spec.data.sources, 1)
                    for question in _pictures(f"images {number}", f"labels {number}", source)
                ),
                *_weights(spec),
                *_target(spec),
                *_models(spec.registry, spec.published),
                *_followers(spec),
            ]
        case LabelSpec():
            return [
                *_registry_and_models(spec.registry, spec.references),
                _Question("images", _place(spec.images), lambda: _inventory(spec.images)),
                _Question("output", spec.output, lambda: _writable(spec.output)),
            ]
        case EvaluateSpec():
            return [
                *_registry_and_models(spec.registry, [spec.model]),
                *_pictures("images", "labels", spec.data),
                _Question("output", spec.output, lambda: _writable(spec.output)),
            ]
        case ServeSpec():
            place = f"{spec.host}:{spec.port}"
            return [
                *_registry_and_models(spec.registry, [spec.model]),
                _Question("listen", place, lambda: _free(spec.host, spec.port)),
            ]


def _cache(spec: Spec) -> _Question:
    place = os.environ.get("LABELMILL_CACHE") or "~/.cache/labelmill"
    return _Question("cache", place, partial(_cache_or_its_content, spec))


def _cache_or_its_content(spec: Spec) -> str:
    """An image may bring along what its job needs, in a folder that is read only."""
    try:
        return check_cache()
    except StorageError:
        with suppress(LabelmillError):  # of a model that is not there another answer tells
            if not isinstance(spec, TrainSpec) and _are_at_hand(spec):
                return "cannot be written, and has what is needed"
        raise


def _are_at_hand(spec: LabelSpec | EvaluateSpec | ServeSpec) -> bool:
    references = spec.references if isinstance(spec, LabelSpec) else [spec.model]
    embeddings = isinstance(spec, LabelSpec) and spec.embeddings
    bundles = [Registry(spec.registry).resolve(reference) for reference in references]
    return all(is_at_hand(bundle, spec.engine, embeddings=embeddings) for bundle in bundles)


def _cluster(spec: Spec) -> list[_Question]:
    address = cluster_address()
    if address is None or isinstance(spec, EvaluateSpec):
        return []

    def ask() -> str:
        check_answers(address, TIMEOUT_S / 2)  # the other half is for what has to be imported
        return "answers"

    return [_Question("cluster", address, ask)]


def _asked(question: _Question) -> Future[str]:
    answer: Future[str] = Future()

    def ask() -> None:
        try:
            answer.set_result(question.ask())
        except BaseException as exc:  # noqa: BLE001 - travels to whoever waits
            answer.set_exception(exc)

    # Not an executor: that would wait at exit for the thread that hangs.
    threading.Thread(target=ask, name=f"check-{question.subject}", daemon=True).start()
    return answer


def _finding(question: _Question, answer: Future[str], deadline: float) -> Finding:
    try:
        detail = answer.result(timeout=max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        detail = f"no answer within {TIMEOUT_S:g} seconds"
        return Finding(question.subject, question.place, False, detail, answered=False)
    except LabelmillError as exc:
        return Finding(question.subject, question.place, False, str(exc))
    return Finding(question.subject, question.place, True, detail)


def _store(uri: str) -> Store:
    return open_store(uri, timeout_s=TIMEOUT_S)


def _registry_and_models(registry: str, references: Sequence[str]) -> list[_Question]:
    return [
        _Question("registry", registry, lambda: _registry(registry)),
        *_models(registry, references),
    ]


def _models(registry: str, references: Sequence[str]) -> list[_Question]:
    return [_Question("model", reference, partial(_model, registry, reference)) for reference in references]


def _registry(uri: str) -> str:
    names = _store(uri).folders()
    if not names:
        raise NotFoundError("holds no models: train one first, or correct the address")
    return f"reachable, {len(names)} {'model' if len(names) == 1 else 'models'}"


def _registry_to_publish_in(uri: str) -> str:
    place = _writable(uri)
    return f"{_registry(uri)}, {place}" if _store(uri).folders() else f"no models yet, {place}"


def _model(registry: str, reference: str) -> str:
    bundle = Registry(registry).resolve(reference)
    count = len(bundle.labels)
    return f"{bundle.reference}, {bundle.task}, {count} {'label' if count == 1 else 'labels'}"


def _pictures(images: str, labels: str, data: TrainData | ExtraData | EvaluateData) -> list[_Question]:
    return [
        _Question(images, data.images, partial(_images, data.images)),
        _Question(labels, data.labels, partial(_labels, data.images, data.labels)),
    ]


def _images(uri: str) -> str:
    pages = (page.num_rows for page in _store(uri).list() if page.num_rows)
    first = next(pages, 0)
    if not first:
        raise NotFoundError("reachable, but holds no objects")
    more = "+" if next(pages, 0) else ""
    return f"reachable, {first:,}{more} {'object' if first == 1 else 'objects'}{_how(uri)}"


def _how(uri: str) -> str:
    return "" if is_signed(uri) else ", read without keys: none were found"


def _place(images: str | Images) -> str:
    return images if isinstance(images, str) else open_inventory(images).describe


def _inventory(images: str | Images) -> str:
    given = (images,) if isinstance(images, str) else (images.prefix, images.manifest, images.inventory, images.shards)
    found = open_inventory(images, timeout_s=TIMEOUT_S).probe()
    return found + "".join(_how(uri) for uri in given if uri)


def _labels(images: str, labels: str) -> str:
    if labels == "folders":
        return _label_folders(images)
    root, name = split_uri(labels)
    store = _store(root)
    size_bytes = store.info(name).size_bytes
    if size_bytes > MAX_LABELS_FILE_BYTES:
        return f"there, {size_bytes:,} bytes; too large to look into here"
    columns = _columns(name, store.read(name))
    missing = [column for column in ("uri", "labels") if column not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise DataError(f"expected the columns uri and labels, found {found}: {' and '.join(missing)} missing")
    known = [column for column in ("uri", "labels", *FURTHER_COLUMNS) if column in columns]
    return f"there, columns {', '.join(known)}"


def _label_folders(images: str) -> str:
    folders = _store(images).folders()
    if not folders:
        raise DataError("expected a folder for each label below images, found none")
    return f"{len(folders)} {'folder' if len(folders) == 1 else 'folders'}: {', '.join(folders[:5])}" + (
        ", …" if len(folders) > 5 else ""
    )


def _columns(name: str, data: bytes) -> list[str]:
    suffix = Path(name).suffix.lower()
    try:
        if suffix == ".parquet":
            return list(parquet.read_schema(io.BytesIO(data)).names)
        line = next((line for line in io.BytesIO(data) if line.strip()), b"").decode("utf-8-sig")
        if suffix == ".csv":
            return next(csv.reader([line]), [])
        row = json.loads(line)
        return list(row) if isinstance(row, dict) else []
    except (pa.ArrowException, OSError, ValueError, csv.Error) as exc:
        raise DataError(f"expected a {suffix[1:]} file: {exc}") from exc


def _weights(spec: TrainSpec) -> list[_Question]:
    weights = spec.model.weights if spec.model else "scratch"
    if weights in ("scratch", "pretrained"):
        return []
    if weights.endswith(".safetensors"):
        return [_Question("weights", weights, lambda: _weights_file(weights))]
    return [_Question("weights", weights, lambda: _starting_version(spec))]


def _starting_version(spec: TrainSpec) -> str:
    assert spec.model is not None
    bundle = Registry(spec.registry).resolve(spec.model.weights)
    if bundle.architecture != spec.model.architecture:
        raise SpecError(f"a {bundle.architecture}, and model.architecture is {spec.model.architecture}")
    return _model(spec.registry, spec.model.weights)


def _target(spec: TrainSpec) -> list[_Question]:
    """What approach adapt adapts to."""
    return [_Question("target", spec.adapt.images, partial(_images, spec.adapt.images))] if spec.adapt else []


def _followers(spec: TrainSpec) -> list[_Question]:
    server = spec.tracking.mlflow
    return [_Question("mlflow", server, lambda: _mlflow(server))] if server else []


def _mlflow(server: str) -> str:
    try:
        with urllib.request.urlopen(f"{server}/version", timeout=TIMEOUT_S) as answer:
            return f"reachable, version {answer.read(100).decode('ascii', 'replace').strip()}"
    except urllib.error.HTTPError as exc:
        if exc.code in (401, 403):
            return "reachable, and wants credentials"
        raise StorageError(f"answers {exc.code} to /version: is it an MLflow server?") from exc
    except (OSError, HTTPException) as exc:
        raise StorageError(f"no MLflow answers there: {getattr(exc, 'reason', None) or exc}") from exc


def _weights_file(path: str) -> str:
    root, key = split_uri(path)
    return f"there, {_store(root).info(key).size_bytes:,} bytes"


def _writable(uri: str) -> str:
    """A folder is only looked at; an object store is tried with a throw-away object, since only it knows."""
    store = _store(uri)
    if not store.uri.startswith("/"):
        honoured = store.honours_write_if_absent()
        return "writable" if honoured else "writable, but ignores conditional writes"
    folder = Path(store.uri)
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as exc:
        raise StorageError(f"cannot be a folder: {exc.strerror}") from exc
    if not folder.is_dir():
        raise StorageError(f"expected a folder, and {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"not writable: no permission to write in {folder}")
    return "writable"


def _free(host: str, port: int) -> str:
    try:
        family = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host.strip("[]"), port))
    except OSError as exc:
        raise StorageError(f"cannot listen there: {exc.strerror or exc}") from exc
    return "free"
