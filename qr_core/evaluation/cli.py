"""Command line of the evaluation: `qrhead eval --task beir`.

Reads a data set, ranks every pool with every system, prints the table, and writes pools, runs and metrics to a
folder. Knows nothing of how systems rank or metrics count.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from qr_core.cli_common import (
    Device,
    Dtype,
    Format,
    FormatOption,
    Heads,
    Model,
    TemplateOption,
    err,
    make_scorer,
    out,
    print_json,
)
from qr_core.errors import InputError


class Task(str, Enum):
    """What is evaluated."""

    beir = "beir"


class PoolOrder(str, Enum):
    """Order of the candidates in the prompt."""

    given = "given"
    reversed = "reversed"
    shuffled = "shuffled"


def evaluate(
    data: Annotated[Path, typer.Option(help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv, also .gz.")],
    task: Annotated[Task, typer.Option(help="Kind of data.")] = Task.beir,  # noqa: ARG001 - more kinds will come
    candidates: Annotated[Path | None, typer.Option(help="TREC run, or JSON lines of query-id and candidates.")] = None,
    pool_by_title: Annotated[
        int | None, typer.Option(help="Instead of candidates: so many documents that share the answer's title.", min=2)
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Use only the first so many candidates.", min=1)] = None,
    systems: Annotated[str, typer.Option(help="Comma-separated: qr, all (every head), bm25.")] = "qr,bm25",
    order: Annotated[PoolOrder, typer.Option(help="Order of the candidates in the prompt.")] = PoolOrder.given,
    seed: Annotated[int, typer.Option(help="Seed of drawing, shuffling and intervals.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many queries, drawn with the seed.", min=1)] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for metrics, runs and pools.")] = None,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    calibrate: Annotated[
        bool | None, typer.Option("--calibrate/--no-calibrate", help="Subtract the N/A query. Default: the head set's.")
    ] = None,
    token_filter: Annotated[bool, typer.Option(help="Drop each document's lowest tokens.")] = True,
    device: Device = None,
    dtype: Dtype = "auto",
    format_: FormatOption = Format.table,
) -> None:
    """Measure ranking quality on a data set, beside baselines on the same candidates."""
    from qr_core.evaluation import beir, metrics
    from qr_core.evaluation.report import write_report
    from qr_core.evaluation.systems import System, attention_system, bm25_system

    collection = beir.read_beir(data)
    if (candidates is None) == (pool_by_title is None):
        raise InputError("pass either --candidates or --pool-by-title")
    if candidates is not None:
        pools = beir.pools_from_candidates(collection, beir.read_candidates(candidates), depth)
    else:
        pools, left_out = beir.pools_by_title(collection, pool_by_title or 0, seed)
        err.print(f"{left_out} queries left out: fewer than {pool_by_title} documents share their answer's title")
    if not pools:
        raise InputError("no query has candidates")
    if out_folder is not None and out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"--out {out_folder} is a file: name a folder")
    rng = random.Random(seed)
    if limit is not None and limit < len(pools):
        pools = rng.sample(pools, limit)
    if order is PoolOrder.shuffled:
        pools = [replace(p, documents=tuple(rng.sample(p.documents, len(p.documents)))) for p in pools]

    wanted = [name.strip() for name in systems.split(",") if name.strip()]
    if not wanted:
        raise InputError("--systems names none: use qr, all or bm25")
    built: dict[str, System] = {}
    about: dict[str, Any] = {}
    for name in wanted:
        if name == "bm25":
            built[name] = _needs_eval_extra(bm25_system)
        elif name in ("qr", "all"):
            chosen = heads if name == "qr" else "all"
            scorer = make_scorer(
                model, chosen, template, device, dtype, calibrate=calibrate, filter_tokens=token_filter
            )
            about[name] = {"model": scorer.model_name, "heads": scorer.heads_name, "calibrate": scorer.calibrate}
            built[name] = attention_system(scorer, "reversed" if order is PoolOrder.reversed else "given")
        else:
            raise InputError(f"no system {name!r}: use qr, all or bm25")

    results: dict[str, Any] = {}
    runs: dict[str, dict[str, dict[str, float]]] = {}
    for name, system in built.items():
        run: dict[str, dict[str, float]] = {}
        clock = time.perf_counter()
        for pool in track(pools, description=name, console=err, transient=True):
            scores = system(pool)
            run[pool.query_id] = {str(d.id): s for d, s in zip(pool.documents, scores, strict=True)}
        seconds = time.perf_counter() - clock
        values = _needs_eval_extra(lambda run=run: metrics.per_query(run, collection.qrels))
        results[name] = {measure: metrics.summary(values[measure], seed) for measure in metrics.MEASURES}
        results[name] |= about.get(name, {}) | {"seconds_per_query": seconds / max(1, len(pools))}
        runs[name] = run

    report = {"data": data.name, "queries": len(pools), "order": order.value, "seed": seed, "systems": results}
    if out_folder is not None:
        write_report(out_folder, report, runs, pools)
    if format_ is Format.json:
        print_json(report)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("system", *metrics.MEASURES, "seconds per query"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, result in results.items():
        cells = [f"{result[m]['mean']:.3f} [{result[m]['low']:.3f}, {result[m]['high']:.3f}]" for m in metrics.MEASURES]
        table.add_row(name, *cells, f"{result['seconds_per_query']:.3f}")
    out.print(f"{data.name}: {len(pools)} queries, mean [95% bootstrap interval]")
    out.print(table)


def _needs_eval_extra(make: Any) -> Any:
    try:
        return make()
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'qrhead[eval]'") from error
