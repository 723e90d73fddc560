"""The command line. It alone writes to the terminal; commands import what they need when they run.

A module a group of commands: `jobs` are those that take a spec, `models` and `labels` are named as they are typed.
"""

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from labelmill import __version__
from labelmill.cli.jobs import jobs
from labelmill.cli.labels import labels
from labelmill.cli.models import models
from labelmill.cli.output import put
from labelmill.errors import LabelmillError, SpecError
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
app.add_typer(models, name="models")
app.add_typer(labels, name="labels")

_WrongCommandLine: Any = typer.BadParameter.__mro__[
    1
]  # which typer does not name: each mistake in a command line is one


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ended(SystemExit):
    """A signal that ends a process ends a command as an exception would: what is open is closed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


def main() -> None:
    """The entry point: an error of ours is one message on stderr, anything else is a bug and shows its traceback."""
    with own_streams():
        before = _take_signals()
        try:
            code = _run()
        except _Ended as exc:
            sys.stdout.flush()
            put(f"stopped by {exc.signal}", err=True)
            before = {}  # an impatient second signal would take the place of this one
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    sys.exit(code)


def _run() -> int:
    """The exit code. A command that shows something prints it; one that does something returns what it says of it."""
    try:
        with typer.main.get_command(app).make_context("labelmill", sys.argv[1:]) as context:
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


def _take_signals() -> dict[signal.Signals, Any]:
    """Returns the handlers of before. Nohup has one signal ignored, and that is left so."""
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)
    return before


def _end(number: int, _: object) -> None:
    for other in _ENDS:  # a second one would leave Ray's processes behind
        signal.signal(other, signal.SIG_IGN)
    raise _Ended(number)


@app.callback(invoke_without_command=True)
def labelmill(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        put(f"labelmill {__version__}")
    elif context.invoked_subcommand is None:
        put(context.get_help())
