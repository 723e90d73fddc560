"""Ray is imported once its settings are made, and what a job needs beside it while it starts."""

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType

__all__ = ["import_ray", "importing"]


def import_ray() -> ModuleType:
    return importlib.import_module("ray")


@contextmanager
def importing(modules: Sequence[str]) -> Iterator[None]:
    """Import modules in a thread for the time of the block: Ray's start is mostly waiting."""
    with ThreadPoolExecutor(1, "import") as beside:
        imported = [beside.submit(importlib.import_module, module) for module in modules]
        yield
        for module in imported:
            module.result()
