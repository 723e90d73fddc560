"""A proxy between us and the bucket of a test."""

from collections.abc import Callable, Iterator

import pytest

from proxy import FaultyProxy, faulty_proxy


@pytest.fixture
def behind(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FaultyProxy]]:
    """Put a proxy with these faults between us and the bucket."""
    running = []

    def start(decide: Callable[[str, str, int], str | None], **options: object) -> FaultyProxy:
        running.append(faulty_proxy(s3_endpoint, decide, stall_s=20, **options))
        proxy = running[-1].__enter__()
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        return proxy

    yield start
    for context in running:
        context.__exit__(None, None, None)
