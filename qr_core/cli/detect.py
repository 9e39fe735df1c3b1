"""Command line of head detection: `qrhead detect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qr_core.cli.common import EngineOption, FormatOption, err, out, print_json, progress
from qr_core.cli.flat import names_in
from qr_core.cli.needles import NeedleOptions, generator_of
from qr_core.detection.options import DetectionOptions
from qr_core.display.terminal import plain
from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.files.replace import check_writable
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Workers

if TYPE_CHECKING:
    from qr_core.detection.detect import Detection
    from qr_core.heads.sets import HeadSet

COPY_PASTE = "copy-paste"
"""The one criterion that needs no examples, but a model that writes."""
BESIDE = (".png", ".work")


@dataclass(frozen=True)
class ExampleOptions:
    """Which examples heads are judged by."""

    PANEL = "Examples"

    data: Path | None = option(None, "A BEIR folder, long-context JSON, or JSON lines. Not for copy-paste.")
    candidates: Path | None = option(None, "BEIR: a TREC run, or JSON lines.")
    depth: int | None = option(None, "BEIR: at most this many candidates, the first ones.", least=1)


def detect(
    save_to: Annotated[Path, typer.Option("--out", help="The head-set file to write.")],
    *,
    criterion: Annotated[
        str,
        typer.Option(
            help="qrscore: mass on the gold documents. ndcg: each head's own. contrastive: CoRe. copy-paste: retrieval "
            "heads.",
            metavar=names_in("qr_core.detection.criteria:CRITERIA", COPY_PASTE),
        ),
    ] = "qrscore",
    engine: EngineOption = "local",
    format_: FormatOption = "table",
    examples: ExampleOptions,
    judging: DetectionOptions,
    needles: NeedleOptions = NeedleOptions(needle_tokens=(500, 1000)),  # noqa: B008 - it cannot change
    scorer: ScorerOptions,
    workers: Workers,
) -> None:
    """Find the heads of a model that look at what answers, from a handful of examples.

    Beside the head-set file stand its map (.png), what fewer layers or examples would give (.json, .png), and a work
    folder (.work) from which an interrupted run goes on.
    """
    from qr_core.detection.criteria import CRITERIA
    from qr_core.detection.report import trade_offs, write_beside

    if save_to.suffix in BESIDE:
        raise InputError(
            f"--out {save_to}: a file of that name is written beside the head set, name one ending in .json"
        )
    check_writable(save_to)
    report: dict[str, Any] = {}
    if criterion == COPY_PASTE:
        if examples.data is not None:
            raise InputError("copy-paste takes --haystack and --needles, not --data")
        if engine == "ray":
            raise InputError("copy-paste runs in this process: leave out --engine ray")
        heads = _retrieval_heads(scorer, judging.num_heads, needles)
    else:
        if criterion not in CRITERIA:
            raise InputError(f"criterion is {criterion!r}: use one of {', '.join((*CRITERIA, COPY_PASTE))}")
        work = save_to.with_suffix(".work")
        detection = _detection(scorer, examples, criterion, options=judging, work=work, engine=engine, workers=workers)
        heads, report = detection.heads, trade_offs(detection, judging.seed)
    heads.save(save_to)
    try:
        write_beside(save_to, heads, report)
    except InputError as error:
        err.print(plain(f"no pictures: {error}"), soft_wrap=True)
    if format_ == "json":
        print_json({"out": str(save_to), "heads": [list(h) for h in heads.heads], **report})
    else:
        _show(save_to, heads, report)


def _detection(scorer: ScorerOptions, asked: ExampleOptions, criterion: str, **more: Any) -> Detection:
    from qr_core.detection.detect import detect_heads
    from qr_core.evaluation.data.examples import read_examples

    if asked.data is None:
        raise InputError("pass examples with --data")
    examples, problems = read_examples(asked.data, asked.candidates, asked.depth)
    with progress("examples") as show:
        detection = detect_heads(
            scorer, examples, criterion, data=asked.data.name, unreadable=problems, progress=show, **more
        )
    for name, reason in list(detection.left_out.items())[:10]:
        err.print(plain(f"left out {name}: {reason}"), soft_wrap=True)
    if detection.left_out:
        err.print(f"left out {len(detection.left_out)} examples, used {len(detection.measured)}")
    return detection


def _retrieval_heads(scorer: ScorerOptions, num_heads: int | None, needles: NeedleOptions) -> HeadSet:
    from qr_core.detection.copying import copy_scores, retrieval_heads

    generator = generator_of(scorer)
    cases = needles.cases(generator)
    with progress("needles") as show:
        scores = copy_scores(generator, cases, progress=show)
    return retrieval_heads(generator, scores, num_heads, len(cases))


def _show(path: Path, heads: HeadSet, report: dict[str, Any]) -> None:
    from qr_core.detection.report import shown
    from qr_core.heads.maps import terminal_map
    from qr_core.heads.pairs import format_pairs

    listed = format_pairs(heads.pairs(), ", ")
    out.print(f"{len(heads.heads)} heads of {plain(heads.model)} by {heads.criterion}: {listed}", soft_wrap=True)
    out.print(terminal_map(heads))
    for part in shown(report):
        out.print(part)
    out.print(f"written: {plain(str(path))}", soft_wrap=True)
