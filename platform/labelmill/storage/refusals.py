"""What the refusals of an object store mean, as obstore tells of them: one tree of errors for every cloud."""

import re

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from labelmill.errors import (
    ArchivedError,
    CredentialsError,
    ForbiddenError,
    NotFoundError,
    SlowDownError,
    StorageError,
    UnavailableError,
)
from labelmill.storage.credentials import is_of_the_keys

__all__ = ["ARCHIVED", "THROTTLED", "archived", "forbidden", "line_of", "no_bucket", "no_good_keys", "refusal_of"]

THROTTLED = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"})
ARCHIVED = frozenset({"InvalidObjectState", "BlobArchived"})
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")


def refusal_of(exc: Exception, uri: str, endpoint: str, *, needed: str = "") -> StorageError:
    """The error in our words, of one that obstore raised. `needed` says what to set where there are no keys."""
    text = str(exc)
    code = _code_in(text)
    if code in _NO_BUCKET:
        return no_bucket(uri, endpoint)
    if isinstance(exc, UnauthenticatedError):
        return no_good_keys(uri, endpoint, line_of(exc))
    if isinstance(exc, PermissionDeniedError):
        return archived(uri) if code in ARCHIVED else forbidden(uri, endpoint, line_of(exc), code)
    if isinstance(exc, FileNotFoundError):
        return NotFoundError(f"no such object: {uri!r} at {endpoint}")
    if "token request" in text and not re.search("status code: (5|429)", text):  # the last of the chain, and its end
        return CredentialsError(
            f"{uri!r}: expected credentials for {endpoint}, found none: set {needed}: {line_of(exc)}"
        )
    if isinstance(exc, ValueError) or "object with invalid path" in text:
        return _odd(exc, uri)
    return _refusal(exc, uri, endpoint, text, code)


def _refusal(exc: Exception, uri: str, endpoint: str, text: str, code: str) -> StorageError:
    found = re.search(r"status code: (\d+)", text)
    status = found[1] if found else ""
    if status in ("429", "503") or (status and code in THROTTLED):
        return SlowDownError(f"{uri!r}: {line_of(exc)}")
    if code in ARCHIVED:
        return archived(uri)
    permanent = status.startswith("4") and status != "408" and "<Code>RequestTimeout<" not in text
    if permanent and (is_of_the_keys(code) or code == "AccessDenied" or status == "403"):
        return forbidden(uri, endpoint, line_of(exc), code)
    if "body error" in text:
        return UnavailableError(f"{uri!r}: the answer of {endpoint} broke off or stood still before its end")
    kind = StorageError if permanent or "redirect" in text else UnavailableError
    return kind(f"{uri!r}: {line_of(exc)}")


def _odd(exc: Exception, uri: str) -> StorageError:
    """It has a name that object_store cannot address."""
    return StorageError(
        f"{uri!r}: expected names without control characters and without parts that are empty, '.' or '..': "
        f"rename the object, or name the pictures by a manifest: {line_of(exc)}"
    )


def archived(uri: str) -> ArchivedError:
    return ArchivedError(f"{uri!r} lies in an archive: give it a storage class that is read at once")


def forbidden(uri: str, endpoint: str, why: str, code: str = "") -> ForbiddenError:
    if is_of_the_keys(code):
        return no_good_keys(uri, endpoint, why)
    return ForbiddenError(f"{uri!r}: {endpoint} refused us, check the credentials and their rights: {why}")


def no_good_keys(uri: str, endpoint: str, why: str) -> CredentialsError:
    what = "clock" if "TimeTooSkewed" in why else "credentials"
    return CredentialsError(f"{uri!r}: {endpoint} refused us, check the {what} of this machine: {why}")


def no_bucket(uri: str, endpoint: str) -> NotFoundError:
    return NotFoundError(f"no such bucket: {uri!r} at {endpoint}: create it, or correct the uri or the endpoint")


def line_of(exc: BaseException) -> str:
    """On one line; of an answer in XML its code and what it says."""
    text = str(exc).partition("\n\nDebug source")[0]
    head, answer, _ = re.sub(r"\s*<\?xml[^>]*>\s*<Error>", "<Error>", text).partition("<Error>")
    if answer:
        said = re.findall(r"<(?:Code|Message)>([^<\n]*)", text)
        text = f"{head} {': '.join(said)}"
    return " ".join(text.split())


def _code_in(text: str) -> str:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else ""
