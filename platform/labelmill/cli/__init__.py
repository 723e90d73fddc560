"""The command line. It alone writes to the terminal; commands import what they need when they run.

A module a group of commands: `jobs` are those that take a spec, `models` and `labels` are named as they are typed.
"""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from labelmill import __version__
from labelmill.cli.deploy import deploy_command
from labelmill.cli.jobs import jobs
from labelmill.cli.labels import labels
from labelmill.cli.models import models
from labelmill.cli.nights import nights_command
from labelmill.cli.output import put
from labelmill.cli.submitted import submitted
from labelmill.ending import Ending, ended_by_signals
from labelmill.errors import LabelmillError, SpecError
from labelmill.machine import on_this_machine
from labelmill.terminal import lost_output, own_streams, printable, printable_lines

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
app.add_typer(submitted)
app.add_typer(models, name="models")
app.add_typer(labels, name="labels")
app.command("deploy")(deploy_command)
app.command("nights")(nights_command)

# Which typer does not name: each mistake in a command line is one.
_WrongCommandLine: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """The entry point: an error of ours is one message on stderr, anything else is a bug and shows its traceback."""
    with own_streams(), ended_by_signals() as ending:
        try:
            code = _run(ending)
        except BaseException:
            if not ending.signal:
                raise
            code = _end(ending)
        if ending.signal:  # a library's thread that still is in C++ would crash while Python takes itself down
            atexit._run_exitfuncs()
            os._exit(code)
    sys.exit(code)


def _end(ending: Ending) -> int:
    if isinstance(ending.error, LabelmillError):
        return _complain(ending.error.args, ending.error.exit_code)
    assert ending.signal
    sys.stdout.flush()
    put(f"stopped by {ending.signal.name}", err=True)
    return 128 + ending.signal


def _run(ending: Ending) -> int:
    """The exit code. A command that shows something prints it; one that does something returns what it says of it."""
    try:
        with on_this_machine(), typer.main.get_command(app).make_context("labelmill", sys.argv[1:]) as context:
            said = context.command.invoke(context)
        if isinstance(said, str):
            _say(said)
            return 0  # it is done, whether or not anybody hears of it
    except typer.Exit as exc:
        if exc.exit_code:
            return int(exc.exit_code)
    except _WrongCommandLine as exc:
        return _complain([_what_to_write(exc)], SpecError.exit_code)
    except LabelmillError as exc:
        if ending.signal:
            raise  # it is what the signal has come to
        return _complain(exc.args, exc.exit_code)
    return _told()


def _say(text: str) -> None:
    if text:
        put(printable_lines(text))


def _what_to_write(exc: Any) -> str:
    said = exc.format_message()
    command = exc.ctx.command_path if exc.ctx else "labelmill"
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} See `{command} --help`."


def _complain(lines: Sequence[object], exit_code: int) -> int:
    sys.stdout.flush()
    put("error: " + "\n  ".join(printable(str(line)) for line in lines), err=True)
    return exit_code


def _told() -> int:
    """Whether what a command is for has been written. A reader that goes away has seen what it wanted."""
    lost = lost_output()
    if lost is None or isinstance(lost, BrokenPipeError):
        return 0
    return _complain([f"the output could not be written: {lost.strerror}"], LabelmillError.exit_code)


@app.callback(invoke_without_command=True)
def labelmill(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        put(f"labelmill {__version__}")
    elif context.invoked_subcommand is None:
        put(context.get_help())
