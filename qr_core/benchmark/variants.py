"""Variants: the computations that are compared, each with what must have happened before it.

Texts go in and scores come out where a scorer is measured, tokenising included; `plain` and `published` get token ids.
A variant more is an entry in `VARIANTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache

from qr_core.attention import rope
from qr_core.attention.capture import attention
from qr_core.benchmark.encoders import Score, cross_encoder, dense
from qr_core.benchmark.plan import ALL
from qr_core.benchmark.subject import Loaded
from qr_core.benchmark.task import Task
from qr_core.errors import InputError
from qr_core.ranking import scoring
from qr_core.ranking.calibration import subtract_null_query
from qr_core.registry import Registry
from qr_core.scorer import QRScorer
from qr_core.types import Layout, Ranking

MANY = 100
COLD: dict[Layout, str] = {"joint": "joint", "independent": "independent-cold", "late": "late-cold"}
WARM: dict[Layout, str] = {"joint": "second", "independent": "independent-second", "late": "late-second"}
"""One query in each layout: over documents that are new, and over documents that were encoded."""
Scores = list[float]
"""Of the documents, in the order given."""


class Case:
    """A model and a task, with what variants need to find done; each is done once, when first asked for."""

    def __init__(self, loaded: Loaded, task: Task) -> None:
        self.loaded, self.task = loaded, task
        self._ranked: dict[Layout, QRScorer] = {}
        self._combining: dict[Layout, QRScorer] = {}

    @property
    def first(self) -> str:
        """The query that is asked first."""
        return self.task.queries[0]

    @property
    def second(self) -> str:
        """Another one."""
        return self.task.queries[-1]

    @property
    def many(self) -> list[tuple[str, Any]]:
        """Jobs: a hundred other queries over the same documents."""
        return [(query, self.task.documents) for query in self.task.queries[-MANY:]]

    def ranked(self, layout: Layout) -> QRScorer:
        """Has ranked the documents."""
        if layout not in self._ranked:
            self._ranked[layout] = self.loaded.scorer(layout)
            self._ranked[layout].rank(self.first, self.task.documents)
        return self._ranked[layout]

    def combining(self, layout: Layout) -> QRScorer:
        """Has encoded the documents of both combinations, and keeps no combination of them."""
        if layout not in self._combining:
            scorer = self._combining[layout] = self.loaded.scorer(layout)
            for documents in (self.task.documents, self.task.combination):
                scorer.rank(self.first, documents)
            scorer.cache = None
        return self._combining[layout]


@dataclass(frozen=True)
class Variant:
    """One computation.

    Attributes
    ----------
    about : str
        What runs, in a line.
    before : callable
        Makes what `run` takes, or has it from before; not measured.
    run : callable
        What is measured: takes the case and what `before` made. Returns scores, or None where there are none.
    whole : bool
        Whether it needs all layers of the model.
    own_model : bool
        Whether it runs a model of its own in place of the subject's.
    continues : bool
        Whether a query continues a prompt in it, which an encoder cannot do.
    queries : int
        How many it answers.
    compared : callable
        From the subject's layout to the names of variants that say what its time is worth, which are run with it.
    """

    about: str
    before: Callable[[Case], Any]
    run: Callable[[Case, Any], Scores | None]
    whole: bool = False
    own_model: bool = False
    continues: bool = False
    queries: int = 1
    compared: Callable[[Layout], tuple[str, ...]] = lambda _: ()


VARIANTS: Registry[Variant] = Registry("variant")


def chosen(names: Iterable[str], loaded: Loaded) -> tuple[str, ...]:
    """The variants that `names` ask for, with those that they are compared with, in the order of the registry.

    `all` stands for those that the model can do.

    Raises
    ------
    InputError
        When there is no variant of a name, or an encoder cannot do it.
    """
    asked = set(names)
    for name in sorted(asked - {ALL}):
        VARIANTS.check(name)
    if not asked:
        raise InputError(f"no variant is named: use some of {', '.join(VARIANTS)}")
    able = [name for name, variant in VARIANTS.items() if not (variant.continues and loaded.sees_ahead)]
    unable = sorted(asked - {ALL} - set(able))
    if unable:
        raise InputError(
            f"{loaded.name} is an encoder, in which no query continues a prompt: it has no variant "
            f"{', '.join(unable)}; use some of {', '.join(able)}"
        )
    if ALL in asked:
        asked = set(able)
    for name in sorted(asked):
        asked |= set(VARIANTS[name].compared(loaded.layout))
    return tuple(name for name in VARIANTS if name in asked)


def in_order(ranking: Ranking) -> Scores:
    """Scores in the order of the caller's documents."""
    return [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]


def prompt_tokens(loaded: Loaded, task: Task) -> int:
    """How many tokens the joint prompt of a task takes."""
    return len(loaded.prompts(task.queries[0], task.documents)[0].ids)


def _rank_first(case: Case, scorer: QRScorer) -> Scores:
    return in_order(scorer.rank(case.first, case.task.documents))


def _rank_second(case: Case, scorer: QRScorer) -> Scores:
    return in_order(scorer.rank(case.second, case.task.documents))


def _rank_combination(case: Case, scorer: QRScorer) -> Scores:
    return in_order(scorer.rank(case.second, case.task.combination))


def _rank_many(case: Case, scorer: QRScorer) -> None:
    scorer.rank_many(case.many)


def _ids(case: Case) -> torch.Tensor:
    asked, _ = case.loaded.prompts(case.first, case.task.documents)
    return torch.tensor([asked.ids], device=case.loaded.device)


@torch.inference_mode()
def _plain(case: Case, ids: torch.Tensor) -> None:
    case.loaded.whole()(input_ids=ids, past_key_values=DynamicCache(), use_cache=True)


@torch.inference_mode()
def _published(case: Case, prompts: Any) -> Scores:
    """What the published code does, on the same prompts."""
    asked, null = prompts
    model, heads = case.loaded.whole(), case.loaded.heads.by_layer()
    prefix = torch.tensor([asked.ids[: asked.query_start]], device=model.device)
    masses = []
    with rope.held_to(model, max(len(asked.ids), len(null.ids))):
        kept = model(input_ids=prefix, past_key_values=DynamicCache(), use_cache=True).past_key_values
        for prompt in (asked, null):
            suffix = torch.tensor([prompt.ids[prompt.query_start :]], device=model.device)
            with attention(model, "eager"):
                weights = model(
                    input_ids=suffix, past_key_values=kept, use_cache=True, output_attentions=True
                ).attentions
            kept.crop(-suffix.shape[1])
            # (layers, heads, prefix tokens)
            every = torch.stack([layer[0].float().mean(dim=1)[:, : prefix.shape[1]] for layer in weights])
            masses.append(torch.cat([every[layer, chosen] for layer, chosen in heads.items()]).cpu())
    scorer = case.loaded.scorer()
    mass = subtract_null_query(masses[0], (masses[1],)) if scorer.calibrate else masses[0]
    return [float(s) for s in scoring.score_documents(mass.sum(dim=0), asked.document_spans, scorer.filter_tokens)]


def _encode(case: Case, score: Score) -> Scores:
    return score(case.first, case.task.documents)


for _name, _variant in {
    "plain": Variant(
        "one forward pass of the joint prompt, all layers, no language-model head, keys and values kept",
        before=_ids,
        run=_plain,
        whole=True,
        continues=True,
    ),
    "published": Variant(
        "documents through all layers, then query and `N/A` with the attention of all layers and heads",
        before=lambda case: case.loaded.prompts(case.first, case.task.documents),
        run=_published,
        whole=True,
        continues=True,
    ),
    "joint": Variant(
        "`rank`, nothing encoded before",
        before=lambda case: case.loaded.scorer("joint"),
        run=_rank_first,
        continues=True,
    ),
    "second": Variant(
        "`rank` of another query over the same documents",
        before=lambda case: case.ranked("joint"),
        run=_rank_second,
        continues=True,
    ),
    "many": Variant(
        "`rank_many` of a hundred queries over the same documents, nothing encoded before, in the chosen layout",
        before=lambda case: case.loaded.scorer(case.loaded.layout),
        run=_rank_many,
        queries=MANY,
        compared=lambda layout: (COLD[layout], WARM[layout], "many-warm"),
    ),
    "many-warm": Variant(
        "the same over documents that were ranked before",
        before=lambda case: case.ranked(case.loaded.layout),
        run=_rank_many,
        queries=MANY,
        compared=lambda layout: (WARM[layout],),
    ),
    "cross-encoder": Variant(
        "all pairs, 32 at a time", lambda case: cross_encoder(case.loaded), _encode, own_model=True
    ),
    "dense": Variant(
        "the query and every document, one by one", lambda case: dense(case.loaded), _encode, own_model=True
    ),
}.items():
    VARIANTS.add(_name, _variant)


def _cold(layout: Layout, case: Case) -> QRScorer:
    return case.loaded.scorer(layout)


def _ranked(layout: Layout, case: Case) -> QRScorer:
    return case.ranked(layout)


def _combining(layout: Layout, case: Case) -> QRScorer:
    return case.combining(layout)


_ALONE: dict[Layout, str] = {
    "independent": "documents encoded independently",
    "late": "documents and query encoded alone, meeting in the layers that are read",
}
for _layout, _said in _ALONE.items():
    for _name, _variant in {
        "cold": Variant(f"`rank` with {_said}, nothing encoded before", partial(_cold, _layout), _rank_first),
        "second": Variant("another query over the same documents", partial(_ranked, _layout), _rank_second),
        "warm": Variant(
            "a new query over a new combination and order of documents that were encoded before",
            partial(_combining, _layout),
            _rank_combination,
        ),
    }.items():
        VARIANTS.add(f"{_layout}-{_name}", replace(_variant, continues=_layout == "independent"))
