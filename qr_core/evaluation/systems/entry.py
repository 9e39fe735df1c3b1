"""Entry: one system that takes part in an evaluation, and the kinds of system that entries are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.evaluation.work import CandidateSet, Handle

if TYPE_CHECKING:
    from qr_core.evaluation.options import EvaluationOptions
    from qr_core.scorer import QRScorer

Ranker = Callable[[Sequence[CandidateSet]], Iterable[list[float]]]
"""From candidate sets that share their documents to a score for each document, one list for each set."""


@dataclass(frozen=True)
class Entry:
    """One system.

    Attributes
    ----------
    name : str
    about : dict
        What decides its results, as plain data.
    make : callable, optional
        Loads it; raises ModelLoadError when weights are missing. None for full context, which ranks nothing.
    scorer : QRScorer, optional
        Of attention systems.
    missing : str
        Why it cannot take part.
    replies : callable, optional
        How many replies of a generator were of which kind, since it was made.
    kind : str
        What the line-up made it from; see `lineup.makers`.
    """

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    make: Callable[[], Ranker] | None = None
    scorer: QRScorer | None = None
    missing: str = ""
    replies: Callable[[], dict[str, int]] | None = None
    kind: str = ""

    def ranker(self) -> Ranker:
        """Make it.

        Raises
        ------
        ModelLoadError
            When it cannot be made.
        """
        if self.make is None:
            raise ModelLoadError(self.missing)
        return self.make()

    def handle(self) -> Handle:
        """Scores of each query, and what the replies to it were like; the ranker is made when it is first asked."""
        made = cache(self.ranker)
        counts = self.replies or dict

        def handle(sets: Sequence[CandidateSet]) -> Iterable[dict[str, Any]]:
            ranker, before = made(), counts()
            for candidates, scores in zip(sets, ranker(sets), strict=True):
                if len(scores) != len(candidates.documents) or not all(map(math.isfinite, scores)):
                    raise NonFiniteError(f"{self.name} gave a document no score, or one that is not finite")
                after = counts()
                yield {"scores": scores, "replies": {key: after[key] - before[key] for key in after}}
                before = after

        return handle


@dataclass(frozen=True)
class System:
    """A kind of system, known by name in `lineup.SYSTEMS`.

    Attributes
    ----------
    entries : callable
        From all options to its entries: one, or several where a system is drawn several times.
    needs : str
        The option that it cannot do without; see `EvaluationOptions.value`.
    because : str
        What that option is, for the error when it is missing.
    """

    entries: Callable[[EvaluationOptions], list[Entry]]
    needs: str = ""
    because: str = ""
