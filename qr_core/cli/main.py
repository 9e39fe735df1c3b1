"""Command line: `qrhead`, and its commands in the order in which help lists them.

Answers go to standard output, as a table for people or one JSON object for programs; progress and errors go to
standard error. Bad input ends with status 2 and one line.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from qr_core.cli import cache, heads
from qr_core.cli.bench import bench
from qr_core.cli.common import err
from qr_core.cli.demo import demo
from qr_core.cli.detect import detect
from qr_core.cli.evaluate import evaluate
from qr_core.cli.explain import explain
from qr_core.cli.flat import Command, flat
from qr_core.cli.prune import ask, prune
from qr_core.cli.rank import rank
from qr_core.cli.rank_many import rank_many
from qr_core.cli.serve import serve
from qr_core.display.terminal import plain, safe_lines
from qr_core.errors import QRHeadError
from qr_core.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {
    "rank": rank,
    "prune": prune,
    "ask": ask,
    "explain": explain,
    "serve": serve,
    "rank-many": rank_many,
    "detect": detect,
    "eval": evaluate,
    "bench": bench,
    "heads list": heads.heads_list,
    "heads show": heads.heads_show,
    "heads map": heads.heads_map,
    "heads compare": heads.heads_compare,
    "heads mask-test": heads.heads_mask_test,
    "cache show": cache.show,
    "cache purge": cache.purge,
    "demo": demo,
}

app = typer.Typer(
    name="qrhead",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Rank documents and prune context by the attention of a language model's query-focused heads.",
)
heads_app = typer.Typer(
    invoke_without_command=True, callback=heads.heads_main, rich_markup_mode=None, help="Published head sets."
)
cache_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Folders of encoded documents.")
app.add_typer(heads_app, name="heads")
app.add_typer(cache_app, name="cache")
for place, function in COMMANDS.items():
    *group, name = place.split()
    owner = {"heads": heads_app, "cache": cache_app}[group[0]] if group else app
    owner.command(name, cls=Command)(flat(function, place))


STOPPED_BY = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"qrhead {__version__}")
        raise typer.Exit


class _SafeFormatter(logging.Formatter):
    """Names from files and configs are logged without what could steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return safe_lines(super().format(record))


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is loaded, to standard error.")] = False,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options of every command."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
KERNELS = "64"
"""Shapes for which torch keeps prepared kernels on a CPU, instead of 1024 each: every prompt has shapes of its own, and
each costs about a megabyte. Read by torch at its first product; the user's own values stay."""


def main() -> None:
    """Run the command line; bad input is one line on standard error and status 2."""
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, KERNELS)
    before = {number: signal.signal(number, _stop) for number in STOPPED_BY}
    try:
        sys.exit(app(standalone_mode=False))
    except QRHeadError as error:
        err.print(f"qrhead: {plain(str(error))}", soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # of a file that nothing nearer has words for
        named = f"{error.filename}: " if error.filename else ""
        err.print(f"qrhead: {plain(f'{named}{error.strerror or error}')}", soft_wrap=True)
        sys.exit(2)
    except typer.Abort:
        typer.echo("Aborted!", err=True)
        sys.exit(1)
    except Exception as error:
        sys.exit(_told(error))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(error: Exception) -> int:
    """Write a usage error, or the traceback of a fault of ours, without what could steer the terminal; its status."""
    text, status = io.StringIO(), getattr(error, "exit_code", 1)
    # Typer's usage errors are click's or its own, by its version; only they can show themselves.
    if show := getattr(error, "show", None):
        show(file=text)
    else:
        traceback.print_exception(error, file=text)
    typer.echo(safe_lines(text.getvalue()), err=True, nl=False)
    return int(status)


def _stop(number: int, _: object) -> None:
    """End as an error does: temporary files are removed and locks let go of."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
