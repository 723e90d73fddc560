"""When a cloud's own chain (environment, profile, web identity, instance) is asked for keys, and when anew.

A refusal that lies with the keys says nothing of the object that was asked for, and others may have come since: a file
is read once, a process that gives keys may say for how long they are good and be wrong, a session is revoked. So the
whole chain is asked once more, by whoever is refused first, and not again for a while.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from labelmill.errors import CredentialsError

__all__ = ["Environment", "current_environment", "is_of_the_keys", "renewed_since", "with_keys_that_hold"]

T = TypeVar("T")

Environment = tuple[tuple[str, str], ...]

_AGAIN_AFTER_S = 30.0
_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")
# Codes of S3, of the servers that speak its protocol, of STS, Google and Azure: AccessDenied is not among them, as it
# may be for one object alone.
_OF_THE_KEYS = frozenset({
    "AuthFailure", "AuthenticationFailed", "AuthenticationRequired", "CredentialsNotSupported", "ExpiredToken",
    "ExpiredTokenException", "InvalidAccessKeyId", "InvalidAuthenticationInfo", "InvalidClientTokenId",
    "InvalidSecurity", "InvalidToken",
    "MissingAuthenticationToken", "MissingSecurityHeader", "NotSignedUp", "RequestExpired", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "Unauthorized", "UnrecognizedClientException", "UserSuspended",
})  # fmt: skip


def current_environment() -> Environment:
    """What decides which keys the chain gives now; sessions and clients are kept for as long as it stays the same."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith(_VARIABLES))
    return (*variables, ("", str(_chain.number)))


def renewed_since(environment: Environment) -> bool:
    """Whether there may be other keys than those of `environment`, which were refused: the chain is asked anew then,
    unless it was a moment ago."""
    return _chain.renew(int(environment[-1][1]))


def with_keys_that_hold(ask: Callable[[], T], environment: Environment, forget: Callable[[], None]) -> T:
    """What `ask` gives, with the keys of `environment`; where those are refused and there may be others, `forget` is
    called, and `ask` once more."""
    try:
        return ask()
    except CredentialsError:
        if not renewed_since(environment):
            raise
    forget()
    return ask()


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
