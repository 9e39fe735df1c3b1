"""Packs: what one training prompt holds, and how much of its attention each passage should get.

A pack grows around one query: its answers, the passages that the teacher, BM25, the file or the article say are hard
to tell from them, and strangers. Its other queries are those that its passages answer, and strays: queries that some
passage is near to without answering them, which only the teacher judges.

Knows nothing of tokens or of the model.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qr_core.mini.data import Collection, Passage, held_out

MOST_QUERIES = 8
MOST_STRAYS = 8
FUSION = 0.75


@dataclass(frozen=True)
class Pack:
    """P passages in prompt order and Q queries.

    Attributes
    ----------
    targets : Tensor
        Shape (Q, P), rows sum to 1: the answers' share, mixed with the teacher's.
    golds : Tensor
        Bool, shape (Q, P): the answers; no True in a row where only the teacher knows.
    passage_vectors, query_vectors : Tensor
        The teacher's, shapes (P, hidden) and (Q, hidden).
    """

    passages: list[Passage]
    queries: list[str]
    targets: Tensor
    golds: Tensor
    passage_vectors: Tensor
    query_vectors: Tensor


class Packs:
    """Draws packs.

    Parameters
    ----------
    collection : Collection
    vectors : (Tensor, Tensor)
        The teacher's, of passages and queries.
    near : list of list of list of int
        Kinds of hard negatives; each kind has one list of passages for each query.
    held : bool
        Draw the held-out queries, among all passages, instead of the others among passages that are not held out.
    lexical : callable, optional
        BM25 of all passages for a query; the teacher's shares are then those of both.
    temperature : float
        Of the teacher's shares.
    banned : frozenset of int
        Passages that are never drawn, nor the queries that they answer.
    """

    SHARES: ClassVar[dict[str, float]] = {
        "nqg": 0.10,
        "nqg-joined": 0.14,
        "squadshifts_new_wiki": 0.14,
        "squadshifts_reddit": 0.06,
        "squadshifts_amazon": 0.06,
        "nq_oracle": 0.18,
        "multihop": 0.16,
        "anthropic_docs_rag": 0.02,
        "books": 0.14,
    }
    """How often each source gives the first query of a pack."""
    LABEL_WEIGHT: ClassVar[dict[bool, float]] = {True: 0.5, False: 0.3}
    """Weight of the answers against the teacher's shares, for questions people asked and for queries made here."""

    def __init__(
        self,
        collection: Collection,
        vectors: tuple[Tensor, Tensor],
        near: Sequence[list[list[int]]],
        held: bool = False,
        lexical: Callable[[str], Sequence[float]] | None = None,
        temperature: float = 0.05,
        banned: frozenset[int] = frozenset(),
    ) -> None:
        self.passages, self.queries = collection.passages, collection.queries
        self.passage_vectors, self.query_vectors = vectors
        self.near, self.lexical, self.temperature = near, lexical, temperature
        self.allowed = {i for i, passage in enumerate(self.passages) if held or not held_out(passage)} - banned
        self.by_group: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.by_source: dict[str, list[int]] = defaultdict(list)
        for i in sorted(self.allowed):
            self.by_group[self.passages[i].source, self.passages[i].group].append(i)
            self.by_source[self.passages[i].source].append(i)
        self.asked_of: dict[int, list[int]] = defaultdict(list)
        self.seeds: dict[str, list[int]] = defaultdict(list)
        self.near_to: dict[int, list[int]] = defaultdict(list)
        for i, query in enumerate(self.queries):
            if held_out(query) != held or not self.allowed.issuperset(query.golds):
                continue
            self.seeds[query.source].append(i)
            for place in near[0][i][:12]:
                self.near_to[place].append(i)
            for gold in query.golds[:1]:
                self.asked_of[gold].append(i)
        self.sources = [name for name in self.seeds if self.SHARES.get(name, 0) and len(self.by_source[name]) > 2]

    def draw(self, rng: random.Random) -> Pack:
        """The next pack: at least three passages, at least one query."""
        while True:
            source = rng.choices(self.sources, [self.SHARES[name] for name in self.sources])[0]
            seed = rng.choice(self.seeds[source])
            places = self._passages(seed, rng)
            if len(places) >= 3:
                return self._pack(seed, places, rng)

    def _passages(self, seed: int, rng: random.Random) -> list[int]:
        """Answers first, then hard negatives of every kind among strangers, until one of two limits is reached."""
        query = self.queries[seed]
        most = rng.randint(6, rng.choice((12, 20, 36)))
        budget = rng.choice((400, 900, 1400, 2400))
        kinds = [list(kind[seed]) for kind in self.near]
        group = self.by_group[query.source, query.group]
        kinds.append(rng.sample(group, min(len(group), most)))
        kinds.append(rng.sample(query.negatives, len(query.negatives)))
        kinds = [kind for kind in kinds if kind]
        hard = rng.choice((0.5, 0.75, 1.0))
        nearest = [place for place in self.near[0][seed] if place in self.allowed]
        chosen = dict.fromkeys(query.golds or nearest[:2])
        total = sum(len(self.passages[place].text.split()) for place in chosen)
        for _ in range(3 * most):
            if len(chosen) >= most or total >= budget:
                break
            if rng.random() < hard and any(kinds):
                kind = rng.choice([kind for kind in kinds if kind])
                place = kind.pop(min(int(rng.expovariate(0.2)), len(kind) - 1))
            else:
                place = rng.choice(self.by_source[query.source if rng.random() < 0.7 else rng.choice(self.sources)])
            if place in self.allowed and place not in chosen:
                chosen[place] = None
                total += len(self.passages[place].text.split())
        return rng.sample(list(chosen), len(chosen))

    def _pack(self, seed: int, places: list[int], rng: random.Random) -> Pack:
        found = [
            query
            for place in places
            for query in rng.sample(self.asked_of[place], min(2, len(self.asked_of[place])))
            if query != seed and set(self.queries[query].golds) <= set(places)
        ]
        asked_here = [seed, *rng.sample(found, min(len(found), MOST_QUERIES - 1))]
        strays = [rng.choice(self.near_to[place]) for place in places if place in self.near_to]
        strays = sorted(set(strays).difference(asked_here))
        asked_here += rng.sample(strays, min(len(strays), MOST_STRAYS))
        queries = [self.queries[i] for i in asked_here]
        passage_vectors = self.passage_vectors[places].float()
        query_vectors = self.query_vectors[asked_here].float()
        logits = query_vectors @ passage_vectors.T / self.temperature
        if self.lexical is not None:
            scores = [self.lexical(query.text) for query in queries]
            logits = fused(logits, torch.tensor([[row[place] for place in places] for row in scores]))
        targets = torch.softmax(logits, dim=1)
        golds = torch.tensor([[place in query.golds for place in places] for query in queries])
        for row, query in enumerate(queries):
            if query.golds and set(query.golds) <= set(places):
                weight = self.LABEL_WEIGHT[query.asked]
                targets[row] = (1 - weight) * targets[row] + weight * golds[row] / golds[row].sum()
        texts = [query.text for query in queries]
        return Pack([self.passages[i] for i in places], texts, targets, golds, passage_vectors, query_vectors)


def fused(logits: Tensor, lexical: Tensor) -> Tensor:
    """The teacher's logits and BM25's scores with equal weight: both with the teacher's spread within a row.

    Where one of them errs the other often does not. The factor keeps the spread of the sum near that of its parts.

    Parameters
    ----------
    logits, lexical : Tensor
        Shape (queries, passages). A row of `lexical` without differences adds nothing.
    """
    spread = lexical.std(dim=1, keepdim=True)
    standard = (lexical - lexical.mean(dim=1, keepdim=True)) / spread.clamp_min(1e-6)
    return FUSION * (logits + logits.std(dim=1, keepdim=True) * standard)
