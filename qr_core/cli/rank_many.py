"""Command line: `qrhead rank-many`.

Knows nothing of how jobs are read or run: options become one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from qr_core.cli.common import (
    CpusPerWorker,
    Device,
    DeviceMap,
    DocumentOrder,
    Dtype,
    EngineChoice,
    EngineOption,
    GpusPerWorker,
    Heads,
    LayoutOption,
    Mismatch,
    Model,
    OrderOption,
    RayAddress,
    RemoteCode,
    Revision,
    TemplateOption,
    Window,
    WorkersOption,
    err,
    print_json,
)


class BulkFormatChoice(str, Enum):
    """How results are written."""

    parquet = "parquet"
    jsonl = "jsonl"
    trec = "trec"


def rank_many(
    input_: Annotated[
        Path,
        typer.Option("--input", help=".jsonl or .parquet of query, documents and id (not needed); .gz is unpacked."),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results; an interrupted run goes on there.")],
    engine: EngineOption = EngineChoice.local,
    format_: Annotated[BulkFormatChoice, typer.Option("--format", help="Of the results.")] = BulkFormatChoice.parquet,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    layout: LayoutOption = None,
    top_k: Annotated[int | None, typer.Option(help="Only the best so many. Default: all.")] = None,
    order: OrderOption = DocumentOrder.given,
    part_size: Annotated[int, typer.Option(help="Jobs of a part, which is done as a whole.", min=1)] = 100,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = 1,
    ray_address: RayAddress = None,
    max_prompt_tokens: Window = None,
    revision: Revision = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    allow_model_mismatch: Mismatch = False,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Rank a file of jobs, each a query with its documents, into a folder. A job that fails has an error instead."""
    from qr_core.bulk.run import rank_file
    from qr_core.parallel.pool import Workers

    scorer = {
        "model": model,
        "heads": heads,
        "template": template.value if template else None,
        "layout": layout.value if layout else None,
        "revision": revision,
        "device": device,
        "device_map": device_map,
        "dtype": dtype,
        "max_prompt_tokens": max_prompt_tokens,
        "allow_model_mismatch": allow_model_mismatch,
        "trust_remote_code": trust_remote_code,
    }
    with _jobs() as progress:
        summary = rank_file(
            input_,
            output,
            scorer=scorer,
            top_k=top_k,
            order=order.value,
            format=format_.value,
            engine=engine.value,
            part_size=part_size,
            workers=Workers(workers, gpus_per_worker, cpus_per_worker, ray_address),
            progress=progress,
        )
    if summary.failed:
        err.print(f"{summary.failed} of {summary.jobs} jobs have an error instead of hits", soft_wrap=True)
    print_json({"output": str(output), **asdict(summary)})


@contextmanager
def _jobs() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, where that is a terminal; it leaves no trace."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("jobs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
