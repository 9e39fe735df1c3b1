"""Measuring: the attention mass of every document of an example, for every head of a model; kept as it comes.

Knows nothing of how heads are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from qr_core.detection.examples import Example
from qr_core.errors import ENDINGS, InputError, QRHeadError, StoppedError, reason_of
from qr_core.files.workfolder import WorkFolder
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Workers, left_out, on_ray
from qr_core.ranking import scoring
from qr_core.scorer import QRScorer

Source = QRScorer | ScorerOptions
"""A scorer, or what one is made with."""
Run = Callable[[Sequence[Example]], Iterator[tuple[int, "Measured"]]]
"""Measures examples: yields the position and the result of each, in any order."""


@dataclass(frozen=True)
class Measured:
    """Attention mass of every document of one example, for every candidate head.

    Attributes
    ----------
    id : str
    gold : tuple of int
    raw : Tensor
        Float32, shape (heads, documents): mass of the query.
    calibrated : Tensor
        Same shape: minus that of the content-free query `N/A`.
    filtered : Tensor
        Same shape: calibrated, without each head's low tokens, as the published code detects.
    """

    id: str
    gold: tuple[int, ...]
    raw: Tensor
    calibrated: Tensor
    filtered: Tensor

    def scores(self, calibrated: bool) -> Tensor:
        """The form that criteria judge: filtered, or raw."""
        return self.filtered if calibrated else self.raw


_FORMS = ("raw", "calibrated", "filtered")


def _kept(done: dict[str, Tensor] | None, example: Example, heads: int) -> Measured | None:
    """What a work folder has of an example; None when it is nothing, or cannot be this example's."""
    if done is None or set(done) != set(_FORMS):
        return None
    shape = (heads, len(example.documents))
    if any(tensor.shape != shape or tensor.dtype != torch.float32 for tensor in done.values()):
        return None
    if not all(torch.isfinite(tensor).all() for tensor in done.values()):
        return None
    return Measured(example.id, example.gold, **done)


def every_head(source: Source, max_layer: int | None) -> QRScorer:
    """A scorer of all heads that attend to whole prompts, calibrated.

    Parameters
    ----------
    max_layer : int, optional
        Deepest layer allowed.

    Raises
    ------
    InputError
        When the model has no such layer.
    """
    base = source if isinstance(source, QRScorer) else QRScorer.from_options(source)
    shape = base.heads.config
    if max_layer is not None and max_layer >= shape.layers:
        raise InputError(f"max_layer is {max_layer}, and the model has layers 0-{shape.layers - 1}")
    allowed = [pair for pair in shape.pairs() if max_layer is None or pair[0] <= max_layer]
    # A head in a sliding window sees the last documents only, and would be judged by where the gold ones stand.
    near = base.reader.windows
    whole = [pair for pair in allowed if pair[0] not in near] or allowed
    return base.with_heads(base.heads.with_pairs(whole), "all", calibrate=True)


def measure(scorer: QRScorer, example: Example) -> Measured:
    """Score one example's documents with every head of `scorer`, each on its own.

    Raises
    ------
    InputError, ModelLoadError, NonFiniteError
        As for `QRScorer.token_masses`.
    """
    found = scorer.token_masses(example.query, example.documents)
    spans = found.prompt.document_spans
    return Measured(
        example.id,
        example.gold,
        raw=scoring.score_documents(found.raw, spans, filtered=False),
        calibrated=scoring.score_documents(found.mass, spans, filtered=False),
        filtered=scoring.score_documents(found.mass, spans, filtered=True),
    )


def here(scorer: QRScorer, examples: Sequence[Example]) -> Iterator[tuple[int, Measured]]:
    """Measure in this process."""
    return ((number, _measured(scorer, example)) for number, example in enumerate(examples))


def _measured(scorer: QRScorer, example: Example) -> Measured:
    """`measure`; an error that nobody expected names the example, so that it can be left out."""
    try:
        return measure(scorer, example)
    except (QRHeadError, *ENDINGS):
        raise
    except BaseException as error:
        raise StoppedError(
            f"example {example.id}: {type(error).__name__}: {reason_of(error)}; what is measured is kept: take the "
            "example out if the same command fails there again"
        ) from error


def on_workers(
    options: ScorerOptions, max_layer: int | None, workers: Workers | None, examples: Sequence[Example]
) -> Iterator[tuple[int, Measured]]:
    """Measure on Ray, each worker with a scorer of its own."""
    return on_ray(examples, partial(_measuring, options, max_layer), workers or Workers(), options.device)


def _measuring(options: ScorerOptions, max_layer: int | None) -> Callable[[Example], Measured]:
    return partial(_measured, every_head(options, max_layer))


def measure_all(
    examples: Sequence[Example],
    heads: int,
    folder: WorkFolder | None,
    run: Run,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Measure what `folder` does not have yet.

    Parameters
    ----------
    examples : sequence of Example
    heads : int
        How many are measured.
    folder : WorkFolder, optional
        Gets every example as soon as it is measured.
    run : Run
        `here` or `on_workers`, but for the examples.
    progress : callable, optional
        Called with the number of examples done, and of all.

    Returns
    -------
    list of Measured
        In the order of `examples`.

    Raises
    ------
    StoppedError
        When `run` left some out.
    """
    report = progress or (lambda *_: None)
    found: dict[int, Measured] = {}
    for number, example in enumerate(examples):
        kept = None if folder is None else _kept(folder.load(number), example, heads)
        if kept is not None:
            found[number] = kept
            report(len(found), len(examples))
    waiting = [number for number in range(len(examples)) if number not in found]
    for place, measured in run([examples[number] for number in waiting]):
        number = waiting[place]
        if folder is not None:
            folder.save(number, {name: getattr(measured, name) for name in _FORMS})
        found[number] = measured
        report(len(found), len(examples))
    missing = [examples[number].id for number in waiting if number not in found]
    if missing:
        raise left_out("examples", missing, len(examples))
    return [found[number] for number in range(len(examples))]
