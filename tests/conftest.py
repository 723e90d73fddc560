"""Fixtures that tests of several parts share."""

import os
import re
import sys
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

import harm
from clouds import NO_AZURITE, azurite, azurite_program, create_container, google

CHROMIUM = Path("/usr/bin/chromium")


def pytest_collection_finish() -> None:
    """A job in this process could not set Ray up any more: what needs Ray at import is imported in another process."""
    assert "ray" not in sys.modules, "a module of tests imports Ray"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What was written of names that are not UTF-8 cannot be sent from one process of the tests to the other."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture
def harmful_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Processes started from here die of pictures that end in the words of this module."""
    path = [harm.make_decoder_harmful(tmp_path / "harm"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    return harm


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets the machine's clock five seconds on, as psutil sees it: the kernel then says that it booted later."""
    folder = tmp_path / "proc"

    def set_it() -> None:
        folder.mkdir()
        for path in Path("/proc").iterdir():
            if path.name != "stat":
                (folder / path.name).symlink_to(path)
        later = re.sub(r"btime (\d+)", lambda found: f"btime {int(found[1]) + 5}", Path("/proc/stat").read_text())
        (folder / "stat").write_text(later)
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(folder))

    return set_it


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real HTTP S3 server: moto on a free port, or whatever LABELMILL_TEST_S3_ENDPOINT and AWS_* name."""
    if endpoint := os.environ.get("LABELMILL_TEST_S3_ENDPOINT"):
        yield endpoint
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_settings(s3_endpoint: str) -> dict[str, str]:
    """The environment variables with which boto3, Ray's workers and we reach that server."""
    settings = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
    }
    if "LABELMILL_TEST_S3_ENDPOINT" in os.environ:
        settings |= {name: os.environ[name] for name in list(settings)[:3] if name in os.environ}
    return settings


@pytest.fixture(scope="session")
def s3_buckets(s3_settings: dict[str, str]) -> Any:
    session = boto3.Session(*list(s3_settings.values())[:2], region_name=s3_settings["AWS_DEFAULT_REGION"])
    return session.resource("s3", endpoint_url=s3_settings["AWS_ENDPOINT_URL"])


@pytest.fixture
def s3(s3_settings: dict[str, str], s3_buckets: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The uri of a fresh bucket; the environment names its server and keys, for this process and those it starts."""
    _only(monkeypatch, "AWS_", s3_settings)
    bucket = s3_buckets.create_bucket(Bucket=f"labelmill-{uuid4().hex}")
    yield f"s3://{bucket.name}"
    bucket.objects.delete()
    bucket.delete()


@pytest.fixture(scope="session")
def google_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    with google(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture
def gs(google_server: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    """The uri of a fresh bucket of what stands for Google Cloud Storage; the environment names it."""
    endpoint, settings = google_server
    _only(monkeypatch, "GOOGLE_", settings)
    bucket = f"labelmill{uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")).close()
    return f"gs://{bucket}"


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    if azurite_program() is None:
        pytest.skip(NO_AZURITE)
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def az(azurite_server: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    """The uri of a fresh container of Azurite; the environment names it."""
    endpoint, settings = azurite_server
    _only(monkeypatch, "AZURE_", settings)
    container = f"labelmill-{uuid4().hex}"
    create_container(endpoint, container)
    return f"az://{container}"


def _only(monkeypatch: pytest.MonkeyPatch, prefix: str, settings: dict[str, str]) -> None:
    """Of the variables with this prefix these, and no others."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real one. A module's, not the session's: while it runs, no other test could start an event loop."""
    if not CHROMIUM.exists():
        pytest.skip("no browser: apt-get install -y --no-install-recommends chromium")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose script errors and refused loads fail the test."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    page.on("dialog", lambda dialog: (errors.append("script ran"), dialog.dismiss()))
    yield page
    page.close()
    assert errors == []
