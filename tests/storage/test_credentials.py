"""Keys that are refused are not the picture's fault, and are asked for once more."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labelmill.errors import CredentialsError, ForbiddenError, StorageError
from labelmill.storage import credentials, open_store, read_infos, read_pictures
from labelmill.storage.credentials import current_environment, renewed_since
from proxy import FaultyProxy, faulty_proxy

EXPIRED = (400, "ExpiredToken")
OF_THE_KEYS = [
    EXPIRED,
    (400, "InvalidToken"),
    (400, "TokenRefreshRequired"),
    (401, "Whatever"),
    (403, "InvalidAccessKeyId"),
    (403, "RequestTimeTooSkewed"),
    (403, "SignatureDoesNotMatch"),
]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: str) -> Callable[[str], None]:
    """Let the chain find keys in a file, these from now on; and nowhere else."""
    if "LABELMILL_TEST_S3_ENDPOINT" in os.environ:
        pytest.skip("the keys are made up, which moto alone takes")
    file, secret = tmp_path / "credentials", os.environ["AWS_SECRET_ACCESS_KEY"]

    def write(key_id: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    write("first")
    return write


@pytest.fixture
def proxy(s3_endpoint: str, keys: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3_endpoint, lambda *_: None) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setattr(credentials, "_chain", credentials._Chain())
        yield running


@pytest.mark.parametrize(("status", "code"), OF_THE_KEYS)
def test_keys_that_are_refused_are_exchanged_for_those_that_the_chain_has_now(s3, proxy, keys, status, code):
    store = open_store(s3)
    store.write("a.jpg", b"1")
    proxy.refused["first"] = status, code
    keys("second")
    calls = [
        lambda: store.read("a.jpg") == b"1",
        lambda: store.info("a.jpg").size_bytes == 1,
        lambda: list(store.keys()) == ["a.jpg"],
        lambda: store.write("b", b"") is None,
        lambda: store.write_if_absent("c", b""),
        lambda: store.delete("b") is None,
        lambda: read_pictures([(f"{s3}/a.jpg", None)]) == [b"1"],
        lambda: read_infos([f"{s3}/a.jpg"])[0].size_bytes == 1,
    ]
    for number, call in enumerate(calls):
        assert call(), number
        proxy.refused = {f"key{number}": (status, code)}
        credentials._chain._asked_at = float("-inf")  # as if a while had gone by
        keys(f"key{number + 1}")


@pytest.mark.parametrize(("status", "code"), OF_THE_KEYS)
def test_keys_for_which_there_are_no_others_are_no_pictures_fault(s3, proxy, status, code):
    store = open_store(s3)
    uris = [f"{s3}/{number}.jpg" for number in range(200)]
    store.write("0.jpg", b"1")
    assert read_pictures([(uris[0], None)]) == [b"1"]
    proxy.refused["first"] = status, code
    before = sum(proxy.requests.values())
    for call in (
        lambda: read_pictures([(uri, None) for uri in uris]),
        lambda: read_infos(uris),
        lambda: store.info("0.jpg"),
        lambda: list(store.keys()),
        lambda: store.write("0.jpg", b""),
    ):
        with pytest.raises(CredentialsError, match="clock" if "Time" in code else "credentials") as found:
            call()
        assert "\n" not in str(found.value)
    # Once more for each of those that were under way, and then no others: that would be 400.
    assert sum(proxy.requests.values()) - before < 2 * 32 + 2 * 32 + 10


def test_what_is_denied_to_us_is_one_objects_matter(s3, s3_endpoint, proxy):
    open_store(s3).write("a.jpg", b"1")
    open_store(s3).write("b.jpg", b"2")
    proxy.decide = lambda method, key, number: "forbidden" if key == "a.jpg" else None
    found = read_pictures([(f"{s3}/a.jpg", None), (f"{s3}/b.jpg", None)])
    assert [type(one) for one in found] == [ForbiddenError, bytes]
    with pytest.raises(ForbiddenError, match="AccessDenied") as refused:
        open_store(s3).info("a.jpg")
    assert type(refused.value) is ForbiddenError


def test_many_that_are_refused_at_once_ask_the_chain_once(proxy):
    before = current_environment()
    together = threading.Barrier(8)

    def refused(_: int) -> bool:
        together.wait()
        return renewed_since(before)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(refused, range(8))) == [True] * 8
    assert credentials._chain.number == 1
    assert not renewed_since(current_environment())  # these are new, and asking again gives no others


def test_a_program_that_gives_no_keys_any_more_is_no_pictures_fault(s3, proxy, tmp_path, monkeypatch):
    """Keys that expire within minutes are asked for again while pictures are read."""
    program = tmp_path / "keys.sh"
    program.write_text('echo "the vault is sealed" >&2; exit 1')
    (tmp_path / "config").write_text(f"[profile lab]\ncredential_process = /bin/sh {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    for call in (lambda: open_store(s3).read("x"), lambda: read_pictures([(f"{s3}/x", None)])):
        with pytest.raises(CredentialsError, match="the vault is sealed"):
            call()
    assert issubclass(CredentialsError, StorageError)
