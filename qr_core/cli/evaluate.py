"""Command line of the evaluation: `qrhead eval`.

Its options, and the progress bar. Knows nothing of what is made from them; see `launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qr_core.cli.common import (
    CpusPerWorker,
    Device,
    Dtype,
    EngineChoice,
    EngineOption,
    Format,
    FormatOption,
    GpusPerWorker,
    Heads,
    LayoutOption,
    Model,
    RayAddress,
    TemplateOption,
    Window,
    WorkersOption,
    err,
    out,
    print_json,
)
from qr_core.display.terminal import plain
from qr_core.errors import InputError, missing_extra
from qr_core.evaluation.options import (
    AnswerOptions,
    CountOptions,
    DataOptions,
    EvaluationOptions,
    SystemOptions,
)
from qr_core.evaluation.report.show import show
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Workers


class CandidateOrder(str, Enum):
    """Order of the candidates in the prompt."""

    given = "given"
    reversed = "reversed"
    shuffled = "shuffled"


DATA, SYSTEMS, ABLATIONS, GENERATION, RESULTS = "Data", "Systems", "Ablations", "Generation", "Results"


def evaluate(
    task: Annotated[str, typer.Option(help="Kind of data.", rich_help_panel=DATA)] = "beir",
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
    candidates_by_title: Annotated[
        int | None,
        typer.Option(
            "--candidates-by-title",
            "--pool-by-title",
            help="beir: this many documents that share the answer's title, as candidates.",
            min=2,
            rich_help_panel=DATA,
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="beir: only the first so many candidates.", min=1, rich_help_panel=DATA)
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(help="beir: only the first so many words of a document.", min=1, rich_help_panel=DATA),
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
    engine: EngineOption = EngineChoice.local,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = 1,
    ray_address: RayAddress = None,
    max_prompt_tokens: Window = None,
    passage_tokens: Annotated[
        int | None,
        typer.Option(
            help="Read longer documents in parts of so many tokens; the best part counts. By default as the head set "
            "says.",
            min=1,
            rich_help_panel=ABLATIONS,
        ),
    ] = None,
    segments: Annotated[
        str | None,
        typer.Option(
            "--segments",
            "--windows",
            help="Also rank with the input cut into this many segments, such as 1,2,4,8.",
            rich_help_panel=ABLATIONS,
        ),
    ] = None,
    orders: Annotated[
        int,
        typer.Option(help="Also rank the candidates in so many shuffled orders.", min=0, rich_help_panel=ABLATIONS),
    ] = 0,
    layout: LayoutOption = None,
    num_heads: Annotated[
        int | None, typer.Option(help="Only the first so many heads of the set.", min=1, rich_help_panel=ABLATIONS)
    ] = None,
    max_layer: Annotated[
        int | None, typer.Option(help="Only heads this deep or less, from 0.", min=0, rich_help_panel=ABLATIONS)
    ] = None,
    order: Annotated[
        CandidateOrder, typer.Option(help="Order of the candidates in the prompt.", rich_help_panel=ABLATIONS)
    ] = CandidateOrder.given,
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

    Keys of addresses are taken from the environment's OPENAI_API_KEY. With --engine ray the attention systems (qr, all,
    random-heads, retrieval-heads) rank on Ray, the others here.
    """
    if out_folder is not None and out_folder.exists() and not out_folder.is_dir():
        raise InputError(f"--out {out_folder} is a file: name a folder")
    with _needs_eval_extra():
        from qr_core.evaluation.launch import launch

        options = EvaluationOptions(
            DataOptions(
                task=task,
                data=data,
                candidates=candidates,
                candidates_by_title=candidates_by_title,
                depth=depth,
                max_words=max_words,
                lengths=_whole_numbers("--lengths", lengths, 10**7),
                depths=_numbers("--depths", depths, 0, 1),
                needles=needles,
                limit=limit,
                seed=seed,
                order=order.value,
            ),
            SystemOptions(
                systems=tuple(name.strip() for name in systems.split(",") if name.strip()),
                retrieval_heads=retrieval_heads,
                draws=draws,
                bm25_whole=bm25_whole,
                dense_model=dense_model,
                cross_encoder_model=cross_encoder_model,
                ranker=ranker,
                ranker_model=ranker_model,
                segments=_whole_numbers("--segments", segments or "", 10**6),
                orders=orders,
                num_heads=num_heads,
                max_layer=max_layer,
            ),
            ScorerOptions(
                model=model,
                heads=heads,
                template=template.value if template else None,
                layout=layout.value if layout else None,
                device=device,
                dtype=dtype,
                calibrate=calibrate,
                filter_tokens=token_filter,
                max_prompt_tokens=max_prompt_tokens,
                passage_tokens=passage_tokens,
            ),
            AnswerOptions(
                generator=generator,
                generator_model=generator_model,
                judge=judge,
                judge_model=judge_model,
                judge_prompt=judge_prompt,
                top_k=top_k,
                max_new_tokens=max_new_tokens,
                timeout=timeout,
            ),
            CountOptions(measures=measures, exponential_gain=exponential_gain, baseline=baseline),
        )
        on_ray = Workers(workers, gpus_per_worker, cpus_per_worker, ray_address) if engine is EngineChoice.ray else None
        results = launch(options, out_folder, _tracked, on_ray)
    if format_ is Format.json:
        print_json(results.report)
        return
    show(out, results.report)
    if out_folder is not None:
        err.print(f"report: {plain(str(out_folder / 'report.md'))}, report.html", soft_wrap=True)


def _numbers(name: str, listed: str, least: float, most: float) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in listed.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"{name} {listed!r}: use numbers separated by commas") from error
    if not all(least <= number <= most for number in numbers):
        raise InputError(f"{name} {listed!r}: use numbers from {least:g} to {most:g}")
    return numbers


def _whole_numbers(name: str, listed: str, most: int) -> tuple[int, ...]:
    numbers = _numbers(name, listed, 1, most)
    if not all(number.is_integer() for number in numbers):
        raise InputError(f"{name} {listed!r}: use whole numbers")
    return tuple(map(int, numbers))


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
        raise InputError(missing_extra(error, "eval")) from error
