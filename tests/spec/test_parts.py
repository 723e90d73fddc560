"""Which addresses a spec takes, and what is said of those that other tools take."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from labelmill.spec.parts import Uri

URI = TypeAdapter(Uri)


@pytest.mark.parametrize("uri", ["s3://b/p", "gs://b/p", "az://c/p", "az://c", "file:///x", "/x", "x:y/z", "gs"])
def test_folders_and_buckets_of_each_cloud_are_addresses(uri: str) -> None:
    assert URI.validate_python(uri) == uri


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("gcs://b/p/q", "gs://b/p/q"),
        ("GS://b/p", "gs://b/p"),
        ("gs:/b/p", "gs://b/p"),
        ("azure://c/p", "az://c/p"),
        ("abfs://c/p", "az://c/p"),
        ("abfss://c@account.dfs.core.windows.net/p/q", "az://c/p/q"),
        ("wasbs://c@account.blob.core.windows.net", "az://c"),
        ("https://account.blob.core.windows.net/c/p", "az://c/p"),
        ("https://account.dfs.core.windows.net/c/", "az://c"),
        ("https://storage.googleapis.com/b/p", "gs://b/p"),
        ("https://storage.cloud.google.com/b/p", "gs://b/p"),
        ("s3a://b/p", "s3://b/p"),
    ],
)
def test_an_address_that_another_tool_takes_is_told_how_it_is_written_here(uri: str, meant: str) -> None:
    with pytest.raises(ValidationError, match="expected a folder, file://, s3://, gs:// or az://") as refused:
        URI.validate_python(uri)
    assert refused.value.errors()[0]["ctx"]["suggestion"] == meant


@pytest.mark.parametrize(
    "uri",
    [
        "abfss://me:s3cr3t@account.dfs.core.windows.net/p",
        "https://account.blob.core.windows.net/c/p?sv=1&sig=s3cr3t",
        "https://storage.googleapis.com/b/p?X-Goog-Signature=s3cr3t",
        "az://me:s3cr3t@c/p",
        "gs://s3cr3t@b/p",
    ],
)
def test_an_address_with_a_key_in_it_is_not_repeated(uri: str) -> None:
    with pytest.raises(ValidationError) as refused:
        URI.validate_python(uri)
    context = refused.value.errors()[0]["ctx"]
    assert context["secret"]
    assert not re.search("s3cr3t", str(context["suggestion"]) + context["what"])
