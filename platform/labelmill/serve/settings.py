"""What a replica is told about its endpoint. Made of the spec on the driver; holds no secret."""

from dataclasses import dataclass
from typing import Self

from labelmill.model.engines import EngineName, PrecisionName
from labelmill.serve.auth import digest_key, loopback_hosts
from labelmill.spec import ServeSpec
from labelmill.storage import open_store

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    name: str
    registry: str
    model: str
    engine: EngineName
    precision: PrecisionName
    max_batch_size: int
    batch_wait_s: float
    max_request_bytes: int
    max_pixels: int
    key_digests: tuple[str, ...]
    hosts: frozenset[str]  # the Host headers answered where there are no keys

    @classmethod
    def of(cls, spec: ServeSpec) -> Self:
        return cls(
            name=spec.name,
            registry=open_store(spec.registry).uri,  # absolute: a replica has a working folder of its own
            model=spec.model,
            engine=spec.engine,
            precision=spec.precision,
            max_batch_size=spec.batch.max_size,
            batch_wait_s=spec.batch.wait_ms / 1000,
            max_request_bytes=spec.max_request_bytes,
            max_pixels=spec.max_pixels,
            key_digests=tuple(digest_key(key.get_secret_value()) for key in spec.api_keys),
            hosts=loopback_hosts(spec.host, spec.port),
        )

    @property
    def max_requests(self) -> int:
        """How many requests a replica takes on at once: enough for the next batches to fill while one is worked on."""
        return max(64, 4 * self.max_batch_size)

    @property
    def max_bytes(self) -> int:
        """How much of their bodies it holds in memory at once."""
        return max(256 * 2**20, 4 * self.max_request_bytes)
