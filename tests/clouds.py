"""Servers that stand for Google Cloud Storage and Azure Blob Storage."""

import base64
import hashlib
import hmac
import html
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from proxy import Headers, faulty_proxy, no_fault

__all__ = ["NO_AZURITE", "azurite", "azurite_program", "create_container", "google", "put_blob"]

NO_AZURITE = "no Azurite: npm install azurite, LABELMILL_TEST_AZURITE=node_modules/.bin/azurite-blob"
# What Azurite is installed with, and everybody knows.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_NAMES = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT")
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@contextmanager
def google(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a server, and the variables by which it is reached.

    What object_store asks of Google's XML API is what S3 answers, but for the header of a conditional write: so moto,
    with that one translated. Only the server of Google tells whether it is so there.
    """
    moto = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        environ["HTTP_AUTHORIZATION"] = _SIGNED  # or moto takes it for a stranger's
        return moto(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.port}"
    account = folder / "service_account.json"
    nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
    account.write_text(json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **nobody}))
    try:
        yield endpoint, {"GOOGLE_SERVICE_ACCOUNT": str(account)}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def azurite_program() -> str | None:
    return os.environ.get("LABELMILL_TEST_AZURITE") or shutil.which("azurite-blob")


@contextmanager
def azurite(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a running Azurite, and the variables by which it is reached.

    Azurite (3.35) passes over `startFrom`, by which object_store lists what follows a name, and without which deltalake
    finds no version of a table but the first: a proxy leaves out what comes before.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = azurite_program()
    assert program
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    process = subprocess.Popen(
        [program, *options, "--skipApiVersionCheck", "--disableTelemetry"], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        with faulty_proxy(f"http://127.0.0.1:{port}", no_fault, alter=_start_from) as proxy:
            endpoint = f"{proxy.endpoint}/{ACCOUNT}"
            yield endpoint, dict(zip(_NAMES, (ACCOUNT, KEY, endpoint), strict=True))
    finally:
        process.terminate()
        process.wait(10)


def _start_from(method: str, path: str, headers: Headers, body: bytes) -> tuple[Headers, bytes] | None:
    start = parse_qs(urlsplit(path).query).get("startFrom")
    if not start:
        return None
    for blob in re.findall(rb"<Blob>.*?</Blob>", body, re.DOTALL):
        name = re.search(rb"<Name>(.*?)</Name>", blob)
        if name and html.unescape(name[1].decode()) < start[0]:
            body = body.replace(blob, b"")
    return headers, body


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"Azurite did not start, it said {process.poll()}")


def create_container(endpoint: str, name: str) -> None:
    _put(f"{endpoint}/{name}", "restype=container", {}, b"")


def put_blob(endpoint: str, container: str, written: str) -> None:
    """An empty blob of a name (as it stands in a URL) that obstore could not write."""
    _put(f"{endpoint}/{container}/{written}", "", {"x-ms-blob-type": "BlockBlob"}, b"")


def _put(url: str, query: str, headers: dict[str, str], body: bytes) -> None:
    """A request signed with the account's key (Azure: Authorize with Shared Key), since obstore has none for this."""
    host, _, path = url.removeprefix("http://").partition("/")
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    own = headers | {"x-ms-date": now, "x-ms-version": "2021-12-02"}
    lines = ["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in sorted(own.items()))]
    text = "\n".join([*lines, f"/{ACCOUNT}/{path}", *([query.replace("=", ":")] if query else [])])
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    own |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": str(len(body))}
    server = http.client.HTTPConnection(host, timeout=10)
    server.request("PUT", f"/{path}?{query}".rstrip("?"), body, own)
    answer = server.getresponse()
    assert answer.status == 201, answer.read()
    server.close()
