"""Decoding a picture that may take its process with it: in a child, one picture at a time.

Decoders are C code that reads bytes from strangers. One that crashes, hangs or eats all memory ends the child; the
parent learns which picture it was.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO, Self

from labelmill.errors import CrashedError, ImageError, TimedOutError
from labelmill.images.transform import Preprocessing, evaluation_views

__all__ = ["Trial"]

_DONE = b"."


class Trial:
    """A child process that decodes, for the time of a `with` block. One that is lost is replaced by the next call."""

    def __init__(self, preprocessings: Sequence[Preprocessing], *, max_pixels: int, timeout_s: float) -> None:
        request = {"preprocessings": [one.to_json() for one in preprocessings], "max_pixels": max_pixels}
        self._command = [sys.executable, "-m", "labelmill.images.trial", json.dumps(request)]
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> None:
        """Return when the picture can be decoded, or refused as unreadable and the like, without harm.

        CrashedError: the child died of it. TimedOutError: it took longer than `timeout_s`.
        """
        child = self._child or self._started()
        assert child.stdin and child.stdout
        try:
            child.stdin.write(len(data).to_bytes(8, "big") + data)
            child.stdin.flush()
            readable, _, _ = select.select([child.stdout], [], [], self._timeout_s)
            answer = child.stdout.read(1) if readable else None
        except BrokenPipeError:
            answer = b""
        if answer == _DONE:
            return
        if answer is not None:
            child.wait()  # it closed its end, so it is on its way out, and how it ended is worth knowing
        self._close()
        if answer is None:
            raise TimedOutError(f"decoding it took more than {self._timeout_s:g} s; raise timeout_s, or drop the file")
        raise CrashedError(f"the process that decoded it {_how_it_ended(child)}; convert the file, or drop it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._child:
            if self._child.poll() is None:
                self._child.kill()
            self._child.communicate()
            self._child = None

    def _started(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdout
        if self._child.stdout.read(1) != _DONE:  # its imports are no part of the first picture's time
            self._close()
            raise RuntimeError("the process that tries pictures did not start")
        return self._child


def _how_it_ended(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _serve(request: str, pictures: BinaryIO, answers: BinaryIO) -> None:
    fields = json.loads(request)
    preprocessings = [Preprocessing.from_json(one) for one in fields["preprocessings"]]
    answers.write(_DONE)
    answers.flush()
    while length := pictures.read(8):
        try:
            data = pictures.read(int.from_bytes(length, "big"))
            evaluation_views(data, preprocessings, max_pixels=fields["max_pixels"])
        except ImageError:
            pass  # said again, with its reason, by whoever labels it
        answers.write(_DONE)
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
