"""Packs: what one training prompt holds, and what is known of which passage should get its attention.

A pack grows around one query: its answers, the passages that the teacher, BM25, the file or the article say are hard
to tell from them, and unrelated ones. Its other queries are those that its passages answer, and strays: queries that
some passage is near to without answering them, which only teacher and BM25 judge.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qr_core.training.data import Collection, Passage, held_out

MOST_QUERIES = 8
MOST_STRAYS = 8


@dataclass(frozen=True)
class Pack:
    """P passages in prompt order and Q queries.

    Attributes
    ----------
    golds : Tensor
        Bool, shape (Q, P): the answers; no True in a row where only teacher and BM25 know.
    lexical : Tensor
        Float32, shape (Q, P): BM25's scores.
    label_weights : Tensor
        Shape (Q,): weight of the answers against teacher and BM25; 0 unless all of them are in the pack.
    """

    passages: list[Passage]
    queries: list[str]
    golds: Tensor
    lexical: Tensor
    label_weights: Tensor


class Packs:
    """Draws packs.

    Parameters
    ----------
    collection : Collection
    near : list of list of list of int
        Kinds of hard negatives; each kind has one list of passages for each query, the teacher's first.
    lexical : callable
        BM25 of all passages for a query.
    held : bool
        Draw the held-out queries, among all passages, instead of the others among passages that are not held out.
    banned : frozenset of int
        Passages that are never drawn, nor the queries that they answer.
    unasked : frozenset of int
        Other queries that are never asked.
    """

    SHARES: ClassVar[dict[str, float]] = {
        "nqg": 0.09,
        "nqg-joined": 0.12,
        "squadshifts_new_wiki": 0.13,
        "squadshifts_reddit": 0.07,
        "squadshifts_amazon": 0.07,
        "nq_oracle": 0.17,
        "multihop": 0.14,
        "qmsum": 0.05,
        "anthropic_docs_rag": 0.02,
        "books": 0.16,
    }
    """How often each source gives the first query of a pack."""
    LABEL_WEIGHT: ClassVar[dict[bool, float]] = {True: 0.5, False: 0.3}
    """Weight of the answers against teacher and BM25, for questions people asked and for queries made here."""

    def __init__(
        self,
        collection: Collection,
        near: Sequence[list[list[int]]],
        lexical: Callable[[str], NDArray[np.float32]],
        held: bool = False,
        banned: frozenset[int] = frozenset(),
        unasked: frozenset[int] = frozenset(),
    ) -> None:
        self.passages, self.queries = collection.passages, collection.queries
        self.near, self.lexical = near, lexical
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
            if i in unasked or held_out(query) != held or not self.allowed.issuperset(query.golds):
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
        """Answers first, then hard negatives of every kind among unrelated ones, until one of two limits is reached."""
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
        lexical = torch.stack([torch.from_numpy(self.lexical(query.text)[places]) for query in queries])
        golds = torch.tensor([[place in query.golds for place in places] for query in queries])
        weights = [
            self.LABEL_WEIGHT[query.asked] if query.golds and set(query.golds) <= set(places) else 0.0
            for query in queries
        ]
        texts = [query.text for query in queries]
        return Pack([self.passages[i] for i in places], texts, golds, lexical, torch.tensor(weights))
