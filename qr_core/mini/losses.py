"""From packs to losses: prompts of the `plain` template as tensors, and how far the learner is from what it should do.

That is: where its attention should have been, and what the teacher makes of the same text.

Knows nothing of files or of the training loop.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, rms_norm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from qr_core.mini.data import Passage
from qr_core.mini.forward import Layout, read
from qr_core.mini.packs import Pack
from qr_core.mini.recipe import Recipe
from qr_core.mini.token_teacher import TokenTeacher, fitted
from qr_core.templates import INTRODUCTION, LATE_INSTRUCTION, NULL_QUERY, QUERY_LABEL


@dataclass(frozen=True)
class Batch:
    """A pack as tensors: its layout has Q + 1 queries, the last of them `N/A`."""

    layout: Layout
    owner: Tensor  # (prefix tokens,) 0 for the introduction, then 1 + the passage's place
    bare: list[tuple[int, int]]  # the passages without their marks
    pack: Pack


class Readouts(torch.nn.Module):
    """Linear layers from the learner's states to the teacher's: of tokens, and of whole texts from their last token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Linear(hidden, hidden)
        self.ends = torch.nn.Linear(hidden, hidden)

    @torch.no_grad()
    def fit(self, table: Tensor, teacher: TokenTeacher, texts: list[Tensor]) -> None:
        """Start both at what comes nearest to the teacher from the words of `texts` alone.

        Found by descent this takes thousands of steps, since directions of small variance need large weights.
        """
        goal = teacher.states(texts)
        words = rms_norm(table[torch.cat(texts)], table.shape[1:], eps=1e-6)
        weight, bias = fitted(words, goal / goal.pow(2).mean().sqrt())
        for layer in (self.tokens, self.ends):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


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
        marks = [len(self.encode(f"[{i}]")) if joint else 0 for i in range(1, count)]
        bare = [(start + mark, end) for (start, end), mark in zip(bounds[1:count], marks, strict=True)]
        return Batch(layout, torch.arange(count).repeat_interleave(lengths[:count]), bare, pack)


@dataclass(frozen=True)
class Losses:
    """Scalars, and for each query with known answers whether one of them got the most mass."""

    retrieval: Tensor
    null: Tensor
    vectors: Tensor
    ends: Tensor
    tokens: Tensor | None
    language: Tensor | None
    first: Tensor

    def total(self, recipe: Recipe) -> Tensor:
        """The sum that is trained."""
        total = self.retrieval + recipe.null_weight * self.null
        total = total + recipe.vector_weight * self.vectors + recipe.end_weight * self.ends
        if self.tokens is not None:
            total = total + recipe.token_weight * self.tokens
        return total if self.language is None else total + recipe.language_weight * self.language

    def record(self) -> dict[str, float]:
        """Figures for the curve."""
        found = {name: getattr(self, name) for name in ("retrieval", "null", "vectors", "ends", "tokens", "language")}
        kept = {name: float(value.detach()) for name, value in found.items() if value is not None}
        return kept if len(self.first) == 0 else kept | {"first": float(self.first.mean())}


def passage_masses(masses: Tensor, owner: Tensor, passages: int) -> Tensor:
    """Mass of each passage, shape (queries, heads, passages), from that of tokens, (queries, heads, tokens)."""
    sums = masses.new_zeros(*masses.shape[:2], passages + 1)
    return sums.index_add(2, owner, masses)[..., 1:]


def losses(
    model: LlamaForCausalLM,
    readouts: Readouts,
    batches: list[Batch],
    recipe: Recipe,
    teacher: TokenTeacher | None = None,
    language: bool = False,
) -> Losses:
    """Cross-entropy over passages of the mass (mean over heads), distances to the teacher's states, language loss.

    The share of a passage is among the passages' masses alone: tokens that look elsewhere (at the introduction, at
    the query) take no part in it, so that words without meaning may.
    """
    found = read(model, [batch.layout for batch in batches], recipe.read_layers, language)
    retrieval, null, first = [], [], []
    for batch, masses in zip(batches, found.masses, strict=True):
        pack = batch.pack
        mass = passage_masses(masses, batch.owner, len(pack.passages)).mean(dim=1)
        log_share = torch.log(mass + 1e-6) - torch.log(mass.sum(dim=1, keepdim=True) + 1e-6)
        retrieval.append(-(pack.targets * log_share[:-1]).sum(dim=1))
        null.append(-log_share[-1].mean())
        known = pack.golds.any(dim=1)
        best = log_share[:-1].argmax(dim=1, keepdim=True)
        first.append(pack.golds.gather(1, best)[known, 0].float())
    vectors, ends, tokens = _distances(found.states, readouts, batches, teacher)
    return Losses(
        retrieval=torch.cat(retrieval).mean(),
        null=torch.stack(null).mean(),
        vectors=vectors,
        ends=ends,
        tokens=tokens,
        language=_language_loss(model, found.last, batches, recipe.language_tokens) if found.last is not None else None,
        first=torch.cat(first).detach(),
    )


def _distances(
    states: Tensor, readouts: Readouts, batches: list[Batch], teacher: TokenTeacher | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """How far passages and queries are from the teacher's: by mean state, by last state, and token by token.

    The last is the mean squared error over the mean square of the teacher's states.
    """
    means, lasts, vectors, bare, texts = [], [], [], [], []
    for batch, own in zip(batches, states.split([len(batch.layout.ids) for batch in batches]), strict=True):
        queries = batch.layout.queries[:-1]
        spans = [*batch.layout.passages, *queries]
        means += [own[start:end].mean(dim=0) for start, end in spans]
        lasts += [own[end - 1] for _, end in spans]
        vectors += [batch.pack.passage_vectors, batch.pack.query_vectors]
        bare += [own[start:end] for start, end in [*batch.bare, *queries]]
        texts += [batch.layout.ids[start:end] for start, end in [*batch.bare, *queries]]
    goal = torch.cat(vectors)
    by_mean, by_last = (
        (1 - cosine_similarity(readout(torch.stack(rows)).float(), goal)).mean()
        for readout, rows in ((readouts.tokens, means), (readouts.ends, lasts))
    )
    if teacher is None:
        return by_mean, by_last, None
    goal = teacher.states(texts)
    return by_mean, by_last, mse_loss(readouts.tokens(torch.cat(bare)).float(), goal / goal.pow(2).mean().sqrt())


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
