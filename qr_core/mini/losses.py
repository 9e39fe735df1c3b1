"""From packs to losses: prompts of the `plain` template as tensors, and what the attention mass should have been.

Knows nothing of files or of the training loop.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from qr_core.mini.data import Passage
from qr_core.mini.forward import Layout, read
from qr_core.mini.packs import Pack
from qr_core.mini.recipe import Recipe
from qr_core.templates import INTRODUCTION, LATE_INSTRUCTION, NULL_QUERY, QUERY_LABEL


@dataclass(frozen=True)
class Batch:
    """A pack as tensors: its layout has Q + 1 queries, the last of them `N/A`."""

    layout: Layout
    owner: Tensor  # (prefix tokens,) 0 for the introduction, then 1 + the passage's place
    pack: Pack


class Batches:
    """Turns packs into tensors with the strings of the `plain` template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        self.tokenizer, self.recipe = tokenizer, recipe
        self.known: dict[str, list[int]] = {}
        self.introduction = self.encode(INTRODUCTION)
        self.late = self.encode(f"{LATE_INSTRUCTION}\n\n{QUERY_LABEL}")

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of a prompt, remembered."""
        if text not in self.known:
            self.known[text] = list(self.tokenizer.encode(text, add_special_tokens=False))
        return self.known[text]

    def _passage(self, number: int, passage: Passage, titled: bool, joint: bool) -> list[int]:
        title = self.encode(passage.title) if titled and passage.title else []
        mark = self.encode(f"[{number}]") if joint else []
        return [*mark, *title, *self.encode(passage.text)][: self.recipe.passage_tokens]

    def make(self, pack: Pack, rng: random.Random, joint: bool | None = None, titled: bool | None = None) -> Batch:
        """`joint` and `titled`, whether passages show their titles, are drawn when not given."""
        if titled is None:
            titled = rng.random() < self.recipe.titled_share
        if joint is None:
            joint = rng.random() < self.recipe.joint_share
        rows = [self.introduction] + [self._passage(i, p, titled, joint) for i, p in enumerate(pack.passages, start=1)]
        rows += [self.late] + [self.encode(query)[:64] for query in [*pack.queries, NULL_QUERY]]
        lengths = torch.tensor([len(row) for row in rows])
        ends = lengths.cumsum(0)
        bounds = list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
        count = 1 + len(pack.passages)
        gaps = torch.zeros(len(rows), dtype=torch.long)
        if rng.random() < self.recipe.spread_share:
            spread = rng.randint(0, self.recipe.max_positions // 2)
            gaps[1:count] = torch.tensor(sorted(rng.randint(0, spread) for _ in pack.passages))
            gaps[count:] = gaps[count - 1]
        starts = ends - lengths + gaps
        if not joint:  # passages share their positions, and the query follows the longest
            starts[1:count] = lengths[0]
            starts[count] = lengths[0] + lengths[1:count].max() + gaps[count]
        starts[count + 1 :] = starts[count] + lengths[count]  # every query follows the late instruction
        within = torch.arange(int(ends[-1])) - (ends - lengths).repeat_interleave(lengths)
        positions = starts.repeat_interleave(lengths) + within
        ids = torch.tensor([token for row in rows for token in row])
        layout = Layout(ids, positions, bounds[1:count], bounds[count], bounds[count + 1 :], joint)
        return Batch(layout, torch.arange(count).repeat_interleave(lengths[:count]), pack)


@dataclass(frozen=True)
class Losses:
    """Scalars, and for each query with known answers whether one of them got the most mass."""

    retrieval: Tensor
    null: Tensor
    vectors: Tensor
    language: Tensor | None
    first: Tensor

    def total(self, recipe: Recipe) -> Tensor:
        """The sum that is trained."""
        total = self.retrieval + recipe.null_weight * self.null + recipe.vector_weight * self.vectors
        return total if self.language is None else total + recipe.language_weight * self.language

    def record(self) -> dict[str, float]:
        """Figures for the curve."""
        found = {"retrieval": self.retrieval, "null": self.null, "vectors": self.vectors, "language": self.language}
        kept = {name: float(value.detach()) for name, value in found.items() if value is not None}
        return kept if len(self.first) == 0 else kept | {"first": float(self.first.mean())}


def passage_masses(masses: Tensor, owner: Tensor, passages: int) -> Tensor:
    """Mass of each passage, shape (queries, heads, passages), from that of tokens, (queries, heads, tokens)."""
    sums = masses.new_zeros(*masses.shape[:2], passages + 1)
    return sums.index_add(2, owner, masses)[..., 1:]


def losses(
    model: LlamaForCausalLM, to_teacher: torch.nn.Linear, batches: list[Batch], recipe: Recipe, language: bool
) -> Losses:
    """Cross-entropy over passages of the mass (mean over heads), distance to the teacher's vectors, language loss.

    The share of a passage is among the passages' masses alone: tokens that look elsewhere (at the introduction, at
    the query) take no part in it, so that words without meaning may.
    """
    found = read(model, [batch.layout for batch in batches], recipe.read_layers, language)
    retrieval, null, vectors, first = [], [], [], []
    offset = 0
    for batch, masses in zip(batches, found.masses, strict=True):
        pack = batch.pack
        mass = passage_masses(masses, batch.owner, len(pack.passages)).mean(dim=1)
        log_share = torch.log(mass + 1e-6) - torch.log(mass.sum(dim=1, keepdim=True) + 1e-6)
        retrieval.append(-(pack.targets * log_share[:-1]).sum(dim=1))
        null.append(-log_share[-1].mean())
        known = pack.golds.any(dim=1)
        best = log_share[:-1].argmax(dim=1, keepdim=True)
        first.append(pack.golds.gather(1, best)[known, 0].float())
        states = found.states[offset : offset + len(batch.layout.ids)]
        offset += len(batch.layout.ids)
        spans = [*batch.layout.passages, *batch.layout.queries[:-1]]
        means = torch.stack([states[start:end].mean(dim=0) for start, end in spans])
        goal = torch.cat([pack.passage_vectors, pack.query_vectors])
        vectors.append(1 - cosine_similarity(to_teacher(means).float(), goal))
    return Losses(
        torch.cat(retrieval).mean(),
        torch.stack(null).mean(),
        torch.cat(vectors).mean(),
        _language_loss(model, found.last, batches, recipe.language_tokens) if found.last is not None else None,
        torch.cat(first).detach(),
    )


def _language_loss(model: LlamaForCausalLM, last: Tensor, batches: list[Batch], count: int) -> Tensor:
    """Cross-entropy of the next token, at some places inside introduction and passages."""
    ids = torch.cat([batch.layout.ids for batch in batches])
    inside, offset = [], 0
    for batch in batches:
        inside.append(offset + (batch.owner[1:] == batch.owner[:-1]).nonzero()[:, 0])
        offset += len(batch.layout.ids)
    places = torch.cat(inside)
    places = places[torch.randperm(len(places))[:count]]
    return cross_entropy(model.lm_head(last[places]).float(), ids[places + 1])
