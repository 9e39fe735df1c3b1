"""Command line: `qrhead rank | prune | ask | explain | serve | rank-many | detect | heads | cache | eval | bench`.

Answers go to standard output, as a table for people or one JSON object for programs; progress and errors go to
standard error. Bad input ends with status 2 and one line. Knows nothing of how ranking works.
"""

from __future__ import annotations

import logging
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.bench import bench
from qr_core.cli.cache import cache_app
from qr_core.cli.common import (
    Device,
    DocumentCacheOption,
    DocumentOrder,
    Dtype,
    Format,
    FormatOption,
    Heads,
    LayoutOption,
    Mismatch,
    Model,
    OrderOption,
    RemoteCode,
    Revision,
    TemplateOption,
    Window,
    documents_of,
    err,
    make_scorer,
    out,
    print_json,
    reading,
)
from qr_core.cli.context import ask, prune
from qr_core.cli.detect import detect, heads_compare, heads_map, heads_mask_test
from qr_core.cli.evaluate import evaluate
from qr_core.cli.explain import explain
from qr_core.cli.rank_many import rank_many
from qr_core.cli.serve import serve
from qr_core.display.terminal import plain, show_ranking
from qr_core.errors import QRHeadError
from qr_core.version import __version__

app = typer.Typer(
    name="qrhead",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Rank documents and prune context by the attention of a language model's query-focused heads.",
)
heads_app = typer.Typer(no_args_is_help=False, rich_markup_mode=None, help="Published head sets.")
app.add_typer(heads_app, name="heads")
app.add_typer(cache_app, name="cache")
app.command("eval")(evaluate)
app.command("bench")(bench)
app.command("prune")(prune)
app.command("ask")(ask)
app.command("explain")(explain)
app.command("serve")(serve)
app.command("rank-many")(rank_many)
app.command("detect")(detect)
heads_app.command("map")(heads_map)
heads_app.command("compare")(heads_compare)
heads_app.command("mask-test")(heads_mask_test)


@app.command()
def rank(
    query: Annotated[str, typer.Option(help="What to look for.")],
    docs: Annotated[
        str | None, typer.Option(help=".jsonl (id, title, text) or .txt (one document a line), also .gz; - is stdin.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Every text file below this folder.")] = None,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    layout: LayoutOption = None,
    document_cache: DocumentCacheOption = None,
    top_k: Annotated[int | None, typer.Option(help="Only the best so many. Default: all.")] = None,
    order: OrderOption = DocumentOrder.given,
    calibrate: Annotated[
        bool | None, typer.Option("--calibrate/--no-calibrate", help="Subtract the N/A query. Default: the head set's.")
    ] = None,
    token_filter: Annotated[bool, typer.Option(help="Drop each document's lowest tokens.")] = True,
    max_prompt_tokens: Window = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Rank documents for a query, best first."""
    documents = documents_of(docs, folder)
    scorer = make_scorer(
        model,
        heads,
        template,
        device,
        dtype,
        layout=layout.value if layout else None,
        document_cache=document_cache,
        revision=revision,
        calibrate=calibrate,
        filter_tokens=token_filter,
        max_prompt_tokens=max_prompt_tokens,
        allow_model_mismatch=allow_model_mismatch,
        trust_remote_code=trust_remote_code,
    )
    with reading() as progress:
        ranking = scorer.rank(query, documents, top_k=top_k, order=order.value, progress=progress)
    if format_ is Format.json:
        print_json(ranking.to_dict())
    else:
        windows = f", read in {ranking.windows} windows" if ranking.windows > 1 else ""
        about = f"{len(documents)} documents{windows}, model {ranking.model}, heads {ranking.heads}"
        err.print(plain(about), soft_wrap=True)
        show_ranking(out, ranking)


@heads_app.callback(invoke_without_command=True)
def heads_main(context: typer.Context) -> None:
    """Without a subcommand: list."""
    if context.invoked_subcommand is None:
        heads_list()


@heads_app.command("list")
def heads_list(format_: FormatOption = Format.table) -> None:
    """List the head sets that ship with this package."""
    from qr_core.display.tables import table
    from qr_core.heads.sets import published

    if format_ is Format.json:
        rows = [
            {"name": n, "model": s.model, "heads": len(s.heads), "deepest": s.deepest, "default": s.default}
            for n, s in published().items()
        ]
        print_json({"head_sets": rows})
        return
    sets = table("name", "heads", "deepest layer", "default", "model", left=("default", "model"))
    sets.columns[0].no_wrap = True
    for name, found in published().items():
        depth = f"{found.deepest} of {found.config.layers - 1}"
        sets.add_row(name, str(len(found.heads)), depth, "yes" if found.default else "", found.model)
    out.print(sets)


@heads_app.command("show")
def heads_show(name: Annotated[str, typer.Argument(help="A published set or a head-set file.")]) -> None:
    """Print one head set with its provenance, as JSON."""
    from qr_core.heads.sets import HeadSet

    print_json(HeadSet.load(name).model_dump(exclude_none=True))


@app.command()
def demo() -> None:
    """Rank twenty sample support articles, and prune a house manual, with the embedded model."""
    from qr_core.files.inputs import documents_from_json_lines
    from qr_core.heads.pairs import format_pairs

    samples = files("qr_core.demo")
    documents = documents_from_json_lines(samples.joinpath("articles.jsonl").read_text("utf-8"), "articles.jsonl")
    questions = samples.joinpath("questions.txt").read_text("utf-8").splitlines()
    scorer = make_scorer(None, None, None, None, "auto")
    listed = format_pairs(sorted(scorer.heads.pairs()), ", ")
    out.print(f"Model {scorer.model_name} (inside the package, offline), reading heads {listed} (layer-head).")
    out.print(f"{len(documents)} support articles, ranked by the attention those heads pay them.\n")
    for ranking in scorer.rank_many((question, documents) for question in questions):
        out.print(f"Question: {ranking.query}", style="bold")
        show_ranking(out, ranking, limit=3)
        out.print()
    manual = samples.joinpath("manual.md").read_text("utf-8")
    for question in samples.joinpath("manual_questions.txt").read_text("utf-8").splitlines():
        kept = scorer.prune(question, manual, max_tokens=130, text_format="markdown", headings=True, ellipsis="[...]")
        out.print(
            f"House manual, {kept.total_tokens} tokens pruned to {kept.kept_tokens} for: {question}", style="bold"
        )
        out.print(kept.text, soft_wrap=False)
        out.print()
    out.print("Your own: qrhead rank --query '...' --dir FOLDER   or   --docs FILE.jsonl   (qrhead rank --help)")
    out.print("          qrhead prune --query '...' --file FILE.md --max-tokens 500        (qrhead prune --help)")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"qrhead {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is loaded, to standard error.")] = False,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options of every command."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


def main() -> None:
    """Run the command line; bad input is one line on standard error and status 2."""
    try:
        app()
    except QRHeadError as error:
        err.print(f"qrhead: {plain(str(error))}", soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
