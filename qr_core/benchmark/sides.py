"""Sides: the computations that are compared, each with what must have happened before it.

    plain              one forward pass of the joint prompt through all layers, no language-model head, keys kept
    published          documents through all layers, then the query and `N/A` with the attention of all heads
    joint              `rank`, nothing read before
    second             `rank`, another query over the same documents
    many               `rank_many` of a hundred queries, nothing read before
    independent-cold   `rank` with every document encoded apart, nothing read before
    independent-warm   the same for a new combination of documents that were read before, and a new query
    cross-encoder      one pass over every pair of query and document
    dense              one pass over the query and every document, nothing read before

Texts go in and scores come out where a scorer is measured, tokenising included; `plain` and `published` get token ids.

Knows nothing of clocks or memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import DynamicCache

from qr_core.attention import rope
from qr_core.attention.capture import attention
from qr_core.benchmark.encoders import cross_encoder, dense
from qr_core.benchmark.subject import Loaded
from qr_core.benchmark.task import Task
from qr_core.ranking import scoring
from qr_core.scorer import QRScorer
from qr_core.types import Ranking

MANY = 100
Scores = list[float]
"""Of the documents, in the order given."""


@dataclass(frozen=True)
class Side:
    """One computation.

    Attributes
    ----------
    prepare : callable
        Makes what `run` takes, or has it from before; not measured.
    run : callable
        What is measured. Returns scores, or None where there are none.
    whole : bool
        Whether it needs all layers of the model.
    """

    prepare: Callable[[], Any]
    run: Callable[[Any], Scores | None]
    whole: bool = False


def sides_of(loaded: Loaded, task: Task) -> dict[str, Side]:
    """Every side, by name; nothing is loaded yet."""
    first, second = task.queries[0], task.queries[-1]

    @cache
    def read_before() -> QRScorer:
        scorer = loaded.scorer()
        scorer.rank(first, task.documents)
        return scorer

    @cache
    def encoded_before() -> QRScorer:
        scorer = loaded.scorer("independent")
        for documents in (task.documents, task.combination):
            scorer.rank(first, documents)
        scorer.cache = None  # what was put together is put together anew, from documents that are kept
        return scorer

    def rank_many(scorer: QRScorer) -> None:
        scorer.rank_many([(query, task.documents) for query in task.queries[-MANY:]])

    return {
        "plain": Side(lambda: _ids(loaded, task), lambda ids: _plain(loaded, ids), whole=True),
        "published": Side(
            lambda: loaded.prompts(first, task.documents),
            lambda prompts: _published(loaded, *prompts),
            whole=True,
        ),
        "joint": Side(loaded.scorer, lambda scorer: in_order(scorer.rank(first, task.documents))),
        "second": Side(read_before, lambda scorer: in_order(scorer.rank(second, task.documents))),
        "many": Side(loaded.scorer, rank_many),
        "independent-cold": Side(
            lambda: loaded.scorer("independent"), lambda scorer: in_order(scorer.rank(first, task.documents))
        ),
        "independent-warm": Side(encoded_before, lambda scorer: in_order(scorer.rank(second, task.combination))),
        "cross-encoder": Side(
            lambda: cross_encoder(loaded.subject, loaded.tokenizer, loaded.partial().dtype),
            lambda score: score(first, task.documents),
        ),
        "dense": Side(
            lambda: dense(loaded.subject, loaded.tokenizer, loaded.partial().dtype),
            lambda score: score(first, task.documents),
        ),
    }


SIDES = (
    "plain", "published", "joint", "second", "many", "independent-cold", "independent-warm", "cross-encoder",
    "dense",
)  # fmt: skip
ENCODERS = ("cross-encoder", "dense")
"""Sides with a model of their own."""


def in_order(ranking: Ranking) -> Scores:
    """Scores in the order of the caller's documents."""
    return [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]


def prompt_tokens(loaded: Loaded, task: Task) -> int:
    """How many tokens the joint prompt of a task takes."""
    return len(loaded.prompts(task.queries[0], task.documents)[0].ids)


def _ids(loaded: Loaded, task: Task) -> torch.Tensor:
    asked, _ = loaded.prompts(task.queries[0], task.documents)
    return torch.tensor([asked.ids], device=loaded.subject.device)


@torch.inference_mode()
def _plain(loaded: Loaded, ids: torch.Tensor) -> None:
    loaded.whole()(input_ids=ids, past_key_values=DynamicCache(), use_cache=True)


@torch.inference_mode()
def _published(loaded: Loaded, asked: Any, null: Any) -> Scores:
    """What the published code does, on the same prompts."""
    model, heads = loaded.whole(), loaded.heads.by_layer()
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
            every = torch.stack([layer[0].float().mean(dim=1)[:, : prefix.shape[1]] for layer in weights])
            masses.append(torch.cat([every[layer, chosen] for layer, chosen in heads.items()]).cpu())
    scorer = loaded.scorer()
    mass = scoring.calibrate(masses[0], masses[1]) if scorer.calibrate else masses[0]
    return [float(s) for s in scoring.score_documents(mass.sum(dim=0), asked.document_spans, scorer.filter_tokens)]
