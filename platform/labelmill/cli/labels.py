"""`labelmill labels`: what a label table holds, and its upkeep."""

from typing import Annotated, Any

import typer

from labelmill.cli.arguments import Group, ModelName, TableUri
from labelmill.cli.output import put
from labelmill.terminal import printable, printable_lines

__all__ = ["labels"]


class ShowUnlessTold(Group):
    """A group whose first argument may also be a table: `labels TABLE` is `labels show TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


_CENTURY_H = 876_600
_MOST_ROWS = 1_000_000

labels = typer.Typer(
    cls=ShowUnlessTold,
    help="Show a label table and keep it in order: `labelmill labels TABLE` shows it.\n\n"
    "Example: labelmill labels ./demo/labels --status unreadable",
    rich_markup_mode=None,
)


@labels.command("show")
def show_labels(
    table: TableUri,
    status: Annotated[str | None, typer.Option("--status", help="Only rows with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=_MOST_ROWS, help="How many rows to show.")] = 20,
    current: Annotated[
        bool,
        typer.Option("--current", help="One row a picture and model: of the last run's version, or of --model."),
    ] = False,
    model: ModelName = None,
) -> None:
    """Show a label table: its rows, statuses and label counts. `labelmill labels TABLE` is short for it.

    Example: labelmill labels show ./demo/labels --status unreadable --limit 5
    """
    from labelmill.cli.show import print_labels

    print_labels(table, status=status, limit=limit, current=current, model=model)


@labels.command("compact")
def compact_labels(table: TableUri) -> str:
    """Merge a table's small files, day by day, into files of up to 256 MiB.

    A run merges its own day when it ends; this is for tables that many short runs have written. Refused while a run is
    on the table. The files that were merged stay until a vacuum.

    Example: labelmill labels compact ./demo/labels
    """
    from labelmill.table.upkeep import compact

    done = compact(table)
    return f"{table}: {done.files_before:,} files before, {done.files_after:,} now"


@labels.command("vacuum")
def vacuum_labels(
    table: TableUri,
    older_than_h: Annotated[
        float,
        typer.Option(
            "--older-than-h", min=0, max=_CENTURY_H, help="Hours for which readers may still use an older version."
        ),
    ] = 168,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are only listed.")] = False,
) -> str | None:
    """List, or with --delete remove, the data files that a table needs no more.

    Those are files that were merged into others, and files of runs that died before they committed them. Refused while
    a run is on the table.

    Example: labelmill labels vacuum ./demo/labels --delete
    """
    from labelmill.table.upkeep import find_unneeded, vacuum

    files = (vacuum if delete else find_unneeded)(table, older_than_h=older_than_h)
    for file in files:
        put(printable(file.key))
    size = f"{len(files):,} files, {sum(file.size_bytes for file in files) / 2**20:,.1f} MiB"
    if delete:
        return f"{size} deleted"
    put(f"{size} to delete; --delete does it")
    return None


@labels.command("repair")
def repair_labels(
    table: TableUri,
    forget: Annotated[bool, typer.Option("--forget", help="Do it; without it they are only listed.")] = False,
) -> str | None:
    """List, or with --forget take out of the table, the data files that another program has deleted.

    Without them the table can be read again. The next run labels the pictures whose rows lay there. Refused while a run
    is on the table.

    Example: labelmill labels repair ./demo/labels --forget
    """
    from labelmill.table.upkeep import find_lost, repair

    files = (repair if forget else find_lost)(table)
    for file in files:
        put(printable(file.path))
    lost = f"{len(files):,} files of {sum(file.num_rows for file in files):,} rows"
    if forget:
        return f"{lost} forgotten"
    put(f"{lost} are gone or damaged; --forget takes what is gone out of the table")
    return None


@labels.command("view")
def view_labels(
    table: TableUri,
    dialect: Annotated[str, typer.Option("--for", metavar="ENGINE", help="duckdb, spark or trino")] = "duckdb",
) -> None:
    """Print what to paste into DuckDB, Spark or Trino for the current view: one row a picture and model.

    It names the versions of the models that the last runs used, and stays with them: print it anew after a promotion.

    Example: labelmill labels view ./demo/labels --for spark
    """
    from labelmill.table.table import LabelTable

    put(printable_lines(LabelTable(table).view_text(table, dialect).rstrip("\n")))
