"""Command line of the evaluation: `qrhead eval --task beir | longcontext | spans`.

Reads a data set, runs every system on the same work, prints the table, and writes pools, runs and metrics to a folder.
Knows nothing of how systems rank or metrics count.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from qr_core.cli_common import (
    Device,
    Dtype,
    Format,
    FormatOption,
    Heads,
    Model,
    TemplateOption,
    Window,
    err,
    make_scorer,
    out,
    print_json,
)
from qr_core.errors import InputError

if TYPE_CHECKING:
    from qr_core.evaluation.systems import System
    from qr_core.evaluation.work import Pool
    from qr_core.scorer import QRScorer


class Task(str, Enum):
    """What is evaluated."""

    beir = "beir"
    longcontext = "longcontext"
    spans = "spans"


class PoolOrder(str, Enum):
    """Order of the candidates in the prompt."""

    given = "given"
    reversed = "reversed"
    shuffled = "shuffled"


def evaluate(
    data: Annotated[
        Path, typer.Option(help="beir: a BEIR folder. longcontext: a JSON file, or books/meetings. spans: spans.json.")
    ],
    task: Annotated[Task, typer.Option(help="Kind of data.")] = Task.beir,
    candidates: Annotated[Path | None, typer.Option(help="TREC run, or JSON lines of query-id and candidates.")] = None,
    pool_by_title: Annotated[
        int | None, typer.Option(help="Instead of candidates: so many documents that share the answer's title.", min=2)
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Use only the first so many candidates.", min=1)] = None,
    systems: Annotated[
        str, typer.Option(help="Comma-separated: qr, all (every head), random-heads, retrieval-heads, bm25, dense.")
    ] = "qr,bm25",
    retrieval_heads: Annotated[
        str | None, typer.Option(help="Head set of the system retrieval-heads, from detect --criterion copy-paste.")
    ] = None,
    draws: Annotated[int, typer.Option(help="random-heads: so many sets, each as large as qr's.", min=1)] = 5,
    windows: Annotated[
        str | None, typer.Option(help="longcontext: also rank in so many windows, for example 1,2,4,8.")
    ] = None,
    dense_model: Annotated[str | None, typer.Option(help="A sentence-transformers model, for dense.")] = None,
    order: Annotated[PoolOrder, typer.Option(help="Order of the candidates in the prompt.")] = PoolOrder.given,
    seed: Annotated[int, typer.Option(help="Seed of drawing, shuffling and intervals.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many queries, drawn with the seed.", min=1)] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for metrics, runs and pools.")] = None,
    model: Model = None,
    heads: Heads = None,
    template: TemplateOption = None,
    max_prompt_tokens: Window = None,
    calibrate: Annotated[
        bool | None, typer.Option("--calibrate/--no-calibrate", help="Subtract the N/A query. Default: the head set's.")
    ] = None,
    token_filter: Annotated[bool, typer.Option(help="Drop each document's lowest tokens.")] = True,
    device: Device = None,
    dtype: Dtype = "auto",
    format_: FormatOption = Format.table,
) -> None:
    """Measure quality on a data set, beside baselines on the same work."""
    if out_folder is not None and out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"--out {out_folder} is a file: name a folder")
    if (candidates is not None or pool_by_title is not None or depth is not None) and task is not Task.beir:
        raise InputError("--candidates, --pool-by-title and --depth go with --task beir")

    def scorer_for(name: str) -> QRScorer:
        chosen = {"qr": heads, "retrieval-heads": retrieval_heads}.get(name, "all")
        options = {"calibrate": calibrate, "filter_tokens": token_filter, "max_prompt_tokens": max_prompt_tokens}
        return make_scorer(model, chosen, template, device, dtype, **options)

    wanted = [name.strip() for name in systems.split(",") if name.strip()]
    known = ("qr", "all", "random-heads", "retrieval-heads", "bm25", "dense")
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise InputError(f"no system {unknown[0]!r}: use {', '.join(known)}" if unknown else "--systems names none")
    if "retrieval-heads" in wanted and retrieval_heads is None:
        raise InputError("the system retrieval-heads needs --retrieval-heads, a head set")
    if "dense" in wanted and dense_model is None:
        raise InputError("the system dense needs --dense-model, the name or folder of a sentence-transformers model")
    scorers = {name: scorer_for(name) for name in wanted if name in ("qr", "all", "retrieval-heads")}
    if "random-heads" in wanted:
        drawn = _random_scorers(scorer_for("qr"), draws, seed)
        scorers |= drawn
        place = wanted.index("random-heads")
        wanted[place : place + 1] = list(drawn)
    about: dict[str, dict[str, Any]] = {
        name: {"model": s.model_name, "heads": s.heads_name, "calibrate": s.calibrate} for name, s in scorers.items()
    }
    if "dense" in wanted:
        about["dense"] = {"model": Path(str(dense_model)).name}
    rng = random.Random(seed)

    if task is Task.spans:
        results, queries = _spans(data, wanted, scorers, dense_model, limit, rng)
        runs: Mapping[str, Any] = {}
        pools: list[Pool] = []
    else:
        pools, qrels = _pools(task, data, candidates, pool_by_title, depth, seed)
        if limit is not None and limit < len(pools):
            chosen = {id(pool) for pool in rng.sample(pools, limit)}
            pools = [pool for pool in pools if id(pool) in chosen]
        if order is PoolOrder.shuffled:
            pools = [replace(p, documents=tuple(rng.sample(p.documents, len(p.documents)))) for p in pools]
        built = _systems(wanted, scorers, dense_model, "reversed" if order is PoolOrder.reversed else "given")
        for count in _numbers(windows):
            from qr_core.evaluation.systems import attention_system

            built[f"qr, {count} windows" if count > 1 else "qr, 1 window"] = attention_system(
                scorer_for("qr"), "reversed" if order is PoolOrder.reversed else "given", count
            )
        results, runs = _rank(built, pools, qrels, task.value, seed)
        queries = len(pools)

    for name, found in about.items():
        results[name] |= found
    report: dict[str, Any] = {"task": task.value, "data": data.name, "queries": queries, "order": order.value}
    report |= {"seed": seed, "systems": results}
    if out_folder is not None:
        from qr_core.evaluation.report import write_report

        write_report(out_folder, report, runs, pools)
    if format_ is Format.json:
        print_json(report)
    else:
        _show(f"{data.name}: {queries} queries, mean [95% bootstrap interval]", results)


def _random_scorers(like: QRScorer, draws: int, seed: int) -> dict[str, QRScorer]:
    """Scorers over as many heads as `like` reads, drawn at random from all the others."""
    from qr_core.copying import random_heads

    own = [(layer, head) for layer, heads in like.heads.by_layer().items() for head in heads]
    found = {}
    for draw in range(draws):
        pairs = random_heads(like.heads.config, len(own), seed + draw, own)
        heads = like.heads.model_copy(update={"heads": tuple((*pair, None) for pair in pairs), "provenance": None})
        name = f"random-heads {seed + draw}"
        found[name] = like.with_heads(heads, ",".join(f"{layer}-{head}" for layer, head in pairs))
    return found


def _numbers(listed: str | None) -> list[int]:
    try:
        numbers = [int(part) for part in (listed or "").split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--windows {listed!r}: use whole numbers, such as 1,2,4,8") from error
    if any(number < 1 for number in numbers):
        raise InputError(f"--windows {listed!r}: use numbers from 1")
    return numbers


def _pools(
    task: Task, data: Path, candidates: Path | None, by_title: int | None, depth: int | None, seed: int
) -> tuple[list[Pool], Mapping[str, Mapping[str, int]]]:
    from qr_core.evaluation import beir
    from qr_core.evaluation.longcontext import read_long_contexts

    if task is Task.longcontext:
        return read_long_contexts(data)
    collection = beir.read_beir(data)
    if (candidates is None) == (by_title is None):
        raise InputError("pass either --candidates or --pool-by-title")
    if candidates is not None:
        pools = beir.pools_from_candidates(collection, beir.read_candidates(candidates), depth)
    else:
        pools, left_out = beir.pools_by_title(collection, by_title or 0, seed)
        err.print(f"{left_out} queries left out: fewer than {by_title} documents share their answer's title")
    if not pools:
        raise InputError("no query has candidates")
    return pools, collection.qrels


def _systems(
    wanted: Sequence[str], scorers: Mapping[str, QRScorer], dense_model: str | None, order: Any
) -> dict[str, System]:
    from qr_core.evaluation.systems import attention_system, bm25_system, dense_system

    built: dict[str, System] = {}
    for name in wanted:
        if name in scorers:
            built[name] = attention_system(scorers[name], order)
        else:
            built[name] = _needs_eval_extra(bm25_system if name == "bm25" else lambda: dense_system(str(dense_model)))
    return built


def _rank(
    built: Mapping[str, System],
    pools: Sequence[Pool],
    qrels: Mapping[str, Mapping[str, int]],
    task: str,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, float]]]]:
    from qr_core.evaluation import metrics

    groups = [list(group) for _, group in groupby(pools, key=lambda pool: id(pool.documents))]
    results: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, dict[str, float]]] = {}
    for name, system in built.items():
        run: dict[str, dict[str, float]] = {}
        clock = time.perf_counter()
        for pool, scores in _tracked(
            name, len(pools), (pair for g in groups for pair in zip(g, system(g), strict=True))
        ):
            run[pool.query_id] = {str(d.id): s for d, s in zip(pool.documents, scores, strict=True)}
        seconds = time.perf_counter() - clock
        values = _needs_eval_extra(lambda run=run: metrics.per_query(run, qrels, metrics.MEASURES[task]))
        results[name] = {measure: metrics.summary(values[measure], seed) for measure in metrics.MEASURES[task]}
        results[name]["seconds_per_query"] = seconds / max(1, len(pools))
        runs[name] = run
    return results, runs


def _spans(
    data: Path,
    wanted: Sequence[str],
    scorers: Mapping[str, QRScorer],
    dense_model: str | None,
    limit: int | None,
    rng: random.Random,
) -> tuple[dict[str, dict[str, Any]], int]:
    from qr_core.evaluation import metrics, spans

    corpora = spans.limited(spans.read_spans(data), limit, rng)
    total = sum(len(corpus.questions) for corpus in corpora)
    results: dict[str, dict[str, Any]] = {}
    rankers = _systems([name for name in wanted if name not in scorers], {}, dense_model, "given")
    for name in wanted:
        pruner = spans.attention_pruner(scorers[name]) if name in scorers else spans.ranking_pruner(rankers[name])
        values: dict[str, dict[str, float]] = {f"{m}@{b}": {} for b in spans.BUDGETS for m in spans.MEASURES}
        clock = time.perf_counter()
        work = (
            (corpus, gold, ranked)
            for corpus in corpora
            for (_, gold), ranked in zip(
                corpus.questions, pruner(corpus, [q for q, _ in corpus.questions]), strict=True
            )
        )
        for number, (corpus, gold, ranked) in enumerate(_tracked(name, total, work)):
            for budget in spans.BUDGETS:
                for measure, value in spans.measure(corpus, gold, ranked, budget).items():
                    values[f"{measure}@{budget}"][str(number)] = value
        results[name] = {measure: metrics.summary(found) for measure, found in values.items()}
        results[name]["seconds_per_query"] = (time.perf_counter() - clock) / max(1, total)
    return results, total


def _tracked(name: str, total: int, work: Iterator[Any]) -> Iterator[Any]:
    """`work` with a progress bar on standard error."""
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task(name, total=total)
        for item in work:
            yield item
            bar.advance(task)


def _show(title: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Systems down, measures across; many measures stand below each other instead."""
    out.print(title)
    names = list(results)
    measures = [key for key, value in results[names[0]].items() if isinstance(value, dict)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    across = len(measures) <= 4
    for column in ("system", *measures, "seconds per query") if across else ("measure", *names):
        table.add_column(column, justify="left" if column in ("system", "measure") else "right")

    def cell(name: str, measure: str) -> str:
        value = results[name][measure]
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    if across:
        for name in names:
            table.add_row(name, *(cell(name, m) for m in measures), f"{results[name]['seconds_per_query']:.3f}")
    else:
        for measure in measures:
            table.add_row(measure, *(cell(name, measure) for name in names))
        table.add_row("seconds per query", *(f"{results[name]['seconds_per_query']:.3f}" for name in names))
    out.print(table)


def _needs_eval_extra(make: Any) -> Any:
    try:
        return make()
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'qrhead[eval]'") from error
