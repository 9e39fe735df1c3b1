"""Command line: `qrhead rank`."""

from __future__ import annotations

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
    progress,
    scorer_of,
)
from qr_core.display.terminal import plain, show_ranking
from qr_core.options import ScorerOptions


def rank(
    query: Query,
    scorer: ScorerOptions,
    docs: Docs = None,
    folder: Folder = None,
    top_k: Annotated[int | None, typer.Option(help="At most this many, the best. Default: all.")] = None,
    order: OrderOption = "given",
    format_: FormatOption = "table",
) -> None:
    """Rank documents for a query, best first."""
    documents = documents_of(docs, folder)
    with progress("encoding", tokens=True) as show:
        ranking = scorer_of(scorer).rank(query, documents, top_k=top_k, order=order, progress=show)
    if format_ == "json":
        print_json(ranking.to_dict())
    else:
        segments = f" in {ranking.segments} segments" if ranking.segments > 1 else ""
        about = f"{len(documents)} documents{segments}, model {ranking.model}, heads {ranking.heads}"
        err.print(plain(about), soft_wrap=True)
        show_ranking(out, ranking)
