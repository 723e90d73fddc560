import socket

import pytest

from labelmill.errors import ClusterError, RegistryError, StorageError
from labelmill.serve import server
from labelmill.spec import LoadedSpec, ServeSpec


def loaded(registry: str, **fields) -> LoadedSpec:
    spec = ServeSpec(kind="serve", name="tiny-api", registry=registry, **{"model": "tiny@current", **fields})
    return LoadedSpec(spec=spec, source={}, path="serve.yaml")


@pytest.fixture
def no_ray(monkeypatch):
    """Fails the test when it gets as far as starting Ray."""
    monkeypatch.setattr(server, "connect", lambda **options: pytest.fail("Ray was started"))


def test_taken_port_is_told_before_ray_starts(endpoint_registry, no_ray):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            server.run(loaded(endpoint_registry, port=port))


def test_address_of_another_machine_is_told_before_ray_starts(endpoint_registry, no_ray):
    with pytest.raises(ClusterError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        server.run(loaded(endpoint_registry, host="192.0.2.1", api_keys=("k",)))


def test_model_that_is_not_there_is_told_before_ray_starts(endpoint_registry, no_ray):
    with pytest.raises(RegistryError, match="tiny"):
        server.run(loaded(endpoint_registry, model="tinny@current"))


def test_cache_that_cannot_be_written_is_told_before_ray_starts(endpoint_registry, no_ray, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", "/proc/nowhere")
    with pytest.raises(StorageError, match="Set LABELMILL_CACHE"):
        server.run(loaded(endpoint_registry))


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:9/"), ("0.0.0.0", "http://127.0.0.1:9/"), ("::1", "http://[::1]:9/")],
)
def test_page_address_can_be_clicked(host, address):
    spec = ServeSpec(kind="serve", name="a", registry="/r", model="a@1", host=host, port=9, api_keys=("k",))
    assert server._page_address(spec) == address
