"""Pictures that crash or hang the process that decodes them.

No such picture for today's decoders is known, or it would be reported and mended. So a decoder is made harmful: a
`sitecustomize` module on PYTHONPATH, which every Python started from here imports, makes libjpeg-turbo die, or
never return, when a picture's bytes end in one of these words.
"""

from pathlib import Path

__all__ = ["CRASH", "EXIT", "HANG", "make_decoder_harmful"]

CRASH, EXIT, HANG = b"please crash", b"please exit", b"please hang"

_SITECUSTOMIZE = '''
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder


class Harm(MetaPathFinder):
    """Changes simplejpeg as it is imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "simplejpeg":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            decode = module.decode_jpeg

            def harmful(data, *args, **kwargs):
                import ctypes, os
                if data.endswith(b"please crash"):
                    ctypes.string_at(0)
                if data.endswith(b"please exit"):
                    os._exit(3)
                if data.endswith(b"please hang"):
                    ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock, as C code may
                return decode(data, *args, **kwargs)

            module.decode_jpeg = harmful

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Harm())
'''


def make_decoder_harmful(folder: Path) -> str:
    """Write the module into `folder` and return the PYTHONPATH that brings it in."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return str(folder)
