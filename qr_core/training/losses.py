"""Losses: where attention should have been, and what the teacher makes of the same text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss, one_hot, rms_norm
from transformers import MinistralForCausalLM

from qr_core.training.batches import Batch
from qr_core.training.forward import INTRODUCTION, LATE, Layout, run
from qr_core.training.recipe import Recipe
from qr_core.training.token_teacher import TokenTeacher, fitted

FUSION = 0.75
"""Factor of the sum of the teacher's logits and BM25's scores; see `fused`."""
SMALLEST_MASS = 1e-6
"""Added to every passage's mass: its share has a logarithm even where nothing looks at it."""


class Readouts(torch.nn.Module):
    """Linear layers from the learner's states to the teacher's: of tokens, and of whole texts from their last token."""

    def __init__(self, hidden: int, taught: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Linear(hidden, taught)
        self.ends = torch.nn.Linear(hidden, taught)

    @torch.no_grad()
    def fit(self, table: Tensor, goal: Tensor, words: Tensor) -> None:
        """Start both at what comes nearest to the teacher's states `goal` from the words alone.

        Found by descent this takes thousands of steps, since directions of small variance need large weights.

        Parameters
        ----------
        table : Tensor
            Word embeddings.
        goal : Tensor
            Shape (tokens, hidden).
        words : Tensor
            Shape (tokens,).
        """
        weight, bias = fitted(rms_norm(table[words], table.shape[1:], eps=1e-6), goal / goal.pow(2).mean().sqrt())
        for layer in (self.tokens, self.ends):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


@dataclass(frozen=True)
class Losses:
    """Scalars, and for each query with known answers whether one of them got the most mass."""

    retrieval: Tensor
    null: Tensor
    vectors: Tensor
    ends: Tensor
    tokens: Tensor
    language: Tensor | None
    first: Tensor

    def total(self, recipe: Recipe) -> Tensor:
        """The sum that is trained."""
        total = self.retrieval + recipe.null_weight * self.null + recipe.token_weight * self.tokens
        total = total + recipe.vector_weight * self.vectors + recipe.end_weight * self.ends
        return total if self.language is None else total + recipe.language_weight * self.language

    def record(self) -> dict[str, Tensor]:
        """Figures for the curve."""
        found = {name: getattr(self, name) for name in ("retrieval", "null", "vectors", "ends", "tokens", "language")}
        kept = {name: value.detach() for name, value in found.items() if value is not None}
        return kept if len(self.first) == 0 else kept | {"first": self.first.mean()}


def losses(
    model: MinistralForCausalLM,
    readouts: Readouts,
    batch: Batch,
    recipe: Recipe,
    teacher: TokenTeacher,
    language: bool = False,
) -> Losses:
    """Cross-entropy over passages of the mass (mean over heads), distances to the teacher's states, language loss.

    The share of a passage is among the passages' masses alone: tokens that look elsewhere (at the introduction, at
    the query) take no part in it, so that words without meaning may. Looking elsewhere altogether gains nothing: see
    `log_shares`.
    """
    states, vectors = teacher.states(batch.texts)
    found = run(model, batch.layout, recipe.read_layers, language)
    mass = passage_masses(found.masses, batch.layout, batch.passages.shape[1]).mean(dim=1)
    shares = log_shares(mass, batch.passages[:, None])
    null, log_share = shares[:, 0], shares[:, 1:]
    retrieval = -(targets(batch, vectors, recipe.temperature) * log_share).sum(dim=2)[batch.queries].mean()
    null = -((null * batch.passages).sum(dim=1) / batch.passages.sum(dim=1)).mean()
    known = batch.answers.any(dim=2)
    best = log_share.argmax(dim=2, keepdim=True)
    own = found.states.flatten(0, 1)
    means = own.new_zeros(len(vectors), own.shape[1]).index_add(0, batch.text_of, own[batch.tokens])
    means = means / torch.bincount(batch.text_of, minlength=len(vectors))[:, None]
    by_mean, by_last = (
        (1 - cosine_similarity(readout(rows).float(), vectors)).mean()
        for readout, rows in ((readouts.tokens, means), (readouts.ends, own[batch.ends]))
    )
    return Losses(
        retrieval=retrieval,
        null=null,
        vectors=by_mean,
        ends=by_last,
        tokens=mse_loss(readouts.tokens(own[batch.tokens]).float(), states / states.pow(2).mean().sqrt()),
        language=None
        if found.last is None
        else _language_loss(model, found.last, batch.layout, recipe.language_tokens),
        first=batch.answers.gather(2, best)[known][:, 0].float(),
    )


def log_shares(mass: Tensor, present: Tensor) -> Tensor:
    """Logarithm of each passage's share of the mass that all passages get.

    Each mass is raised by `SMALLEST_MASS` before shares are taken, so the shares add up to one whatever the masses
    are: with no mass on any passage they are equal, which no target that prefers a passage rewards.

    Parameters
    ----------
    mass : Tensor
        Shape (packs, queries, passages).
    present : Tensor
        Bool, broadcast to that shape: the others take no part, and their logarithm, of no meaning, is finite.
    """
    raised = mass + SMALLEST_MASS
    return raised.log() - (raised * present).sum(dim=2, keepdim=True).log()


def passage_masses(masses: Tensor, packs: Layout, passages: int) -> Tensor:
    """Mass of each passage, shape (packs, heads, queries, passages), from that of each token of the packs."""
    inside = packs.parts.where((packs.parts > INTRODUCTION) & (packs.parts < LATE), INTRODUCTION)
    with torch.autocast(masses.device.type, enabled=False):
        return masses @ one_hot(inside, passages + 1)[:, None, :, 1:].to(masses.dtype)


def targets(batch: Batch, vectors: Tensor, temperature: float) -> Tensor:
    """What share of a query's attention each passage should get, shape (packs, queries, passages).

    That of the answers, mixed with the softmax of the teacher's cosines and BM25.

    Parameters
    ----------
    batch : Batch
    vectors : Tensor
        The teacher's, of the batch's texts.
    temperature : float
        Of the teacher's cosines.
    """
    count, queries, passages = batch.answers.shape
    table = vectors.new_zeros(count * (passages + queries), vectors.shape[1])
    table = table.index_copy(0, batch.text_places, vectors).view(count, passages + queries, -1)
    with torch.autocast(vectors.device.type, enabled=False):
        logits = table[:, passages:] @ table[:, :passages].transpose(1, 2) / temperature
    present = batch.passages[:, None].expand_as(logits)
    shares = torch.softmax(fused(logits, batch.lexical, present).masked_fill(~present, float("-inf")), dim=2)
    right = batch.answers.float()
    weight = batch.label_weights[..., None]
    return (1 - weight) * shares + weight * right / right.sum(dim=2, keepdim=True).clamp_min(1)


def fused(logits: Tensor, lexical: Tensor, present: Tensor) -> Tensor:
    """The teacher's logits and BM25's scores with equal weight: both with the teacher's spread within a row.

    Where one of them errs the other often does not. The factor keeps the spread of the sum near that of its parts.

    Parameters
    ----------
    logits, lexical : Tensor
        Shape (..., passages). A row of `lexical` without differences adds nothing.
    present : Tensor
        Bool, same shape: the others are left out.
    """

    def centred(rows: Tensor) -> tuple[Tensor, Tensor]:
        count = present.sum(dim=-1, keepdim=True)
        rows = (rows - (rows * present).sum(dim=-1, keepdim=True) / count) * present
        return rows, (rows.pow(2).sum(dim=-1, keepdim=True) / (count - 1)).sqrt()

    words, words_spread = centred(lexical)
    return FUSION * (logits + centred(logits)[1] * words / words_spread.clamp_min(1e-6))


def _language_loss(model: MinistralForCausalLM, last: Tensor, packs: Layout, count: int) -> Tensor:
    """Cross-entropy of the next token, at some places inside introduction and passages."""
    inside = (packs.parts[:, 1:] == packs.parts[:, :-1]) & (packs.parts[:, 1:] >= 0) & (packs.parts[:, 1:] < LATE)
    rows, places = inside.nonzero(as_tuple=True)
    some = torch.randperm(len(rows), device=rows.device)[:count]
    rows, places = rows[some], places[some]
    return cross_entropy(model.lm_head(last[rows, places]).float(), packs.ids[rows, places + 1])
