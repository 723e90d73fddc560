"""`labelmill demo`: the three jobs on real pictures, start to end, by the commands and specs that a user would type.

The pictures are handwritten digits, one to four on each, from scikit-learn's copy of the UCI set "Optical Recognition
of Handwritten Digits" (Alpaydin and Kaynak, 1998). Training, bulk and query pictures show disjoint originals.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from labelmill.errors import ClusterError, LabelmillError, SpecError

__all__ = ["DemoResult", "make_store", "run_demo"]

logger = logging.getLogger(__name__)

_STORE = Path("demo/store")
_TRAIN, _INBOX, _QUERY = "train", "inbox", "query"
_NUM_TRAIN, _NUM_INBOX = 4000, 2000
_SIZE_PX = 64
_SPECS = ("jobs/train.yaml", "jobs/label.yaml", "jobs/serve.yaml")
_READY_S = 120


@dataclass(frozen=True)
class DemoResult:
    """What the demo showed: mean average precision over the readable unseen pictures, and where things lie."""

    mean_average_precision: float
    answer: dict[str, Any]
    table: str
    page: str

    def __str__(self) -> str:
        said = ", ".join(f"{pair['label']} ({pair['confidence']:.2f})" for pair in self.answer["labels"])
        return "\n".join(
            [
                f"mAP on {_NUM_INBOX:,} unseen pictures, by the confidences in the table: "
                f"{self.mean_average_precision:.3f}",
                f"the endpoint on one more picture: {said or 'no label'}, by {self.answer['model']}",
                f"the table: {self.table}   look into it: labelmill labels {self.table}",
                f"the page: {self.page}   bring it up: labelmill run {_SPECS[2]}",
            ]
        )


def run_demo() -> DemoResult:
    """Make the pictures, train, label, label again, serve and ask, in the current folder's `demo`; takes minutes."""
    from labelmill.spec import load_spec

    for path in _SPECS:
        if not Path(path).exists():
            raise SpecError(f"expected {path} below {Path.cwd()}: run `labelmill demo` in a clone of the repository.")
    serve = load_spec(_SPECS[2]).spec
    host, port = str(getattr(serve, "host", "")), int(getattr(serve, "port", 0))
    _check_port_is_free(host, port)
    if not _STORE.exists():
        logger.info("drawing %s pictures of handwritten digits below %s", f"{_NUM_TRAIN + _NUM_INBOX:,}", _STORE)
        make_store(_STORE, num_train=_NUM_TRAIN, num_inbox=_NUM_INBOX)
    _command("run", _SPECS[0])
    _command("run", _SPECS[1])
    logger.info("the same once more: every picture has its row, so there is nothing to do")
    _command("run", _SPECS[1])
    table = str(getattr(load_spec(_SPECS[1]).spec, "output", ""))
    _command("labels", table, "--limit", "5")
    page = f"http://{host}:{port}/"
    with _serving(_SPECS[2], page):
        answer = _ask(page, next((_STORE / _QUERY).glob("*.jpg")))
    return DemoResult(_mean_average_precision(table), answer, table, page)


def make_store(folder: Path, *, num_train: int, num_inbox: int, seed: int = 0) -> None:
    """Draw the demo's pictures: `train`, `inbox` with a dozen damaged ones, and `query`, each with its truth as csv."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    originals = np.array_split(rng.permutation(len(digits.target)), [1200, 1750])
    unfinished = folder.with_name(folder.name + ".unfinished")
    for name, count, of in zip((_TRAIN, _INBOX, _QUERY), (num_train, num_inbox, 1), originals, strict=True):
        (unfinished / name).mkdir(parents=True, exist_ok=True)
        labels: list[tuple[str, str]] = []
        for index in range(count):
            data, shown = _draw(rng, digits.images[of], digits.target[of])
            key = f"{index:05d}.jpg"
            (unfinished / name / key).write_bytes(data)
            labels.append((key, ";".join(str(digit) for digit in shown)))
        with (unfinished / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("uri", "labels"), *labels])
    _damage(rng, sorted((unfinished / _INBOX).iterdir()))
    unfinished.rename(folder)


def _draw(rng: np.random.Generator, images: NDArray[np.float64], targets: NDArray[np.int64]) -> tuple[bytes, list[int]]:
    """One JPEG of one to four digits, each in its own quarter, at a place, size and ink of its own."""
    paper, ink = rng.uniform(200, 250, 3), rng.uniform(0, 110, 3)
    canvas = np.broadcast_to(paper, (_SIZE_PX, _SIZE_PX, 3)).copy()
    quarters = rng.permutation(4)[: rng.integers(1, 5)]
    chosen = rng.integers(0, len(targets), len(quarters))
    for quarter, original in zip(quarters, chosen, strict=True):
        size = int(rng.integers(22, 31))
        digit = Image.fromarray((images[original] * 255 / 16).astype(np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        top = (quarter // 2) * 32 + int(rng.integers(0, 33 - size))
        left = (quarter % 2) * 32 + int(rng.integers(0, 33 - size))
        weight = np.asarray(digit, np.float64)[..., None] / 255
        here = canvas[top : top + size, left : left + size]
        here[:] = here * (1 - weight) + ink * weight
    canvas += rng.normal(0, 4, canvas.shape)
    buffer = io.BytesIO()
    Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), sorted({int(targets[original]) for original in chosen})


def _damage(rng: np.random.Generator, pictures: Sequence[Path]) -> None:
    """A dozen of the pictures end as real stores have them: empty, cut short, another file under a picture's name."""
    page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    for turn, index in enumerate(rng.choice(len(pictures), min(12, len(pictures) // 4), replace=False)):
        data = pictures[index].read_bytes()
        pictures[index].write_bytes([b"", data[: len(data) // 2], page, b"\x00" * 512][turn % 4])


def _command(*arguments: str) -> None:
    """Run one of our own commands as a user would, its output on this terminal."""
    sys.stdout.flush()
    logger.info("$ labelmill %s", " ".join(arguments))
    done = subprocess.run([sys.executable, "-m", "labelmill", *arguments], check=False)
    if done.returncode:
        raise LabelmillError(f"`labelmill {' '.join(arguments)}` ended with exit code {done.returncode}; see above.")


@contextmanager
def _serving(spec: str, page: str) -> Iterator[None]:
    logger.info("$ labelmill run %s", spec)
    server = subprocess.Popen([sys.executable, "-m", "labelmill", "run", spec])
    try:
        _wait_until_ready(server, page)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_until_ready(server: subprocess.Popen[bytes], page: str) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        if server.poll() is not None:
            raise ClusterError(f"the endpoint ended with exit code {server.returncode} before it was ready; see above.")
        try:
            with urllib.request.urlopen(f"{page}readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise ClusterError(f"the endpoint at {page} was not ready within {_READY_S} s; see above.")


def _ask(page: str, picture: Path) -> dict[str, Any]:
    logger.info("$ curl --data-binary @%s -H 'Content-Type: image/jpeg' %sv1/label", picture, page)
    request = urllib.request.Request(
        f"{page}v1/label", data=picture.read_bytes(), headers={"Content-Type": "image/jpeg"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as exc:
        raise ClusterError(f"the endpoint answered {exc.code}: {exc.read().decode(errors='replace')}") from exc


def _check_port_is_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise ClusterError(f"{host}:{port}, where {_SPECS[2]} serves, cannot be used: {exc.strerror}.") from exc


def _mean_average_precision(table: str) -> float:
    """Over the readable pictures of the inbox. A label whose confidence `scores: top_k` did not keep counts as 0."""
    from labelmill.metrics import evaluate
    from labelmill.table.table import LabelTable

    with (_STORE / f"{_INBOX}.csv").open(newline="") as file:
        truth = {row["uri"]: {int(label) for label in row["labels"].split(";")} for row in csv.DictReader(file)}
    rows = LabelTable(table).query("SELECT uri, scores FROM current_labels WHERE status = 'ok'", ("uri", "scores"))
    targets = np.zeros((len(rows), 10), np.int64)
    confidences = np.zeros((len(rows), 10), np.float32)
    for row, target, confidence in zip(rows, targets, confidences, strict=True):
        target[list(truth[Path(row["uri"]).name])] = 1
        for pair in row["scores"]:
            confidence[int(pair["label"])] = pair["confidence"]
    labels = [str(digit) for digit in range(10)]
    return float(evaluate("multi_label", labels, targets, confidences, [0.5] * 10)["map"])
