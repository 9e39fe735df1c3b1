"""Command line: `qrhead explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import (
    Docs,
    Folder,
    FormatOption,
    OrderOption,
    Query,
    documents_of,
    err,
    out,
    print_json,
    scorer_of,
)
from qr_core.display.terminal import plain
from qr_core.files.replace import check_writable
from qr_core.options import ScorerOptions


def explain(
    query: Query,
    scorer: ScorerOptions,
    docs: Docs = None,
    folder: Folder = None,
    page: Annotated[Path | None, typer.Option("--out", help="Write an HTML page here.")] = None,
    top_k: Annotated[int, typer.Option(help="Explain at most this many documents, the best.", min=1)] = 20,
    words: Annotated[int, typer.Option(help="Strongest words shown in the terminal.", min=1)] = 12,
    order: OrderOption = "given",
    format_: FormatOption = "table",
) -> None:
    """Rank documents and show which words drew the attention."""
    if page is not None:
        check_writable(page)
    documents = documents_of(docs, folder)
    found = scorer_of(scorer).explain(query, documents, top_k=top_k, order=order)
    if page is not None:
        found.save_html(page)
        err.print(f"wrote {plain(str(page))}", soft_wrap=True)
    if format_ == "json":
        print_json(found.to_dict())
    elif page is None:
        found.show(out, words)
