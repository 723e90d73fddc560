"""The REST API of a cluster's head, at the address of its dashboard: through Ray's own client."""

import logging
import os
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from labelmill.cluster.imports import import_ray
from labelmill.cluster.submission.job import Job
from labelmill.cluster.words import first_line
from labelmill.errors import ClusterError, NoRayError

__all__ = ["Dashboard"]

logger = logging.getLogger(__name__)

_ANSWERS_WITHIN_S = 10.0
_DOES_WITHIN_S = 120.0  # it takes code, and waits for the agent of a node that has just started
_TALKATIVE = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
# Ray's client would rather go there than to the address that it is given.
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class Dashboard:
    """Jobs of the cluster whose dashboard listens at `address`, http://HOST:8265.

    NoRayError, from every method: nothing answers there within 10 s, it does not take our token, or its Ray is of
    another version than ours.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        with self._said():
            self._client = _client(self.address)
        version = self._version()
        ours = import_ray().__version__
        if version.split(".")[:2] != ours.split(".")[:2]:
            raise NoRayError(
                f"the cluster at {self.address} runs Ray {version}, and this labelmill needs {ours}: give it an image "
                "of this labelmill, or install the labelmill of that Ray"
            )

    def jobs(self) -> list[Job]:
        """All that were handed to the cluster, oldest first."""
        with self._said():
            found = [Job.of(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: (job.started_at is None, job.started_at or 0))

    def job(self, job_id: str) -> Job:
        """ClusterError: the cluster knows none of this id."""
        with self._said(job_id):
            return Job.of(self._client.get_job_info(job_id))

    def submit(self, job_id: str, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str]) -> bool:
        """Hand a job over; False: the cluster has one of this id already, which was left as it is."""
        with self._said():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime_env, metadata=metadata
                )
            except RuntimeError as exc:
                if "already exists" not in str(exc):
                    raise
                return False
        return True

    def stop(self, job_id: str) -> None:
        """Ask a job to end; that it has ended `job` tells."""
        with self._said(job_id):
            self._client.stop_job(job_id)

    def logs(self, job_id: str) -> str:
        with self._said(job_id):
            return str(self._client.get_job_logs(job_id))

    def tail(self, job_id: str) -> AsyncGenerator[str]:
        """What it has written so far, and what it writes from now on, until it ends. Raises what Ray's client does."""
        found: AsyncGenerator[str] = self._client.tail_job_logs(job_id)
        return found

    def ask(self, method: str, path: str, data: Mapping[str, Any] | None = None) -> Any:
        """What the REST API answers, for what Ray's client of jobs has no method."""
        with self._said():
            return self._client.ask(method, path, data)

    def nodes(self) -> list[dict[str, Any]]:
        """What Ray knows of each node that is alive (`GetNodeInfo` of its GCS)."""
        until = time.monotonic() + _ANSWERS_WITHIN_S
        while True:
            summary = self.ask("GET", "/nodes?view=summary")["data"]["summary"]
            found = [node["raylet"] for node in summary if node["raylet"].get("state") == "ALIVE"]
            if found or time.monotonic() > until:
                return found
            time.sleep(0.2)  # a head that has just started knows of none yet, not even itself

    def _version(self) -> str:
        try:
            return str(self.ask("GET", "/api/version")["ray_version"])
        except (ClusterError, ValueError, TypeError, KeyError) as exc:
            if isinstance(exc, NoRayError):
                raise
            raise NoRayError(f"what answers at {self.address} is not the dashboard of a Ray cluster") from exc

    @contextmanager
    def _said(self, job_id: str = "") -> Iterator[None]:
        """What Ray's client raises, as errors of ours."""
        import requests

        try:
            yield
        except (requests.exceptions.RequestException, ConnectionError) as exc:
            late_s = _late_s(exc)
            reason = f"nothing did within {late_s:g} s" if late_s else first_line(exc)
            raise NoRayError(
                f"no Ray answered at {self.address}: {_short(reason)}. Give the address of the cluster's dashboard, "
                "http://HOST:8265, as this machine reaches it"
            ) from exc
        except RuntimeError as exc:
            said = first_line(exc)
            if "No available agent" in said:
                raise NoRayError(
                    f"the head of the cluster at {self.address} takes no jobs: its agent for them has not started. Try "
                    "again in a minute; if it stays so, another program has the agent's port there (52365, or what "
                    "`ray start --dashboard-agent-listen-port` says)"
                ) from exc
            if job_id and "404" in said:
                raise ClusterError(
                    f"the cluster at {self.address} knows no job {job_id}: see `labelmill jobs`. A head that was "
                    "restarted has forgotten all; what they committed is kept, and the same spec goes on from there"
                ) from exc
            raise ClusterError(f"Ray at {self.address} did not do what was asked: {said}") from exc


def _late_s(exc: BaseException) -> float | None:
    """How long was waited in vain, where that is what went wrong."""
    import requests

    if isinstance(exc, requests.exceptions.ReadTimeout) and exc.request and exc.request.method != "GET":
        return _DOES_WITHIN_S
    is_late = isinstance(exc, requests.exceptions.Timeout) or ("Max retries" in str(exc) and "timed out" in str(exc))
    return _ANSWERS_WITHIN_S if is_late else None


def _short(reason: str) -> str:
    """urllib3 wraps what the system said into what it did itself."""
    for said in ("Connection refused", "Name or service not known", "No route to host", "Connection reset by peer"):
        if said in reason:
            return said
    return reason[:200]


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        fine = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        fine = False
    if not fine or parts.username or parts.password:
        raise NoRayError("expected the address of the cluster's dashboard, http://HOST:8265, without credentials")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _client(address: str) -> Any:
    import_ray()
    import requests
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's waits for ever where nobody answers, and says how to set a token up on a page of its own."""

        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            timeout_s = _ANSWERS_WITHIN_S if method == "GET" else _DOES_WITHIN_S
            given = {"json" if name == "json_data" else name: value for name, value in given.items()}
            answer = requests.request(
                method,
                self._address + endpoint,
                headers=self._headers,
                timeout=(_ANSWERS_WITHIN_S, timeout_s),  # to connect, and for each piece of the answer
                allow_redirects=False,
                **given,
            )
            if answer.status_code in (401, 403):
                raise NoRayError(_refused(address, answer.status_code))
            return answer

        def ask(self, method: str, endpoint: str, json_data: Mapping[str, Any] | None = None) -> Any:
            answer = self._do_request(method, endpoint, json_data=json_data)
            if answer.status_code != 200:
                self._raise_error(answer)
            try:
                return answer.json() if answer.content else None
            except ValueError:
                raise RuntimeError(f"it answered {endpoint} with what is no JSON") from None

        def _check_connection_and_version(self, *_: Any, **__: Any) -> None:
            """Which Ray it is we ask in our own words."""

    for name in _TALKATIVE:
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    with _without(_OTHER_ADDRESSES):
        token = _token()
        return Client(address, headers={"Authorization": f"Bearer {token}"} if token else {"Accept": "*/*"})


def _refused(address: str, status_code: int) -> str:
    if status_code == 401:
        return (
            f"the cluster at {address} wants its token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it "
            "that only you can read (mode 0600)"
        )
    return (
        f"the cluster at {address} does not take the token of {_token_place()}: ask its operators for the one that its "
        "head was started with"
    )


def _token() -> str:
    """Where Ray's own programs look for it, in their order."""
    place = _token_place()
    if place == "RAY_AUTH_TOKEN":
        return os.environ[place].strip()
    try:
        file = Path(place).expanduser()
        if file.stat().st_mode & 0o077 and file.stat().st_uid == os.getuid():
            logger.warning("others on this machine can read the token in %s: chmod 600 %s", file, file)
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        if "RAY_AUTH_TOKEN_PATH" in os.environ:
            raise NoRayError(f"RAY_AUTH_TOKEN_PATH names {place}, which is not there") from None
        return ""
    except (OSError, ValueError) as exc:
        raise NoRayError(f"the token in {place} cannot be read: {first_line(exc)}") from exc


def _token_place() -> str:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
