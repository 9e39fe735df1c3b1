"""Measuring: what every head of a model pays every document of an example, kept as it comes.

Knows nothing of how heads are judged, of who measures, or of where examples come from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qr_core.files.workfolder import WorkFolder
from qr_core.parallel.pool import left_out
from qr_core.ranking import scoring
from qr_core.scorer import QRScorer
from qr_core.types import Document


@dataclass(frozen=True)
class Example:
    """A query, documents, and which of them answer it.

    Attributes
    ----------
    id : str
        Names it in reports.
    query : str
    documents : tuple of Document
        In prompt order.
    gold : tuple of int
        Positions of the documents that answer.
    """

    id: str
    query: str
    documents: tuple[Document, ...]
    gold: tuple[int, ...]

    def problem(self) -> str | None:
        """Why nothing can be learnt from it, or None."""
        if not self.query.strip():
            return "its query is empty"
        if not self.gold:
            return "none of its documents is marked as answering"
        wrong = [place for place in self.gold if not 0 <= place < len(self.documents)]
        if wrong:
            return f"document {wrong[0]} is marked as answering, and there are {len(self.documents)}"
        if len(set(self.gold)) == len(self.documents):
            return "all its documents are marked as answering"
        return None

    def shuffled(self, seed: int) -> Example:
        """The same with documents in an order that depends on `seed` and `id` alone."""
        order = list(range(len(self.documents)))
        random.Random(f"{seed} {self.id}").shuffle(order)
        place = {old: new for new, old in enumerate(order)}
        return replace(
            self,
            documents=tuple(self.documents[old] for old in order),
            gold=tuple(sorted({place[old] for old in self.gold})),
        )


@dataclass(frozen=True)
class Measured:
    """What every candidate head pays every document of one example.

    Attributes
    ----------
    id : str
    gold : tuple of int
    raw : Tensor
        Float32, shape (heads, documents): attention mass of the query.
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


def measure_all(
    examples: Sequence[Example],
    heads: int,
    folder: WorkFolder | None,
    run: Callable[[Sequence[Example]], Iterator[tuple[int, Measured]]],
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
    run : callable
        Measures examples: yields the position and what was found of each, in any order.
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
