"""Command line of head detection: `qrhead detect`, and `qrhead heads map | compare | mask-test`.

Knows nothing of how heads are judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qr_core.cli.common import (
    CpusPerWorker,
    Device,
    Dtype,
    EngineChoice,
    EngineOption,
    Format,
    FormatOption,
    GpusPerWorker,
    LayoutOption,
    Model,
    RayAddress,
    RemoteCode,
    Revision,
    TemplateOption,
    WorkersOption,
    err,
    out,
    print_json,
)
from qr_core.detection.options import TEMPERATURE
from qr_core.display import tables
from qr_core.display.terminal import plain
from qr_core.display.wording import with_spread
from qr_core.errors import InputError
from qr_core.parallel.pool import Workers

if TYPE_CHECKING:
    from qr_core.detection.detect import Detection
    from qr_core.detection.needles import Hidden
    from qr_core.generation import LocalGenerator
    from qr_core.heads.sets import HeadSet


COPY_PASTE = "copy-paste"
"""The one criterion that needs no examples, but a model that writes."""

Haystack = Annotated[
    Path | None, typer.Option(help="copy-paste: the text to hide needles in. Default: the demo's articles.")
]
Needles = Annotated[
    Path | None, typer.Option(help="copy-paste: JSON lines of needle, question, answer. Default: four built in.")
]
NeedleTokens = Annotated[str, typer.Option(help="Lengths of the haystacks, in tokens.")]
Depths = Annotated[str, typer.Option(help="Where needles stand: 0 first, 1 last.")]


def detect(
    save_to: Annotated[Path, typer.Option("--out", help="The head-set file to write.")],
    data: Annotated[
        Path | None, typer.Option(help="A BEIR folder, long-context JSON, or JSON lines. Not for copy-paste.")
    ] = None,
    candidates: Annotated[Path | None, typer.Option(help="BEIR: a TREC run, or JSON lines.")] = None,
    depth: Annotated[int | None, typer.Option(help="BEIR: only the first candidates, this many.", min=1)] = None,
    model: Model = None,
    criterion: Annotated[
        str,
        typer.Option(help="qrscore: mass on the gold documents. ndcg: each head's own. contrastive: CoRe. copy-paste."),
    ] = "qrscore",
    num_heads: Annotated[int | None, typer.Option(help="Default: 16, at most a quarter of all.", min=1)] = None,
    max_layer: Annotated[int | None, typer.Option(help="Deepest layer allowed, from 0.", min=0)] = None,
    calibrated: Annotated[
        bool | None,
        typer.Option(
            "--calibrated/--raw",
            help="Judge by calibrated, filtered scores. Default: raw for qrscore, else calibrated.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of contrastive.")] = TEMPERATURE,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Shuffle each example's documents.")] = False,
    sample: Annotated[int | None, typer.Option(help="At most this many examples, drawn by seed.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of sample, shuffling and trade-offs.")] = 0,
    like: Annotated[str | None, typer.Option(help="Use the template of this head set, a name or file.")] = None,
    haystack: Haystack = None,
    needles: Needles = None,
    needle_tokens: NeedleTokens = "500,1000",
    needle_depths: Depths = "0.1,0.5,0.9",
    engine: EngineOption = EngineChoice.local,
    workers: WorkersOption = None,
    gpus_per_worker: GpusPerWorker = None,
    cpus_per_worker: CpusPerWorker = 1,
    ray_address: RayAddress = None,
    template: TemplateOption = None,
    layout: LayoutOption = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Find the heads of a model that look at what answers, from a handful of examples.

    Beside the head-set file stand its map (.png), what fewer layers or examples would give (.json, .png), and a work
    folder (.work) from which an interrupted run goes on.
    """
    from qr_core.detection.report import trade_offs, write_beside

    if save_to.is_dir() or not save_to.absolute().parent.is_dir():
        raise InputError(f"--out {save_to}: name a file in a folder that exists")
    options = {"revision": revision, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    if criterion == COPY_PASTE:
        if data is not None:
            raise InputError("copy-paste takes --haystack and --needles, not --data")
        if engine is EngineChoice.ray:
            raise InputError("copy-paste runs in this process: leave out --engine ray")
        heads = _copying(model, num_heads, haystack, needles, needle_tokens, needle_depths, options)
        report: dict[str, Any] = {}
    else:
        from qr_core.detection.criteria import CRITERIA

        if criterion not in CRITERIA:
            raise InputError(f"criterion is {criterion!r}: use one of {', '.join((*CRITERIA, COPY_PASTE))}")
        if data is None:
            raise InputError("pass examples with --data")
        options["template"] = template.value if template else None
        options["layout"] = layout.value if layout else None
        on_ray = {"engine": engine.value, "workers": Workers(workers, gpus_per_worker, cpus_per_worker, ray_address)}
        detection = _detection(
            data, candidates, depth, model, like, options, save_to.with_suffix(".work"),
            criterion=criterion, num_heads=num_heads, max_layer=max_layer, calibrated=calibrated,
            temperature=temperature, shuffle=shuffle, sample=sample, seed=seed, **on_ray,
        )  # fmt: skip
        heads, report = detection.heads, trade_offs(detection, seed)
    heads.save(save_to)
    try:
        write_beside(save_to, heads, report)
    except InputError as error:
        err.print(f"no pictures: {error}")
    if format_ is Format.json:
        print_json({"out": str(save_to), "heads": [list(h) for h in heads.heads], **report})
    else:
        _show(save_to, heads, report)


def _detection(
    data: Path,
    candidates: Path | None,
    depth: int | None,
    model: str | None,
    like: str | None,
    options: dict[str, Any],
    work: Path,
    **rule: Any,
) -> Detection:
    from qr_core.detection.detect import detect_heads
    from qr_core.evaluation.data.examples import read_examples

    examples, problems = read_examples(data, candidates, depth)
    with _counting("examples") as progress:
        detection = detect_heads(
            model, examples, data=data.name, like=like, work=work,
            unreadable=problems, progress=progress, **rule, **options,
        )  # fmt: skip
    for name, reason in list(detection.left_out.items())[:10]:
        err.print(plain(f"left out {name}: {reason}"), soft_wrap=True)
    if detection.left_out:
        err.print(f"left out {len(detection.left_out)} examples, used {len(detection.measured)}")
    return detection


def _copying(
    model: str | None,
    num_heads: int | None,
    haystack: Path | None,
    needles: Path | None,
    tokens: str,
    depths: str,
    options: dict[str, Any],
) -> HeadSet:
    from qr_core.detection.copying import copy_scores, retrieval_heads

    generator = _generator(model, options)
    cases = _cases(generator, haystack, needles, tokens, depths)
    with _counting("needles") as progress:
        scores = copy_scores(generator, cases, progress=progress)
    return retrieval_heads(generator, scores, num_heads, len(cases))


def _generator(model: str | None, options: dict[str, Any]) -> LocalGenerator:
    from qr_core.generation import LocalGenerator
    from qr_core.mini import EMBEDDED_NAME, embedded_model
    from qr_core.model.loading import ModelSource, pick_device

    chosen = {**options, "device": pick_device(options.get("device"))}
    return LocalGenerator(ModelSource(model or str(embedded_model()), **chosen), None if model else EMBEDDED_NAME)


def _cases(
    generator: LocalGenerator, haystack: Path | None, needles: Path | None, tokens: str, depths: str
) -> list[Hidden]:
    from qr_core.detection.needles import hidden_needles
    from qr_core.text.counting import counter

    lengths, places = _numbers("--needle-tokens", tokens, 1, 10**7), _numbers("--needle-depths", depths, 0, 1)
    count = counter(None, generator.tokenizer)
    return hidden_needles(count, [int(length) for length in lengths], places, haystack, needles)


def _numbers(name: str, listed: str, least: float, most: float) -> list[float]:
    try:
        numbers = [float(part) for part in listed.split(",")]
    except ValueError as error:
        raise InputError(f"{name} {listed!r}: use numbers separated by commas") from error
    if not all(least <= number <= most for number in numbers):
        raise InputError(f"{name} {listed!r}: use numbers from {least:g} to {most:g}")
    return numbers


@contextmanager
def _counting(what: str) -> Iterator[Any]:
    from rich.progress import Progress

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(path: Path, heads: HeadSet, report: dict[str, Any]) -> None:
    from qr_core.detection.report import shown
    from qr_core.heads.maps import terminal_map
    from qr_core.heads.pairs import format_pairs

    listed = format_pairs(heads.pairs(), ", ")
    out.print(f"{len(heads.heads)} heads of {plain(heads.model)} by {heads.criterion}: {listed}", soft_wrap=True)
    out.print(terminal_map(heads))
    for part in shown(report):
        out.print(part)
    out.print(f"written: {path}")


def heads_map(
    name: Annotated[str, typer.Argument(help="A published set or a head-set file.")],
    png: Annotated[Path | None, typer.Option(help="Write a picture instead of printing.")] = None,
) -> None:
    """Draw a set's head scores, layers by heads."""
    from qr_core.heads.maps import save_png, terminal_map
    from qr_core.heads.sets import HeadSet

    heads = HeadSet.load(name)
    if png is None:
        out.print(terminal_map(heads))
    else:
        save_png(heads, png)


def heads_compare(
    first: Annotated[str, typer.Argument(help="A published set or a head-set file.")],
    second: Annotated[str, typer.Argument(help="Another one of the same model.")],
    format_: FormatOption = Format.table,
) -> None:
    """Say how much two head sets have in common."""
    from qr_core.heads.comparison import compare
    from qr_core.heads.pairs import format_pairs
    from qr_core.heads.sets import HeadSet

    found = compare(HeadSet.load(first), HeadSet.load(second))
    if format_ is Format.json:
        print_json(asdict(found))
        return
    shared = format_pairs(found.shared, ", ") or "none"
    out.print(f"shared heads: {shared}", soft_wrap=True)
    out.print(
        f"{found.of_first:.0%} of the first, {found.of_second:.0%} of the second; {found.by_chance:.0%} by chance"
    )
    if found.rank_correlation is not None:
        out.print(f"rank correlation over all judged heads: {found.rank_correlation:.2f}")


def heads_mask_test(
    sets: Annotated[list[str], typer.Argument(help="Head sets to ablate, one after the other.")],
    model: Model = None,
    haystack: Haystack = None,
    needles: Needles = None,
    needle_tokens: NeedleTokens = "500",
    needle_depths: Depths = "0.1,0.5,0.9",
    draws: Annotated[int, typer.Option(help="Random sets of the same size.", min=1)] = 5,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = "auto",
    trust_remote_code: RemoteCode = False,
    format_: FormatOption = Format.table,
) -> None:
    """Ask the model for needles with chosen heads ablated, and with random heads ablated."""
    from qr_core.detection.copying import causal_check
    from qr_core.detection.selection import Spread
    from qr_core.heads.parts import HeadShape
    from qr_core.heads.sets import HeadSet

    options = {"revision": revision, "device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    generator = _generator(model, options)
    chosen = {}
    for name in sets:
        heads = HeadSet.load(name)
        if heads.config != HeadShape.of(generator.model.config):
            raise InputError(f"head set {name} is for a model of another shape ({heads.model})")
        chosen[name] = heads.pairs()
    cases = _cases(generator, haystack, needles, needle_tokens, needle_depths)
    results = causal_check(generator, cases, chosen, draws)
    if format_ is Format.json:
        found = {name: [asdict(row) for row in rows] for name, rows in results.items()}
        print_json({"needles": len(cases), "ablated": found, "silenced": found})  # the second is the older name
        return
    table = tables.table("ablated", "answer's words found", "log-probability of the answer")
    for name, rows in results.items():
        spreads = [Spread.of([r.recall for r in rows]), Spread.of([r.log_probability for r in rows])]
        table.add_row(plain(name), *(with_spread(s.mean, s.deviation) for s in spreads))
    out.print(f"{len(cases)} needles, model {plain(generator.name)}")
    out.print(table)
