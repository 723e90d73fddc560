import pytest

from bundles import make_bundle


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(session_cache, monkeypatch):
    """A cache of our own, shared by these tests: a model is converted once."""
    monkeypatch.setenv("LABELMILL_CACHE", str(session_cache))
    return session_cache


@pytest.fixture(scope="session")
def tiny_registry(tmp_path_factory):
    return str(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_registry):
    return make_bundle(tiny_registry)
