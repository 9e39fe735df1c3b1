"""Chain: what the adapters of retrieval frameworks share: options, one lazy scorer, and rank - threshold - cut - prune.

Knows nothing of any framework: documents come in; positions, scores and pruned texts go out.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, model_validator

from qr_core.checks import check_ellipsis
from qr_core.fields import option_type
from qr_core.forks import after_fork
from qr_core.mini import named_model
from qr_core.options import ScorerOptions
from qr_core.registry import registry_at
from qr_core.scorer import QRScorer
from qr_core.text.chunking import TextFormat
from qr_core.text.units import UnitName
from qr_core.types import Order

T = TypeVar("T")
_making = threading.Lock()


@after_fork
def _after_fork() -> None:
    """Another thread of the parent may have been making a scorer: its lock is never given back in the child."""
    global _making
    _making = threading.Lock()


@dataclass(frozen=True)
class Kept:
    """One document that goes on.

    Attributes
    ----------
    index : int
        Its position in the caller's list.
    relevance : float
        As `qr_core.types.Hit` has it; depends on the other documents.
    text : str or None
        What pruning left of it; None when nothing was pruned.
    spans : tuple of (int, int)
        The kept parts: characters of its original text.
    kept_tokens, total_tokens : int
        Of `text` and of the original, by the scorer's tokenizer; 0 when nothing was pruned.
    """

    index: int
    relevance: float
    text: str | None = None
    spans: tuple[tuple[int, int], ...] = ()
    kept_tokens: int = 0
    total_tokens: int = 0

    def pruning(self) -> dict[str, Any]:
        """What to record in a document's metadata; empty when nothing was pruned. Plain data for JSON."""
        if self.text is None:
            return {}
        return {
            "qrhead_spans": [list(span) for span in self.spans],
            "qrhead_kept_tokens": self.kept_tokens,
            "qrhead_total_tokens": self.total_tokens,
        }


def _plain_fields() -> dict[str, Any]:
    """The fields of `ScorerOptions` as fields of a pydantic model: plain data, so that adapters can be written down."""
    found: dict[str, Any] = {}
    for one in fields(ScorerOptions):
        if "adapters" not in one.metadata.get("absent", {}):
            about, default = one.metadata, cast(Any, one.default)
            found[one.name] = (
                option_type(ScorerOptions, one, "plain", "cli"),
                Field(default=default, description=about["help"], ge=about.get("least"), le=about.get("most")),
            )
    return found


if TYPE_CHECKING:

    class _ScorerFields(BaseModel, ScorerOptions):
        """For type checkers: the fields made below."""
else:
    _ScorerFields = create_model("_ScorerFields", __module__=__name__, **_plain_fields())


class ChainOptions(_ScorerFields):
    """Options that every adapter has: those of a scorer, and those below.

    The model loads at the first call and is shared by the adapters of equal options.
    """

    top_n: int | None = Field(default=None, ge=1, description="Keep at most this many; by default all.")
    score_threshold: float | None = Field(
        default=None, ge=0, le=1, description="Least relevance, in [0, 1], inclusive; applied before top_n."
    )
    order: Order = Field(
        default="reversed", description="reversed: the first document, the most promising, stands nearest the query."
    )
    prune: bool = Field(default=False, description="Cut what is kept down to the parts that matter.")
    prune_max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of all kept texts together.")
    prune_min_relevance: float | None = Field(default=None, ge=0, le=1, description="Least relevance of a part.")
    prune_unit: UnitName = Field(default="sentence", description="What is kept or left out as a whole.")
    prune_min_keep: int = Field(
        default=1, ge=0, description="Keep at least this many of the best parts, whatever their relevance."
    )
    prune_ellipsis: str | None = Field(default=None, description="Mark where something was left out.")
    text_format: TextFormat = Field(default="text", description="text, markdown or chat; matters for pruning.")
    keep_retrieval_score: bool = Field(default=False, description="Keep the score from before as retrieval_score.")

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())
    _scorer: QRScorer | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> ChainOptions:
        self.scorer_options()
        for one in fields(ScorerOptions):
            if "registry" in one.metadata and (name := getattr(self, one.name)) is not None:
                registry_at(one.metadata["registry"]).check(name)
        check_ellipsis("prune_ellipsis", self.prune_ellipsis)
        if self.prune and self.prune_max_tokens is None and self.prune_min_relevance is None:
            raise ValueError("prune needs prune_max_tokens or prune_min_relevance")
        return self

    def __reduce__(self) -> Any:
        """Pickle the options alone: neither weights nor callbacks travel."""
        names = [name for name, field in type(self).model_fields.items() if not field.exclude]
        return _rebuilt, (type(self), {name: getattr(self, name) for name in names})

    @property
    def model_name(self) -> str:
        """The model's name, known before it is loaded."""
        return named_model(self.model).name

    @property
    def scorer(self) -> QRScorer:
        """The scorer behind these options, made at first use; its weights load at its first score.

        Raises
        ------
        ModelLoadError, HeadSetError
            As for `QRScorer.from_pretrained`.
        """
        with _making:
            if self._scorer is None:
                self._scorer = QRScorer.from_options(self.scorer_options())
            return self._scorer

    def scorer_options(self) -> ScorerOptions:
        """Those of the scorer."""
        names = [one.name for one in fields(ScorerOptions) if one.name in _ScorerFields.model_fields]
        return ScorerOptions(**{name: getattr(self, name) for name in names})

    async def in_scorers_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run `function` on the scorer's own thread; making the scorer does not block the event loop either."""
        if self._scorer is None:
            await asyncio.to_thread(getattr, self, "scorer")
        return await self.scorer.run_async(function, *args)

    def select(self, query: str, scored: Sequence[str], pruned: Sequence[str] | None = None) -> list[Kept]:
        """Rank, drop what is below the threshold, cut to `top_n`, and prune what is left.

        Parameters
        ----------
        query : str
        scored : sequence of str
            What each document is scored on.
        pruned : sequence of str, optional
            What each document is pruned to parts of; by default the same.

        Returns
        -------
        list of Kept
            Best first. A document of which pruning keeps nothing is left out, unless its text is blank. Without
            documents nothing is loaded.

        Raises
        ------
        InputError, ModelLoadError, NonFiniteError
            As for `QRScorer.rank`.
        """
        if not scored:
            return []
        ranking = self.scorer.rank(query, scored, order=self.order)
        least = 0.0 if self.score_threshold is None else self.score_threshold
        hits = [hit for hit in ranking if hit.relevance >= least][: self.top_n]
        kept = [Kept(hit.index, hit.relevance) for hit in hits]
        return self._pruned(query, kept, scored if pruned is None else pruned) if self.prune else kept

    def _pruned(self, query: str, kept: Sequence[Kept], texts: Sequence[str]) -> list[Kept]:
        found = self.scorer.prune(
            query,
            [texts[document.index] for document in kept],
            max_tokens=self.prune_max_tokens,
            min_relevance=self.prune_min_relevance,
            min_keep=self.prune_min_keep,
            unit=self.prune_unit,
            text_format=self.text_format,
            ellipsis=self.prune_ellipsis,
            order=self.order,
        )
        left = dict(found.texts)
        going_on = []
        for place, document in enumerate(kept):
            original = texts[document.index]
            if place in left:
                spans = tuple((span.start, span.end) for span in found.spans if span.index == place)
                tokens = [self.scorer.count_tokens(text) for text in (left[place], original)]
                going_on.append(Kept(document.index, document.relevance, left[place], spans, *tokens))
            elif not original.strip():
                going_on.append(document)
        return going_on


def _rebuilt(kind: type[ChainOptions], fields: dict[str, Any]) -> ChainOptions:
    return kind(**fields)
