"""Command line: `qrhead rank-many`, bulk ranking."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import EngineOption, OrderOption, err, print_json, progress
from qr_core.cli.flat import names_in
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Workers


def rank_many(
    input_: Annotated[
        Path,
        typer.Option("--input", help=".jsonl or .parquet of query, documents and optionally id; .gz is unpacked."),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results; an interrupted run goes on there.")],
    scorer: ScorerOptions,
    workers: Workers,
    engine: EngineOption = "local",
    format_: Annotated[
        str, typer.Option("--format", help="Of the results.", metavar=names_in("qr_core.bulk.formats:FORMATS"))
    ] = "parquet",
    top_k: Annotated[int | None, typer.Option(help="At most this many hits a job, the best. Default: all.")] = None,
    order: OrderOption = "given",
    part_size: Annotated[int, typer.Option(help="Jobs of a part, which is done as a whole.", min=1)] = 100,
) -> None:
    """Bulk ranking: a file of jobs, each a query with its documents, into a folder. A failed job has an error there."""
    from qr_core.bulk.run import rank_file

    with progress("jobs") as show:
        summary = rank_file(
            input_,
            output,
            scorer=scorer,
            top_k=top_k,
            order=order,
            format=format_,
            engine=engine,
            part_size=part_size,
            workers=workers,
            progress=show,
        )
    if summary.failed:
        err.print(f"{summary.failed} of {summary.jobs} jobs have an error instead of hits", soft_wrap=True)
    print_json({"output": str(output), **asdict(summary)})
