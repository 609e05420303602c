"""Output and exit codes of all commands: aligned text or JSON, times in the portal's time zone."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NoReturn
from zoneinfo import ZoneInfo

import click
from flask.cli import AppGroup

from portal.domain.address import printable
from portal.domain.json_values import plain
from portal.faults import exit_with
from portal.running import portal

CLOSED_PIPE = 141  # a shell's exit code for SIGPIPE
INTERRUPTED = 130  # … and SIGINT
_LONGEST_CELL = 400  # characters
_EVERY = 10_000  # lines between two updates of the progress

as_text_or_json = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="Output format.", show_default=True
)


class CommandGroup(AppGroup):
    """Commands in the application's context: errors are one line, a closed pipe and Ctrl-C end quietly."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command of the group."""
        with _proper_end():
            return super().invoke(ctx)


class SingleCommand(click.Command):
    """A command outside any group, which ends as those in a group do."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        with _proper_end():
            return super().invoke(ctx)


@contextmanager
def _proper_end() -> Iterator[None]:
    """Turn errors into exit codes, and check that the output was written."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        click.echo("error: interrupted", err=True)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:  # the reader has closed the pipe, or the disk is full
        _end_without_stdout(error)
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except Exception as error:
        exit_with(error)


def _end_without_stdout(error: OSError) -> NoReturn:
    """Exit without letting Python try again to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        raise SystemExit(CLOSED_PIPE) from None
    exit_with(error)


def print_message(text: str) -> None:
    """Print a line for a person on stderr; stdout contains only the requested data."""
    click.echo(printable(text, limit=1_000), err=True)


def print_dry_run() -> None:
    """Print, after everything else, that a dry run has changed nothing."""
    print_message("dry run: nothing was changed")


def print_json(value: object) -> None:
    """Print a value as JSON, times in UTC."""
    click.echo(json.dumps(plain(value), indent=2))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in aligned columns, numbers to the right."""
    rows = list(rows)
    cells = [list(headings), *([cell_text(each) for each in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    is_number = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in range(len(widths))]
    for row in cells:
        aligned = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, is_number, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | None) and not isinstance(value, bool)


def cell_text(value: object) -> str:
    """Return a cell's text on one line; values are separated by semicolons, which group names cannot contain."""
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return "; ".join(map(cell_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return moment(value) if isinstance(value, datetime) else printable(str(value), limit=_LONGEST_CELL)


def zone() -> ZoneInfo:
    """Return the time zone for displayed times."""
    return ZoneInfo(portal().settings.timezone)


def moment(at: datetime) -> str:
    """Return a time in the portal's time zone."""
    return f"{at.astimezone(zone()):%Y-%m-%d %H:%M %Z}"


def write_lines(blocks: Iterable[Sequence[str]]) -> None:
    """Write texts to stdout, one a line, a block at a time as they come."""
    stream = sys.stdout.buffer
    for block in blocks:
        if block:
            stream.write(("\n".join(block) + "\n").encode())
    stream.flush()


def watched(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Return lines, showing their number on a terminal while they are read."""
    return _counted(lines) if sys.stderr.isatty() else lines


def _counted(lines: Iterable[bytes]) -> Iterator[bytes]:
    number = 0
    for number, line in enumerate(lines, start=1):
        if number % _EVERY == 0:
            click.echo(f"\r{number:,} lines", nl=False, err=True)
        yield line
    if number >= _EVERY:
        click.echo(f"\r{number:,} lines", err=True)
