"""Command-line parts that several commands share: options, consoles, progress, and how answers are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qr_core.checks import encodable
from qr_core.display.terminal import SafeConsole, plain, safe_lines
from qr_core.errors import InputError
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Engine
from qr_core.types import Document, Order

if TYPE_CHECKING:
    from qr_core.scorer import QRScorer

out = SafeConsole(highlight=False, markup=False)
err = SafeConsole(stderr=True, highlight=False, markup=False)
SHOWN_FROM = 10_000
"""A progress bar of tokens appears where there are more of them than this."""

Query = Annotated[str, typer.Option(help="What to look for.")]
Docs = Annotated[
    str | None, typer.Option(help=".jsonl (id, title, text) or .txt (one document a line), also .gz; - is stdin.")
]
Folder = Annotated[Path | None, typer.Option("--dir", help="Every text file below this folder.")]
OrderOption = Annotated[
    Order, typer.Option(help="reversed: the first document stands nearest the query, for retrieved lists.")
]
EngineOption = Annotated[Engine, typer.Option(help="ray: an actor pool, on one machine or many.")]
HeadSetName = Annotated[str, typer.Argument(help="A published set or a head-set file.")]
Format = Literal["table", "json"]
FormatOption = Annotated[Format, typer.Option("--format", help="Table for people, JSON for programs.")]


def documents_of(docs: str | None, folder: Path | None) -> list[Document]:
    """The documents of `--docs` or `--dir`; files of a folder that are not text are named on standard error."""
    from qr_core.files.inputs import read_documents, read_folder

    if docs is not None and folder is None:
        return read_documents(docs)
    if folder is None or docs is not None:
        raise InputError("pass documents with either --docs or --dir")
    documents, left_out = read_folder(folder)
    if left_out:
        named = ", ".join(plain(str(path), 60) for path in left_out[:5])
        err.print(f"left out {len(left_out)} files that are not UTF-8 text: {named}", soft_wrap=True)
    return documents


def scorer_of(options: ScorerOptions) -> QRScorer:
    """The scorer that options describe."""
    from qr_core.scorer import QRScorer  # imports torch: not before it is needed

    return QRScorer.from_options(options)


@contextmanager
def progress(what: str, tokens: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; it leaves no trace.

    Parameters
    ----------
    what : str
        What is counted.
    tokens : bool
        Tokens are counted: their number is an estimate, and few of them need no bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = TextColumn("{task.completed:,.0f} of about {task.total:,.0f} tokens") if tokens else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(plain(what), total=None, visible=not tokens)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=not tokens or total > SHOWN_FROM)

        yield show


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object. Everything but ASCII is escaped, so no text in it can steer a terminal."""
    typer.echo(json.dumps(value))


def print_text(text: str) -> None:
    """Print text as it is, and to a terminal, whatever rich is told to take it for, without what could steer it."""
    typer.echo(safe_lines(text) if sys.stdout.isatty() or out.is_terminal else encodable(text))
