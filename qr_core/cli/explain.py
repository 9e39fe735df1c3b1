"""Command line of explanations: `qrhead explain`.

Knows nothing of how they are made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import (
    Device,
    DocumentOrder,
    Dtype,
    Format,
    FormatOption,
    Heads,
    Mismatch,
    Model,
    RemoteCode,
    Revision,
    TemplateOption,
    documents_of,
    err,
    make_scorer,
    out,
    print_json,
)
from qr_core.display.terminal import plain
from qr_core.errors import InputError


def explain(
    query: Annotated[str, typer.Option(help="What to look for.")],
    docs: Annotated[
        str | None, typer.Option(help=".jsonl (id, title, text) or .txt (one document a line), also .gz; - is stdin.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Every text file below this folder.")] = None,
    page: Annotated[Path | None, typer.Option("--out", help="Write an HTML page here.")] = None,
    top_k: Annotated[int, typer.Option(help="Explain so many of the best.", min=1)] = 20,
    words: Annotated[int, typer.Option(help="Strongest words shown in the terminal.", min=1)] = 12,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    order: Annotated[
        DocumentOrder, typer.Option(help="reversed: the first document stands nearest the query.")
    ] = DocumentOrder.given,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Rank documents and show which words drew the attention."""
    from qr_core.explain import explanation as explaining

    documents = documents_of(docs, folder)
    scorer = make_scorer(
        model,
        heads,
        template,
        device,
        dtype,
        revision=revision,
        allow_model_mismatch=allow_model_mismatch,
        trust_remote_code=trust_remote_code,
    )
    found = explaining.explain(scorer, query, documents, top_k=top_k, order=order.value)
    if page is not None:
        try:
            found.save_html(page)
        except OSError as error:
            raise InputError(f"cannot write {page}: {error.strerror}") from error
        err.print(f"wrote {plain(str(page))}", soft_wrap=True)
    if format_ is Format.json:
        print_json(found.to_dict())
    elif page is None:
        found.show(out, words)
