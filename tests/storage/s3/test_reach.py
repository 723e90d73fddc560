"""How a bucket is asked: by its name in the host, without keys, at the cost of who asks."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from labelmill.check import check
from labelmill.errors import CredentialsError
from labelmill.spec import load_spec
from labelmill.storage import delta_options, open_store, read_pictures

Seen = list[tuple[str, str, dict[str, str]]]


class _Watching:
    """A server before moto that notes what it is asked: (host, path, headers). It forwards a bucket in the host as one
    in the path, since moto knows no such names, and is found as a proxy, since no resolver does."""

    def __init__(self, target: str) -> None:
        self.seen: Seen = []
        watching, goal = self, urlsplit(target)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlsplit(self.path)
                host, path = self.headers["Host"], url.path + (f"?{url.query}" if url.query else "")
                watching.seen.append((host, path, dict(self.headers)))
                bucket = host.partition(".")[0] if host.endswith(".test") and host != "s3.test" else ""
                server = http.client.HTTPConnection(goal.hostname, goal.port, timeout=60)
                headers = {key: value for key, value in self.headers.items() if not bucket or key.lower() != "host"}
                server.request(self.command, f"/{bucket}{path}" if bucket else path, body or None, headers)
                answer = server.getresponse()
                content = answer.read()
                self.send_response_only(answer.status)
                length = answer.getheader("Content-Length") or str(len(content))  # a HEAD has it without a body
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)
                server.close()

            do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def watching(s3: str, s3_endpoint: str) -> Iterator[_Watching]:
    watching = _Watching(s3_endpoint)
    thread = threading.Thread(target=watching.server.serve_forever, args=(0.02,))
    thread.start()
    yield watching
    watching.server.shutdown()
    watching.server.server_close()
    thread.join()


def do_everything(uri: str) -> None:
    store = open_store(uri)
    store.write("in/a b.jpg", b"1")
    store.write("in/x//y", b"2")
    assert [row["uri"] for batch in store.list("in") for row in batch.to_pylist()] == [
        f"{uri}/in/a b.jpg",
        f"{uri}/in/x//y",
    ]
    assert read_pictures([(f"{uri}/in/a b.jpg", None), (f"{uri}/in/x//y", None)]) == [b"1", b"2"]
    assert store.info("in/a b.jpg").size_bytes == 1
    options = delta_options(f"{uri}/table")
    write_deltalake(f"{uri}/table", pa.table({"x": [1]}), storage_options=options)
    assert DeltaTable(f"{uri}/table", storage_options=options).version() == 0
    store.delete("in/x//y")


def test_the_bucket_stands_in_the_host_where_boto3_is_told_so(
    s3: str, watching: _Watching, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "LABELMILL_TEST_S3_ENDPOINT" in os.environ:
        pytest.skip("the signature of a request that is forwarded to another host is one that moto alone takes")
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.test")
    monkeypatch.setenv("HTTP_PROXY", watching.endpoint)
    monkeypatch.setenv("http_proxy", watching.endpoint)
    do_everything(s3)
    assert {host for host, _, _ in watching.seen} == {f"{s3.removeprefix('s3://')}.s3.test"}


def test_the_bucket_stands_in_the_path_of_an_endpoint_otherwise(
    s3: str, watching: _Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", watching.endpoint)
    do_everything(s3)
    assert all(path.startswith(f"/{s3.removeprefix('s3://')}") for _, path, _ in watching.seen)
    assert not any("x-amz-request-payer" in headers for _, _, headers in watching.seen)


@pytest.mark.parametrize("value", ["requester", "true"])
def test_who_asks_pays_where_the_environment_says_so(
    s3: str, watching: _Watching, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", watching.endpoint)
    monkeypatch.setenv("AWS_REQUEST_PAYER", value)
    do_everything(s3)
    assert len(watching.seen) > 10
    assert {headers.get("x-amz-request-payer") for _, _, headers in watching.seen} == {"requester"}


@pytest.fixture
def no_keys(s3: str, s3_buckets: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that is open to everybody but for one object, and no keys."""
    if "LABELMILL_TEST_S3_ENDPOINT" in os.environ:
        pytest.skip("who may read what is set as moto has it")
    bucket = s3_buckets.Bucket(s3.removeprefix("s3://"))
    for key in ("in/a.jpg", "in/b.jpg"):
        bucket.put_object(Key=key, Body=key.encode(), ACL="public-read")
    bucket.put_object(Key="secret.jpg", Body=b"1")
    write_deltalake(f"{s3}/table", pa.table({"x": [1]}), storage_options=delta_options(f"{s3}/table"))
    for found in bucket.objects.filter(Prefix="table"):
        found.Acl().put(ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return s3


def read_what_is_open(uri: str) -> None:
    store = open_store(uri)
    listed = [(row["uri"], row["etag"]) for batch in store.list("in") for row in batch.to_pylist()]
    assert read_pictures(listed) == [b"in/a.jpg", b"in/b.jpg"]
    table = DeltaTable(f"{uri}/table", storage_options=delta_options(f"{uri}/table"))
    assert table.to_pyarrow_table()["x"].to_pylist() == [1]


def test_a_bucket_that_is_open_to_everybody_is_read_without_keys(no_keys: str) -> None:
    read_what_is_open(no_keys)
    with pytest.raises(
        CredentialsError, match=r"secret.jpg': expected credentials for S3, found none.*AWS_ACCESS_KEY_ID"
    ):
        open_store(no_keys).read("secret.jpg")


def test_keys_that_nobody_there_knows_are_left_out_where_the_environment_says_so(
    no_keys: str, s3_endpoint: str, watching: _Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-another-place")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", watching.endpoint)
    read_what_is_open(no_keys)
    assert not any("Authorization" in {name.title() for name in headers} for _, _, headers in watching.seen)


def test_check_says_that_it_read_without_keys(no_keys: str, tmp_path: Path) -> None:
    fields = {
        "kind": "label",
        "name": "n",
        "registry": "./r",
        "model": "m@1",
        "images": f"{no_keys}/in",
        "output": "./out",
    }
    (tmp_path / "job.yaml").write_text(json.dumps(fields))
    found = {finding.subject: finding for finding in check(load_spec(str(tmp_path / "job.yaml")).spec)}
    assert found["images"].ok
    assert found["images"].detail.endswith("read without keys: none were found")
