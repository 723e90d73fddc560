"""With whose keys S3 is asked: those of boto3's chain (environment, profile, web identity, instance), and when anew.

A refusal that lies with the keys says nothing of the object that was asked for, and others may have come since: a file
is read once, a process that gives keys may say for how long they are good and be wrong, a session is revoked. So the
whole chain is asked once more, by whoever is refused first, and not again for a while.
"""

import os
import threading
import time
from functools import lru_cache
from typing import Any

import boto3

from labelmill.errors import CredentialsError

__all__ = ["Environment", "credentials_of", "current_environment", "is_of_the_keys", "renewed_since", "session_for"]

Environment = tuple[tuple[str, str], ...]

_AGAIN_AFTER_S = 30.0
# Codes of S3, of the servers that speak its protocol, and of STS: AccessDenied is not among them, as it may be for one
# object alone.
_OF_THE_KEYS = frozenset({
    "AuthFailure", "AuthenticationFailed", "AuthenticationRequired", "CredentialsNotSupported", "ExpiredToken",
    "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity", "InvalidToken",
    "MissingAuthenticationToken", "MissingSecurityHeader", "NotSignedUp", "RequestExpired", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "Unauthorized", "UnrecognizedClientException", "UserSuspended",
})  # fmt: skip


def current_environment() -> Environment:
    """What decides which keys the chain gives now; sessions and clients are kept for as long as it stays the same."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return (*variables, ("", str(_chain.number)))


def renewed_since(environment: Environment) -> bool:
    """Whether there may be other keys than those of `environment`, which were refused: the chain is asked anew then,
    unless it was a moment ago."""
    return _chain.renew(int(environment[-1][1]))


@lru_cache(maxsize=4)
def session_for(environment: Environment) -> Any:
    region = dict(environment).get("AWS_REGION")  # which boto3 does not read, while pods on EKS have it
    session = boto3.Session()
    return session if session.region_name else boto3.Session(region_name=region or "us-east-1")


def credentials_of(session: Any) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise CredentialsError(
            "expected credentials for S3, found none: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or give the instance a role"
        )
    return credentials


def is_of_the_keys(code: str) -> bool:
    """Whether a refusal with this code lies with the keys, or with the clock of who signs with them."""
    return code in _OF_THE_KEYS


class _Chain:
    """How often this process has asked the whole chain anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self.number = 0

    def renew(self, number: int) -> bool:
        with self._lock:
            if self.number == number:
                if time.monotonic() < self._asked_at + _AGAIN_AFTER_S:
                    return False
                self._asked_at = time.monotonic()
                self.number += 1
            return True


_chain = _Chain()
