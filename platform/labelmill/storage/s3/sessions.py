"""With whose keys S3 is asked: those of boto3's chain (environment, profile, web identity, instance), or without any.

Who has none, or says AWS_SKIP_SIGNATURE=true, reads what is open to everybody. AWS_REQUEST_PAYER=requester says that
whoever asks pays, as buckets want it whose owners do not. Both are names that object_store takes, and so do we.
"""

from functools import lru_cache
from typing import Any

import boto3

from labelmill.storage.credentials import Environment

__all__ = ["NO_KEYS", "keys_of", "requester_pays", "session_for"]

_YES = ("true", "1", "yes", "on")
NO_KEYS = (
    "expected credentials for S3, found none, and this is not open to everybody: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the instance a role"
)


@lru_cache(maxsize=4)
def session_for(environment: Environment) -> Any:
    region = dict(environment).get("AWS_REGION")  # which boto3 does not read, while pods on EKS have it
    session = boto3.Session()
    return session if session.region_name else boto3.Session(region_name=region or "us-east-1")


@lru_cache(maxsize=4)  # where there are none, the chain would be walked again each time, to its slow end
def keys_of(environment: Environment) -> Any:
    """botocore's credentials; None: nothing is signed."""
    if dict(environment).get("AWS_SKIP_SIGNATURE", "").lower() in _YES:
        return None
    return session_for(environment).get_credentials()


def requester_pays(environment: Environment) -> bool:
    return dict(environment).get("AWS_REQUEST_PAYER", "").lower() in (*_YES, "requester")
