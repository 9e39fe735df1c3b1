"""Command line of the evaluation: `qrhead eval`.

Turns options into work, systems and a plan, and shows the results. Knows nothing of how systems rank or metrics count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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
    out,
    print_json,
)
from qr_core.errors import InputError
from qr_core.evaluation.tasks import Choice, PoolOrder, Task, read_work
from qr_core.terminal import plain

if TYPE_CHECKING:
    from qr_core.evaluation.evaluate import Answering, Results
    from qr_core.evaluation.lineup import Entry, Settings
    from qr_core.evaluation.work import Work

DATA, SYSTEMS, ABLATIONS, GENERATION, RESULTS = "Data", "Systems", "Ablations", "Generation", "Results"


def evaluate(
    task: Annotated[Task, typer.Option(help="Kind of data.", rich_help_panel=DATA)] = Task.beir,
    data: Annotated[
        Path | None,
        typer.Option(
            help="beir: a BEIR folder. longcontext, clipper: a JSON file, or a folder of books or meetings. "
            "longmemeval, multihop: the official JSON. niah: a text to hide needles in. spans: spans.json.",
            rich_help_panel=DATA,
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="beir: TREC run, or JSON lines of query-id and candidates. Default: BM25's.", rich_help_panel=DATA
        ),
    ] = None,
    pool_by_title: Annotated[
        int | None,
        typer.Option(
            help="beir: so many documents that share the answer's title, as candidates.", min=2, rich_help_panel=DATA
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="beir: only the first so many candidates.", min=1, rich_help_panel=DATA)
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="niah: lengths of the haystack, in tokens.", rich_help_panel=DATA)
    ] = "1000,4000",
    depths: Annotated[
        str, typer.Option(help="niah: where needles stand, 0 first, 1 last.", rich_help_panel=DATA)
    ] = "0,0.25,0.5,0.75,1",
    needles: Annotated[
        Path | None,
        typer.Option(
            help="niah: JSON lines of needle, question, answer. Default: four built in.", rich_help_panel=DATA
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many queries, drawn with the seed.", min=1, rich_help_panel=DATA)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of drawing, shuffling and intervals.", rich_help_panel=DATA)] = 0,
    systems: Annotated[
        str,
        typer.Option(
            help="Comma-separated: qr, all (every head: In-Context Re-ranking), random-heads, retrieval-heads, bm25, "
            "given (the candidates' order), dense, cross-encoder, rankgpt, full-context (answers only).",
            rich_help_panel=SYSTEMS,
        ),
    ] = "qr,bm25",
    model: Model = None,
    heads: Heads = None,
    retrieval_heads: Annotated[
        str | None,
        typer.Option(
            help="Head set of the system retrieval-heads, from detect --criterion copy-paste.", rich_help_panel=SYSTEMS
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="random-heads: so many sets, each as large as qr's.", min=1, rich_help_panel=SYSTEMS)
    ] = 5,
    bm25_whole: Annotated[
        bool,
        typer.Option(
            "--bm25-whole", help="bm25: word statistics of the whole corpus, not the pool's.", rich_help_panel=SYSTEMS
        ),
    ] = False,
    dense_model: Annotated[
        str | None, typer.Option(help="dense: a sentence-transformers model.", rich_help_panel=SYSTEMS)
    ] = None,
    cross_encoder_model: Annotated[
        str | None, typer.Option(help="cross-encoder: its name or folder.", rich_help_panel=SYSTEMS)
    ] = None,
    ranker: Annotated[
        str | None,
        typer.Option(help="rankgpt: a chat model, or an OpenAI-compatible address.", rich_help_panel=SYSTEMS),
    ] = None,
    ranker_model: Annotated[
        str | None, typer.Option(help="rankgpt: which model an address should use.", rich_help_panel=SYSTEMS)
    ] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    max_prompt_tokens: Window = None,
    windows: Annotated[
        str | None,
        typer.Option(help="longcontext: also rank in so many windows, such as 1,2,4,8.", rich_help_panel=ABLATIONS),
    ] = None,
    num_heads: Annotated[
        int | None, typer.Option(help="Only the first so many heads of the set.", min=1, rich_help_panel=ABLATIONS)
    ] = None,
    max_layer: Annotated[
        int | None, typer.Option(help="Only heads this deep or less, from 0.", min=0, rich_help_panel=ABLATIONS)
    ] = None,
    order: Annotated[
        PoolOrder, typer.Option(help="Order of the candidates in the prompt.", rich_help_panel=ABLATIONS)
    ] = PoolOrder.given,
    template: TemplateOption = None,
    calibrate: Annotated[
        bool | None,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Subtract the N/A query. Default: the head set's.",
            rich_help_panel=ABLATIONS,
        ),
    ] = None,
    token_filter: Annotated[
        bool, typer.Option(help="Drop each document's lowest tokens.", rich_help_panel=ABLATIONS)
    ] = True,
    generator: Annotated[
        str | None,
        typer.Option(
            help="longmemeval, clipper, niah: let this model (hub id, folder, embedded) or OpenAI-compatible address "
            "answer from what each system ranks first.",
            rich_help_panel=GENERATION,
        ),
    ] = None,
    generator_model: Annotated[
        str | None, typer.Option(help="Which model the generator's address should use.", rich_help_panel=GENERATION)
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Model or address that tells whether a reply is right. CLIPPER needs none.", rich_help_panel=GENERATION
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Which model the judge's address should use.", rich_help_panel=GENERATION)
    ] = None,
    judge_prompt: Annotated[
        Path | None,
        typer.Option(help="The judge's prompt, with {question}, {answer}, {reply}.", rich_help_panel=GENERATION),
    ] = None,
    top_k: Annotated[
        int, typer.Option(help="Documents that the generator reads.", min=1, rich_help_panel=GENERATION)
    ] = 5,
    max_new_tokens: Annotated[
        int, typer.Option(help="Most tokens of an answer.", min=1, rich_help_panel=GENERATION)
    ] = 256,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for an address.", min=0.1, rich_help_panel=GENERATION)
    ] = 120.0,
    measures: Annotated[
        str | None,
        typer.Option(help="In ir-measures' names, such as nDCG@10,R(rel=2)@5.", rich_help_panel=RESULTS),
    ] = None,
    exponential_gain: Annotated[
        bool, typer.Option("--exponential-gain", help="nDCG counts 2^grade - 1.", rich_help_panel=RESULTS)
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(help="What others are compared to. Default: bm25.", rich_help_panel=RESULTS)
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for report, metrics, runs and pools; an interrupted run goes on there.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    format_: FormatOption = Format.table,
) -> None:
    """Measure quality and time on a data set, beside baselines on the same work.

    Keys of addresses are taken from the environment's OPENAI_API_KEY.
    """
    if out_folder is not None and out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"--out {out_folder} is a file: name a folder")
    with _needs_eval_extra():
        from qr_core.evaluation import lineup, metrics

        settings = lineup.Settings(
            model=model,
            heads=heads,
            retrieval_heads=retrieval_heads,
            template=template.value if template else None,
            device=device,
            dtype=dtype,
            calibrate=calibrate,
            filter_tokens=token_filter,
            max_prompt_tokens=max_prompt_tokens,
            num_heads=num_heads,
            max_layer=max_layer,
            draws=draws,
            seed=seed,
            order="reversed" if order is PoolOrder.reversed else "given",
            windows=tuple(int(n) for n in _numbers("--windows", windows or "", 1, 10**6)),
            bm25_whole=bm25_whole,
            dense_model=dense_model,
            cross_encoder_model=cross_encoder_model,
            ranker=ranker,
            ranker_model=ranker_model,
            timeout=timeout,
        )
        choice = Choice(
            candidates=candidates,
            pool_by_title=pool_by_title,
            depth=depth,
            lengths=tuple(int(n) for n in _numbers("--lengths", lengths, 1, 10**7)),
            depths=tuple(_numbers("--depths", depths, 0, 1)),
            needles=needles,
            shuffled=order is PoolOrder.shuffled,
            seed=seed,
            limit=limit,
        )
        if generator is None and (judge is not None or judge_prompt is not None):
            raise InputError("--judge needs --generator, whose replies it judges")
        named = [name.strip() for name in systems.split(",") if name.strip()]
        if "full-context" in named and generator is None:
            raise InputError("the system full-context only answers: pass --generator")
        if generator is not None and task not in (Task.longmemeval, Task.clipper, Task.niah):
            raise InputError("--generator goes with --task longmemeval, clipper or niah")
        entries = lineup.line_up(named, settings)
        chosen = None if measures is None else metrics.parse(measures)
        answering = None
        if generator is not None:
            asked, told = (generator, generator_model), (judge, judge_model)
            answering = _answering(asked, told, judge_prompt, top_k, max_new_tokens, timeout, device, dtype)
        results = _run(task, data, choice, entries, chosen, exponential_gain, baseline, answering, out_folder, settings)
    if format_ is Format.json:
        print_json(results.report)
        return
    _show(results.report)
    if out_folder is not None:
        err.print(f"report: {plain(str(out_folder / 'report.md'))}, report.html", soft_wrap=True)


def _run(
    task: Task,
    data: Path | None,
    choice: Choice,
    entries: Sequence[Entry],
    measures: tuple[str, ...] | None,
    exponential_gain: bool,
    baseline: str | None,
    answering: Answering | None,
    folder: Path | None,
    settings: Settings,
) -> Results:
    from qr_core.evaluation import evaluate as evaluation
    from qr_core.evaluation import metrics
    from qr_core.evaluation.report import write_report

    counted: dict[str, Any] = {"baseline": baseline, "seed": choice.seed, "answering": answering}
    if task is Task.spans:
        if measures is not None or exponential_gain:
            raise InputError("--measures and --exponential-gain do not go with --task spans")
        work, measured = _spans(data, choice)
        plan = evaluation.Plan(measured=measured, count=evaluation.counter(entries), **counted)
    else:
        count = evaluation.counter(entries)
        work = read_work(task, data, choice, answering is not None, count)
        chosen = measures or metrics.MEASURES[task.value]
        plan = evaluation.Plan(chosen, exponential_gain, count=count, **counted)
    results = evaluation.evaluate(work, entries, plan, folder, _tracked)
    head: dict[str, Any] = {"task": task.value, "data": data.name if data else "default", "queries": len(work.pools)}
    head |= {"order": "shuffled" if choice.shuffled else settings.order, "notes": list(work.notes)}
    head |= {"choice": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(choice).items()}}
    head |= {"gain": "exponential" if exponential_gain else "linear", "measures": list(plan.measures)}
    head |= {"answering": answering.record() if answering else None, "versions": evaluation.versions()}
    results.report = {**head, "seed": choice.seed, "machine": evaluation.machine(), **results.report}
    if folder is not None:
        write_report(folder, results, work)
    return results


def _spans(data: Path | None, choice: Choice) -> tuple[Work, Callable[[Entry], Any]]:
    from qr_core.evaluation import spans
    from qr_core.evaluation.work import Work

    if data is None:
        raise InputError("--task spans needs --data")
    corpora = spans.limited(spans.read_spans(data), choice.limit, random.Random(choice.seed))
    pools, golds = spans.span_pools(corpora)

    def measured(entry: Entry) -> Any:
        if entry.scorer is not None:
            return spans.measured(spans.attention_pruner(entry.scorer), golds)
        if entry.make is None:
            raise InputError(f"the system {entry.name} does not rank spans")
        return spans.measured(spans.ranking_pruner(entry.make()), golds)

    return Work(pools, {}), measured


def _answering(
    asked: tuple[str, str | None],
    told: tuple[str | None, str | None],
    prompt: Path | None,
    top_k: int,
    max_new_tokens: int,
    timeout: float,
    device: str | None,
    dtype: str,
) -> Answering:
    from qr_core.evaluation.evaluate import Answering
    from qr_core.evaluation.judging import Judge
    from qr_core.generation import Generator, LocalGenerator, generator_of
    from qr_core.inputs import read_text
    from qr_core.models import ModelSource, pick_device
    from qr_core.scorer import EMBEDDED_NAME, embedded_model

    def generator(name: str, model: str | None) -> Generator:
        if name != "embedded":
            return generator_of(name, model, timeout, device=device, dtype=dtype)
        source = ModelSource(str(embedded_model()), device=pick_device(device), dtype=dtype)
        return LocalGenerator(source, EMBEDDED_NAME)

    judging = None
    if told[0] is not None:
        judging = Judge(generator(told[0], told[1]), None if prompt is None else read_text(prompt))
    answering = generator(*asked)
    return Answering(answering, judging, top_k, max_new_tokens, answering.name)


def _numbers(name: str, listed: str, least: float, most: float) -> list[float]:
    try:
        numbers = [float(part) for part in listed.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{name} {listed!r}: use numbers separated by commas") from error
    if not all(least <= number <= most for number in numbers):
        raise InputError(f"{name} {listed!r}: use numbers from {least:g} to {most:g}")
    return numbers


@contextmanager
def _tracked(name: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, which says what is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _needs_eval_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'qrhead[eval]'") from error


def _show(report: Mapping[str, Any]) -> None:
    """Systems down, measures across; many measures stand below each other instead."""
    from qr_core.evaluation.report import measures_of

    results = report["systems"]
    out.print(plain(f"{report['data']}: {report['queries']} queries, mean [95% bootstrap interval]"))
    measures = measures_of(results)
    table = Table(box=None, pad_edge=False, header_style="bold")
    across = len(measures) <= 4
    for column in ("system", *measures, "seconds per query") if across else ("measure", *results):
        table.add_column(column, justify="left" if column in ("system", "measure") else "right")

    def cell(name: str, measure: str) -> str:
        value = results[name].get(measure)
        if not value or value["mean"] is None:
            return "-"
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    def seconds(name: str) -> str:
        return f"{results[name]['seconds_per_query']:.3f}" if results[name].get("seconds_per_query") else "-"

    if across:
        for name in results:
            table.add_row(name, *(cell(name, measure) for measure in measures), seconds(name))
    else:
        for measure in measures:
            table.add_row(measure, *(cell(name, measure) for name in results))
        table.add_row("seconds per query", *(seconds(name) for name in results))
    out.print(table)
    for name, row in results.items():
        if "missing" in row:
            out.print(plain(f"{name}: not run: {row['missing']}"), soft_wrap=True)
        failed = {**row.get("failed", {}), **row.get("answers", {}).get("failures", {})}
        if failed:
            query, reason = next(iter(failed.items()))
            untried = row.get("untried", 0) + row.get("answers", {}).get("untried", 0)
            more = f", and {untried} were not tried after failures in a row" if untried else ""
            out.print(plain(f"{name}: {len(failed)} queries failed{more}; {query}: {reason}"), soft_wrap=True)
    for note in report["notes"]:
        out.print(plain(str(note)), soft_wrap=True)
