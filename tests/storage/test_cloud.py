"""What Google Cloud Storage and Azure Blob Storage do otherwise than S3, and what is said when they refuse us."""

import base64
import re
import time
import urllib.request
from pathlib import Path

import pytest

from clouds import put_blob
from labelmill.errors import CredentialsError, ForbiddenError, NotFoundError, StorageError, UnavailableError
from labelmill.storage import cloud, delta_options, num_retries, open_store, read_pictures, traffic
from proxy import faulty_proxy


@pytest.fixture(params=["gs", "az"])
def bucket(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def listed(uri: str) -> list[str]:
    return [row["uri"] for batch in open_store(uri).list() for row in batch.to_pylist()]


def test_a_missing_bucket_is_not_found_with_what_to_do(bucket: str) -> None:
    store = open_store(f"{bucket}x/y", timeout_s=5)
    for attempt in (lambda: list(store.list()), lambda: list(store.keys()), store.folders, lambda: store.read("a")):
        with pytest.raises(NotFoundError, match=r"no such bucket: '(gs|az)://labelmill.*create it"):
            attempt()
    with pytest.raises(NotFoundError):
        store.honours_write_if_absent()


def test_an_account_that_is_not_named_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(CredentialsError, match=r"az://c is reached: set AZURE_STORAGE_ACCOUNT_NAME.*: Account must be"):
        open_store("az://c/x").read("a")


def test_a_file_of_credentials_that_is_not_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "none.json"))
    with pytest.raises(
        CredentialsError, match=r"gs://b is reached: set GOOGLE_APPLICATION_CREDENTIALS.*none.json"
    ) as e:
        open_store("gs://b/x").read("a")
    assert "\n" not in str(e.value)


def test_a_wrong_key_is_no_pictures_fault(az: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(az).write("a", b"1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"another").decode())
    # Azurite has for this a code that Azure gives for a firewall; Azure itself says AuthenticationFailed.
    with pytest.raises(
        ForbiddenError, match=r"Azure Blob Storage refused us.*AuthorizationFailure: Server failed"
    ) as e:
        list(open_store(az, timeout_s=5).list())
    assert "\n" not in str(e.value)
    assert "<" not in str(e.value)


def test_keys_that_azure_refuses_are_of_the_keys(az: str, azurite_server, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(az).write("a", b"1")
    with faulty_proxy(azurite_server[0], lambda *_: "forbidden") as proxy:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{proxy.endpoint}/devstoreaccount1")
        denied = read_pictures([(f"{az}/a", None)])
        assert isinstance(denied[0], ForbiddenError)
        assert not isinstance(denied[0], CredentialsError)
        proxy.refused[""] = (403, "AuthenticationFailed")
        with pytest.raises(CredentialsError):
            read_pictures([(f"{az}/a", None)])


def test_what_stands_for_a_folder_is_no_picture(gs: str, az: str, azurite_server, google_server) -> None:
    for uri in (gs, az):
        open_store(uri).write("in/a.jpg", b"1")
        open_store(uri).write("in/empty.jpg", b"")
    put_blob(azurite_server[0], az.removeprefix("az://"), "in/")
    folder = urllib.request.Request(f"{google_server[0]}/{gs.removeprefix('gs://')}/in/", data=b"", method="PUT")
    urllib.request.urlopen(folder).close()
    for uri in (gs, az):
        assert listed(f"{uri}/in") == [f"{uri}/in/a.jpg", f"{uri}/in/empty.jpg"]
        assert listed(uri) == [f"{uri}/in/a.jpg", f"{uri}/in/empty.jpg"]


def test_a_name_that_cannot_be_addressed_is_named_and_no_end(az: str, azurite_server) -> None:
    open_store(az).write("a.jpg", b"1")
    put_blob(azurite_server[0], az.removeprefix("az://"), "x//b.jpg")
    with pytest.raises(StorageError, match=r"expected names without.*empty.*x//b.jpg"):
        listed(az)
    with pytest.raises(StorageError, match=r"expected names without"):
        open_store(az).read("x//b.jpg")


@pytest.mark.parametrize("fault", ["error", "slow_down", "reset", "truncated", "lost"])
def test_a_fault_that_passes_costs_a_retry_and_no_picture(az: str, azurite_server, monkeypatch, fault: str) -> None:
    keys = [f"{number}.jpg" for number in range(6)]
    for key in keys:
        open_store(az).write(key, key.encode() * 100)
    with faulty_proxy(azurite_server[0], lambda method, key, number: fault if number == 0 else None) as proxy:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{proxy.endpoint}/devstoreaccount1")
        before = num_retries()
        assert read_pictures([(f"{az}/{key}", None) for key in keys]) == [key.encode() * 100 for key in keys]
        assert num_retries() - before == 6
        assert listed(az) == [f"{az}/{key}" for key in keys]
        store = open_store(az)
        assert store.write_if_absent("new", b"mine")
        assert not store.write_if_absent("new", b"yours")
        assert store.read("new") == b"mine"


def test_a_listing_that_breaks_off_in_its_midst_is_an_error_and_no_end(
    az: str, azurite_server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud, "_TRIES_OF_A_PAGE", 1)
    monkeypatch.setattr(cloud, "_KEYS_A_PAGE", 2)
    for number in range(6):
        open_store(az).write(f"{number}.jpg", b"1")
    pages = 0

    def second_page(method: str, path: str, headers, body: bytes):
        """Of two keys each, as a large container has them of 5,000."""
        nonlocal pages
        if "comp=list" not in path:
            return None
        pages += 1
        if pages <= 2:  # the look whether there is anything, and the first page
            whole = re.sub(rb"(<Blob><Name>[2-5].jpg.*?</Blob>)", b"", body, flags=re.DOTALL)
            return headers, whole.replace(b"<NextMarker/>", b"<NextMarker>more</NextMarker>")
        return headers, b"<EnumerationResults><Blobs>"

    with faulty_proxy(azurite_server[0], lambda *_: None, alter=second_page) as proxy:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{proxy.endpoint}/devstoreaccount1")
        seen = []
        with pytest.raises(StorageError):
            for batch in open_store(az, timeout_s=5).list():
                seen += batch["uri"].to_pylist()
    assert seen == [f"{az}/0.jpg", f"{az}/1.jpg"]


def test_a_server_that_does_not_answer_is_unavailable_in_time(az: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:9/devstoreaccount1")
    for attempt in (
        lambda store: store.read("a"),
        lambda store: list(store.list()),
        lambda store: store.write("a", b""),
    ):
        started = time.monotonic()
        with pytest.raises(UnavailableError):
            attempt(open_store(az, timeout_s=4))
        assert time.monotonic() - started < 6


def test_requests_and_bytes_are_counted(bucket: str) -> None:
    before, store = traffic(), open_store(bucket)
    store.write("a", b"12345")
    store.read("a")
    store.info("a")
    list(store.list())
    done = traffic() - before
    assert (done.puts, done.gets, done.written_bytes, done.read_bytes) == (1, 2, 5, 5)
    assert done.lists in (1, 2)


def test_deltalake_reads_the_variables_itself(bucket: str) -> None:
    assert delta_options(f"{bucket}/table") == {"allow_http": "true"}
