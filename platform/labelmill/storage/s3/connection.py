"""How S3 is reached, and what its refusals mean.

Credentials, region and endpoint come from boto3's chain. Neither client retries by itself: `patience` does, which can
tell the whole process to slow down, and counts.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotocoreConnectionError
from botocore.handlers import add_expect_header
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import S3Store as ObstoreS3

from labelmill.errors import CredentialsError, NotFoundError, SlowDownError, StorageError, UnavailableError
from labelmill.storage.credentials import Environment, current_environment, is_of_the_keys
from labelmill.storage.patience import one_try_s, pace_of, patiently
from labelmill.storage.refusals import (
    ARCHIVED,
    THROTTLED,
    archived,
    forbidden,
    line_of,
    no_bucket,
    no_good_keys,
    refusal_of,
)
from labelmill.storage.s3.sessions import keys_of, requester_pays, session_for

__all__ = ["client_for", "delta_options", "explained", "reader_for"]

_AMAZON = re.compile(r"https://s3(\.[a-z0-9-]+)?\.amazonaws\.com")
_PASSING = {"RequestTimeout", "ConditionalRequestConflict"}
_NO_KEYS = (CredentialRetrievalError, MetadataRetrievalError, NoCredentialsError, SSOError, TokenRetrievalError)
_GIVES_KEYS = ("AssumeRole", "GetRoleCredentials", "CreateToken")  # what the chain asks, other services than S3


def delta_options(uri: str) -> dict[str, str]:
    """`storage_options` for `deltalake`, so that a table lies where a Store of the same uri would put it.

    Keys that expire are left out: deltalake then walks boto3's chain itself and renews them, as a copy would not.
    """
    environment = current_environment()
    client, credentials = client_for(60.0, environment), keys_of(environment)
    bucket = uri.removeprefix("s3://").partition("/")[0]

    def ask() -> tuple[str, str, bool]:
        with explained(uri, client.meta.endpoint_url):
            return _place(client, bucket)

    pace = pace_of(client.meta.endpoint_url, bucket)
    region, endpoint, in_host = patiently(ask, pace, timeout_s=60.0, one_try_s=one_try_s(60.0), urgent=True)
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
        "AWS_REGION": region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(in_host).lower(),
        "AWS_REQUEST_PAYER": str(requester_pays(environment)).lower(),
        "AWS_CONDITIONAL_PUT": "etag",
    }
    if credentials is None:
        options["AWS_SKIP_SIGNATURE"] = "true"
    elif isinstance(credentials, RefreshableCredentials):
        options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"  # where an endpoint is given, it asks the instance only
    else:
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        options |= {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
    return options


@lru_cache(maxsize=16)
def client_for(timeout_s: float, environment: Environment) -> Any:
    try:
        client = _client(timeout_s, environment)
    except (BotoCoreError, ValueError) as exc:
        raise CredentialsError(
            f"expected a configuration of S3 that boto3 understands (AWS_*): {line_of(exc)}"
        ) from exc
    client.meta.events.register("before-parse.s3.ListObjectsV2", _keep_body)
    # asking whether a body is welcome costs a second on servers that do not answer the question
    client.meta.events.unregister("before-call.s3", add_expect_header)
    if requester_pays(environment):
        client.meta.events.register("before-call.s3", _pay)
    return client


def _client(timeout_s: float, environment: Environment) -> Any:
    config = Config(
        signature_version=UNSIGNED if keys_of(environment) is None else None,
        connect_timeout=one_try_s(timeout_s),
        read_timeout=one_try_s(timeout_s),
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=32,
        # many servers reject the checksums that Amazon has added since
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session_for(environment).client("s3", config=config)


@lru_cache(maxsize=64)
def reader_for(bucket: str, timeout_s: float, environment: Environment) -> ObstoreS3:
    client = client_for(timeout_s, environment)
    region, endpoint, in_host = _place(client, bucket)
    keys: Any = {"skip_signature": True}
    if keys_of(environment) is not None:
        # botocore renews keys ten minutes before they expire, so none may be kept for longer than that
        keys = {"credential_provider": Boto3CredentialProvider(session_for(environment), ttl=timedelta(minutes=9))}
    return ObstoreS3(
        bucket,
        endpoint=endpoint,
        region=region,
        virtual_hosted_style_request=in_host,
        request_payer=requester_pays(environment),
        **keys,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=one_try_s(timeout_s)),
            "read_timeout": timedelta(seconds=one_try_s(timeout_s)),  # without a byte
            "timeout": timedelta(hours=1),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)},
    )


def _place(client: Any, bucket: str) -> tuple[str, str, bool]:
    """Region and endpoint of a bucket, and whether the bucket stands in the endpoint's host, as boto3's configuration
    may say (`addressing_style = virtual`). Amazon's answer in their own region only; obstore and deltalake must be
    told."""
    region, endpoint = client.meta.region_name, client.meta.endpoint_url
    if _AMAZON.match(endpoint):
        try:
            region = client.head_bucket(Bucket=bucket).get("BucketRegion", region)
        except ClientError as exc:  # it says where, whatever else it says
            region = exc.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)
        endpoint = _AMAZON.sub(f"https://s3.{region}.amazonaws.com", endpoint)
    in_host = (client.meta.config.s3 or {}).get("addressing_style") == "virtual"
    return region, endpoint.replace("://", f"://{bucket}.", 1) if in_host else endpoint, in_host


def _pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _keep_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] < 300:
        customized_response_dict["UnparsedBody"] = response_dict["body"]
        response_dict["body"] = b""


@contextmanager
def explained(uri: str, endpoint: str) -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        raise _refusal(exc, uri, endpoint) from exc
    except _NO_KEYS as exc:
        raise no_good_keys(uri, endpoint, line_of(exc)) from exc
    except (BaseError, FileNotFoundError) as exc:
        raise refusal_of(exc, uri, endpoint) from exc
    except (HTTPClientError, BotocoreConnectionError, IncompleteReadError) as exc:
        raise UnavailableError(f"{uri!r}: no answer from {endpoint}: {line_of(exc)}") from exc
    except (BotoCoreError, ParamValidationError) as exc:
        raise StorageError(f"{uri!r}: {line_of(exc)}") from exc


def _refusal(exc: ClientError, uri: str, endpoint: str) -> StorageError:
    code, status = exc.response["Error"]["Code"], exc.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return no_bucket(uri, endpoint)
    if exc.operation_name.startswith(_GIVES_KEYS):
        return no_good_keys(uri, endpoint, line_of(exc))
    if status == 404:
        return NotFoundError(f"no such object: {uri!r} at {endpoint}")
    if code in ARCHIVED:
        return archived(uri)
    if status == 401 or is_of_the_keys(code):
        return no_good_keys(uri, endpoint, code)
    if status == 403 or code == "AccessDenied":
        return forbidden(uri, endpoint, code)
    if status == 501:
        return StorageError(f"{uri!r}: {endpoint} cannot do what was asked: {line_of(exc)}")
    if status in (429, 503) or code in THROTTLED:
        return SlowDownError(f"{uri!r}: {endpoint} is overloaded: {line_of(exc)}")
    if status >= 500 or status == 408 or code in _PASSING:
        return UnavailableError(
            f"{uri!r}: {endpoint} is failing, cuts its answers off, or is no S3 server: {line_of(exc)}"
        )
    return StorageError(f"{uri!r}: {line_of(exc)}")
