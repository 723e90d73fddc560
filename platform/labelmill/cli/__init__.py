"""The command line. It alone writes to the terminal; commands import what they need when they run.

A module a group of commands: `jobs` are those that take a spec, `models` and `labels` are named as they are typed.
"""

import os
import signal
import sys
from typing import Annotated, Any

import typer

from labelmill import __version__
from labelmill.cli.jobs import jobs
from labelmill.cli.labels import labels
from labelmill.cli.models import models
from labelmill.errors import LabelmillError
from labelmill.terminal import printable

__all__ = ["app", "main"]

# Plain help: boxes and colours are for terminals only, and importing them would double the time of `check`.
app = typer.Typer(
    name="labelmill",
    help="Train an image classifier, label an object store with it in bulk, serve the same model.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs)
app.add_typer(models, name="models")
app.add_typer(labels, name="labels")


class _Ended(BaseException):
    """A signal that ends a process ends a command as an exception would: what is open is closed on the way out."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def main() -> None:
    """The entry point: an error of ours is one message on stderr, anything else is a bug and shows its traceback."""
    before = _take_signals()
    try:
        app(prog_name="labelmill")
    except LabelmillError as exc:
        _flush()
        typer.echo(f"error: {printable(str(exc))}", err=True)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except _Ended as exc:
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    finally:
        _flush()
        for number, handler in before.items():
            signal.signal(number, handler)


def _take_signals() -> dict[signal.Signals, Any]:
    """Returns the handlers of before. Nohup has one signal ignored, and that is left so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, _end)
    return before


def _end(number: int, _: object) -> None:
    for other in (signal.SIGTERM, signal.SIGHUP):  # an impatient second one would leave Ray's processes behind
        signal.signal(other, signal.SIG_IGN)
    raise _Ended(number)


def _flush() -> None:
    """Nobody may be reading any more; the interpreter would complain of that at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def labelmill(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"labelmill {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
