"""Command-line parts that several commands share: options, consoles, and how a scorer is made from options.

Knows nothing of any one command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from qr_core.display.terminal import plain
from qr_core.errors import InputError
from qr_core.types import Document

if TYPE_CHECKING:
    from qr_core.prompts.templates import TemplateName
    from qr_core.scorer import QRScorer

out = Console(highlight=False, markup=False)
SHOWN_FROM = 10_000
"""Tokens from which on a progress bar appears."""
err = Console(stderr=True, highlight=False, markup=False)


class Format(str, Enum):
    """How an answer is printed."""

    table = "table"
    json = "json"


class DocumentOrder(str, Enum):
    """Which document stands nearest the query: the last one given, or the first."""

    given = "given"
    reversed = "reversed"


class TemplateChoice(str, Enum):
    """Prompt templates."""

    chat = "chat"
    reference = "reference"
    plain = "plain"


class LayoutChoice(str, Enum):
    """Whether documents share one prompt or are encoded apart."""

    joint = "joint"
    independent = "independent"


class EngineChoice(str, Enum):
    """Who does the work: this process, or workers on Ray."""

    local = "local"
    ray = "ray"


Model = Annotated[str | None, typer.Option(help="Hub id or folder of a model. Default: the embedded small model.")]
Heads = Annotated[
    str | None, typer.Option(help='A published set, a head-set file, "13-18,8-11" (layer-head), or "all".')
]
TemplateOption = Annotated[TemplateChoice | None, typer.Option(help="Prompt template. Default: the head set's.")]
LayoutOption = Annotated[
    LayoutChoice | None,
    typer.Option("--layout", help="independent: documents encoded apart, in linear time. Default: the head set's."),
]
DocumentCacheOption = Annotated[
    Path | None,
    typer.Option("--document-cache", help="Folder for encoded documents, with --layout independent. Private data."),
]
OrderOption = Annotated[
    DocumentOrder, typer.Option(help="reversed: the first document stands nearest the query, for retrieved lists.")
]
DeviceMap = Annotated[
    str | None, typer.Option(help="Spread each copy of the model over devices, for example auto. Needs accelerate.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Window = Annotated[
    int | None, typer.Option("--max-prompt-tokens", help="Read longer input in windows. Default: what the model takes.")
]
Mismatch = Annotated[
    bool, typer.Option("--allow-model-mismatch", help="Accept heads found for another model of the same shape.")
]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Let code from the model's repository run.")]
EngineOption = Annotated[EngineChoice, typer.Option("--engine", help="ray: an actor pool, on one machine or many.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="ray: how many hold the model. Default: as many as fit.", min=1)
]
GpusPerWorker = Annotated[
    float | None, typer.Option("--gpus-per-worker", help="ray: default 1 where there are any.", min=0)
]
CpusPerWorker = Annotated[int, typer.Option("--cpus-per-worker", help="ray: cores, and threads of torch.", min=1)]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="ray: the cluster. Default: RAY_ADDRESS, or one on this machine.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="Table for people, JSON for programs.")]


def documents_of(docs: str | None, folder: Path | None) -> list[Document]:
    """The documents of `--docs` or `--dir`; files of a folder that are no text are named on standard error."""
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


def make_scorer(
    model: str | None, heads: str | None, template: TemplateChoice | None, device: str | None, dtype: str, **more: Any
) -> QRScorer:
    """A scorer from command-line options."""
    from qr_core.scorer import QRScorer  # imports torch: not before it is needed

    chosen: TemplateName | None = template.value if template else None
    return QRScorer.from_pretrained(model, heads, template=chosen, device=device, dtype=dtype, **more)


@contextmanager
def reading() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, for input long enough to wait for; it leaves no trace."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of about {task.total:,.0f} tokens"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task("reading", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total > SHOWN_FROM)

        yield show


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object. Everything but ASCII is escaped, so no text in it can steer a terminal."""
    typer.echo(json.dumps(value))
