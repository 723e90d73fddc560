import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from bundles import make_bundle
from labelmill.model.registry import Registry
from labelmill.serve.app import build_app
from labelmill.serve.auth import digest_key
from labelmill.serve.following import Asked, Follower, follow
from labelmill.serve.metrics import Metrics
from labelmill.serve.settings import Settings
from labelmill.spec import ServeSpec

LABELS = ("cat", "dog", "<img src=x onerror=alert(1)>")


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """Makes a PNG of 60 x 40 pixels, another one for every seed."""

    def make(seed: int = 0) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def endpoint_registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with tiny@1 and tiny@2; nobody moves its alias `current`, which is version 1."""
    uri = str(tmp_path_factory.mktemp("registry"))
    for seed in (1, 2):
        make_bundle(uri, name="tiny", task="multi_label", labels=LABELS, seed=seed)
    Registry(uri).promote("tiny@1")
    return uri


@pytest.fixture
def endpoint_settings(endpoint_registry: str) -> Settings:
    spec = ServeSpec(kind="serve", name="tiny-api", registry=endpoint_registry, model="tiny@current")
    return Settings.of(spec)


@pytest.fixture
def open_endpoint(endpoint_settings: Settings, loaded_once: Follower) -> Iterator[Callable[..., SimpleNamespace]]:
    """Start the app with settings changed as given: .app, .client, .follower, .metrics, .settings."""
    clients = []

    def open_it(follower: Follower | None = None, *, keys: tuple[str, ...] = (), **changes) -> SimpleNamespace:
        settings = replace(endpoint_settings, key_digests=tuple(map(digest_key, keys)), **changes)
        metrics = Metrics()
        follower = follower or Follower(loaded_once._find, lambda wanted: loaded_once.model)
        app = build_app(settings, follower, metrics)
        client = TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
        clients.append(client)
        client.__enter__()
        return SimpleNamespace(app=app, client=client, follower=follower, settings=settings, metrics=metrics)

    yield open_it
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def loaded_once(endpoint_registry: str) -> Follower:
    spec = ServeSpec(kind="serve", name="tiny-api", registry=endpoint_registry, model="tiny@current")
    follower = follow(Settings.of(spec), Asked(spec.model), lambda outcome: None)
    follower.stop()
    return follower
