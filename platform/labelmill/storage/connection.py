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
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as ObstoreS3

from labelmill.errors import (
    ArchivedError,
    CredentialsError,
    ForbiddenError,
    NotFoundError,
    SlowDownError,
    StorageError,
    UnavailableError,
)
from labelmill.storage.credentials import (
    Environment,
    credentials_of,
    current_environment,
    is_of_the_keys,
    session_for,
)
from labelmill.storage.patience import pace_of, patiently

__all__ = ["client_for", "delta_options", "explained", "one_try_s", "reader_for"]

_AMAZON = re.compile(r"https://s3(\.[a-z0-9-]+)?\.amazonaws\.com")
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"}
_PASSING = {"RequestTimeout", "ConditionalRequestConflict"}
_NO_KEYS = (CredentialRetrievalError, MetadataRetrievalError, NoCredentialsError, SSOError, TokenRetrievalError)
_GIVES_KEYS = ("AssumeRole", "GetRoleCredentials", "CreateToken")  # what the chain asks, other services than S3
_ARCHIVED = "InvalidObjectState"


def delta_options(uri: str) -> dict[str, str]:
    """`storage_options` for `deltalake`, so that a table lies where a Store of the same uri would put it.

    Keys that expire are left out: deltalake then walks boto3's chain itself and renews them, as a copy would not.
    """
    client = client_for(60.0, current_environment())
    credentials = credentials_of(session_for(current_environment()))
    bucket = uri.removeprefix("s3://").partition("/")[0]

    def ask() -> tuple[str, str]:
        with explained(uri, client.meta.endpoint_url):
            return _place(client, bucket)

    pace = pace_of(client.meta.endpoint_url, bucket)
    region, endpoint = patiently(ask, pace, timeout_s=60.0, one_try_s=one_try_s(60.0), urgent=True)
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
        "AWS_REGION": region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        "AWS_CONDITIONAL_PUT": "etag",
    }
    if isinstance(credentials, RefreshableCredentials):
        options["AWS_FORCE_CREDENTIAL_LOAD"] = "true"  # where an endpoint is given, it asks the instance only
    else:
        frozen = credentials.get_frozen_credentials()
        options |= {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        options |= {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
    return options


@lru_cache(maxsize=16)
def client_for(timeout_s: float, environment: Environment) -> Any:
    config = Config(
        connect_timeout=one_try_s(timeout_s),
        read_timeout=one_try_s(timeout_s),
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=32,
        # many servers reject the checksums that Amazon has added since
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = session_for(environment)
        credentials_of(session)
        client = session.client("s3", config=config)
    except (BotoCoreError, ValueError) as exc:
        raise CredentialsError(f"expected a configuration of S3 that boto3 understands (AWS_*): {_line(exc)}") from exc
    client.meta.events.register("before-parse.s3.ListObjectsV2", _keep_body)
    # asking whether a body is welcome costs a second on servers that do not answer the question
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


@lru_cache(maxsize=64)
def reader_for(bucket: str, timeout_s: float, environment: Environment) -> ObstoreS3:
    client = client_for(timeout_s, environment)
    region, endpoint = _place(client, bucket)
    return ObstoreS3(
        bucket,
        endpoint=endpoint,
        region=region,
        virtual_hosted_style_request=False,
        # botocore renews keys ten minutes before they expire, so none may be kept for longer than that
        credential_provider=Boto3CredentialProvider(session_for(environment), ttl=timedelta(minutes=9)),
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=one_try_s(timeout_s)),
            "read_timeout": timedelta(seconds=one_try_s(timeout_s)),  # without a byte
            "timeout": timedelta(hours=1),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)},
    )


def one_try_s(timeout_s: float) -> float:
    """Seconds without an answer after which a request is given up, so that there is time for another."""
    return min(15.0, timeout_s / 4)


def _place(client: Any, bucket: str) -> tuple[str, str]:
    """Region and endpoint of a bucket. Amazon's answer in their own region only; obstore and deltalake must be told."""
    region, endpoint = client.meta.region_name, client.meta.endpoint_url
    if not _AMAZON.match(endpoint):
        return region, endpoint
    try:
        region = client.head_bucket(Bucket=bucket).get("BucketRegion", region)
    except ClientError as exc:  # it says where, whatever else it says
        region = exc.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", region)
    return region, _AMAZON.sub(f"https://s3.{region}.amazonaws.com", endpoint)


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
    except (*_NO_KEYS, UnauthenticatedError) as exc:
        raise _no_good_keys(uri, endpoint, _line(exc)) from exc
    except PermissionDeniedError as exc:
        code = _code_in(str(exc))
        raise (_archived(uri) if code == _ARCHIVED else _forbidden(uri, endpoint, _line(exc), code)) from exc
    except FileNotFoundError as exc:
        raise NotFoundError(f"no such object: {uri!r} at {endpoint}") from exc
    except (HTTPClientError, BotocoreConnectionError, IncompleteReadError) as exc:
        raise UnavailableError(f"{uri!r}: no answer from {endpoint}: {_line(exc)}") from exc
    except BaseError as exc:
        raise _obstore_refusal(exc, uri, endpoint) from exc
    except (BotoCoreError, ParamValidationError) as exc:
        raise StorageError(f"{uri!r}: {_line(exc)}") from exc


def _refusal(exc: ClientError, uri: str, endpoint: str) -> StorageError:
    code, status = exc.response["Error"]["Code"], exc.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return NotFoundError(f"no such bucket: {uri!r} at {endpoint}: create it, or correct the uri or the endpoint")
    if exc.operation_name.startswith(_GIVES_KEYS):
        return _no_good_keys(uri, endpoint, _line(exc))
    if status == 404:
        return NotFoundError(f"no such object: {uri!r} at {endpoint}")
    if code == _ARCHIVED:
        return _archived(uri)
    if status == 401 or is_of_the_keys(code):
        return _no_good_keys(uri, endpoint, code)
    if status == 403 or code == "AccessDenied":
        return _forbidden(uri, endpoint, code)
    if status == 501:
        return StorageError(f"{uri!r}: {endpoint} cannot do what was asked: {_line(exc)}")
    if status in (429, 503) or code in _THROTTLED:
        return SlowDownError(f"{uri!r}: {endpoint} is overloaded: {_line(exc)}")
    if status >= 500 or status == 408 or code in _PASSING:
        return UnavailableError(
            f"{uri!r}: {endpoint} is failing, cuts its answers off, or is no S3 server: {_line(exc)}"
        )
    return StorageError(f"{uri!r}: {_line(exc)}")


def _archived(uri: str) -> ArchivedError:
    return ArchivedError(f"{uri!r} lies in an archive: give it a storage class that is read at once")


def _forbidden(uri: str, endpoint: str, why: str, code: str = "") -> ForbiddenError:
    if is_of_the_keys(code):
        return _no_good_keys(uri, endpoint, why)
    return ForbiddenError(f"{uri!r}: {endpoint} refused us, check the credentials and their rights: {why}")


def _no_good_keys(uri: str, endpoint: str, why: str) -> CredentialsError:
    what = "clock" if "TimeTooSkewed" in why else "credentials"
    return CredentialsError(f"{uri!r}: {endpoint} refused us, check the {what} of this machine: {why}")


def _obstore_refusal(exc: BaseError, uri: str, endpoint: str) -> StorageError:
    text = str(exc)
    found = re.search(r"status code: (\d+)", text)
    status = found[1] if found else ""
    if status in ("429", "503") or (status and any(f"<Code>{code}<" in text for code in _THROTTLED)):
        return SlowDownError(f"{uri!r}: {_line(exc)}")
    if f"<Code>{_ARCHIVED}<" in text:
        return _archived(uri)
    permanent = status.startswith("4") and status != "408" and "<Code>RequestTimeout<" not in text
    code = _code_in(text)
    if permanent and (is_of_the_keys(code) or code == "AccessDenied"):
        return _forbidden(uri, endpoint, _line(exc), code)
    if "body error" in text:
        return UnavailableError(f"{uri!r}: the answer of {endpoint} broke off or stood still before its end")
    kind = StorageError if permanent or "redirect" in text else UnavailableError
    return kind(f"{uri!r}: {_line(exc)}")


def _code_in(text: str) -> str:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else ""


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).partition("\n\nDebug source")[0].split())
