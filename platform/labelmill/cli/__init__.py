"""The command line. It alone writes to the terminal; commands import what they need when they run.

A module a group of commands: `jobs` are those that take a spec, `models` and `labels` are named as they are typed.
"""

import atexit
import os
import sys
from typing import Annotated

import typer

from labelmill import __version__
from labelmill.cli.jobs import jobs
from labelmill.cli.labels import labels
from labelmill.cli.models import models
from labelmill.ending import ended_by_signals
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


def main() -> None:
    """The entry point: an error of ours is one message on stderr, anything else is a bug and shows its traceback."""
    with ended_by_signals() as ending:
        try:
            app(prog_name="labelmill")
        except BrokenPipeError:
            sys.exit(1)
        except BaseException as exc:
            error = ending.error or exc
            if ending.signal and not ending.error:
                line, exit_code = f"stopped by {ending.signal.name}", 128 + ending.signal
            elif isinstance(error, LabelmillError):
                line, exit_code = f"error: {printable(str(error))}", error.exit_code
            else:
                raise
            _flush()
            typer.echo(line, err=True)
            if ending.signal:
                _leave_at_once(exit_code)
            sys.exit(exit_code)
        finally:
            _flush()


def _leave_at_once(exit_code: int) -> None:
    """A library's thread that still is in C++ would crash while Python takes itself down."""
    atexit._run_exitfuncs()
    _flush()
    os._exit(exit_code)


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
