"""Fixtures that tests of several parts share."""

import os
from collections.abc import Iterator
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer


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


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The uri of a fresh bucket; the environment names its server and keys, for this process and those it starts."""
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    known = {key: os.environ[key] for key in keys if key in os.environ}
    settings = dict(zip(keys, ("test-key", "test-secret", "us-east-1"), strict=True))
    settings |= known if "LABELMILL_TEST_S3_ENDPOINT" in os.environ else {}
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings |= {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.Session().resource("s3").create_bucket(Bucket=f"labelmill-{uuid4().hex}")
    yield f"s3://{bucket.name}"
    bucket.objects.delete()
    bucket.delete()
