"""With whose keys S3 is asked: those of boto3's chain (environment, profile, web identity, instance)."""

from functools import lru_cache
from typing import Any

import boto3

from labelmill.errors import CredentialsError
from labelmill.storage.credentials import Environment

__all__ = ["credentials_of", "session_for"]


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
