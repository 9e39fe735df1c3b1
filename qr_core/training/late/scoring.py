"""What the late layout makes of states, differentiable: attention mass, scores of documents, and the loss on them.

Knows nothing of encoders or texts. The engine's own code scores when the model is used; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qr_core.training.late.grow import Projections

SMALLEST_SHARE = 0.02
"""Added to every document's score, in units of their mean, before the logarithm."""


@dataclass(frozen=True)
class Spans:
    """How the tokens of all documents of a question divide into parts, and parts into documents.

    Attributes
    ----------
    tokens : Tensor
        Of each part, shape (parts,).
    documents : Tensor
        The document of each part, shape (parts,).
    """

    tokens: Tensor
    documents: Tensor


def masses(query: Tensor, keys: Tensor, projections: Projections, heads: int) -> Tensor:
    """Attention mass of every token under one softmax over all documents, averaged over the query's tokens.

    Parameters
    ----------
    query, keys : Tensor
        States of the query's and the documents' tokens, shape (tokens, hidden).

    Returns
    -------
    Tensor
        Float32, shape (heads, tokens of the documents); a head's masses add up to one.
    """
    width = query.shape[1] // heads
    rows = query.float() @ projections.query.T + projections.bias
    columns = (keys @ projections.key.to(keys.dtype).T).float()
    rows, columns = (x.view(-1, heads, width).transpose(0, 1) for x in (rows, columns))
    mass: Tensor = (rows @ columns.mT * width**-0.5).softmax(dim=-1).mean(dim=1)
    return mass


def document_scores(mass: Tensor, spans: Spans, exponent: float) -> Tensor:
    """Sum of the masses of each part, over its tokens to the power of `exponent`; a document has its best part's.

    Parameters
    ----------
    mass : Tensor
        Shape (tokens,).
    """
    part = torch.repeat_interleave(torch.arange(len(spans.tokens)), spans.tokens)
    sums = mass.new_zeros(len(spans.tokens)).index_add(0, part, mass) / spans.tokens.float() ** exponent
    best = sums.new_full((int(spans.documents.max()) + 1,), -torch.inf)
    return best.scatter_reduce(0, spans.documents, sums, "amax")


def shares(scores: Tensor, sharpness: Tensor) -> Tensor:
    """Logarithms of the documents' shares of the whole, which always add up to one.

    They are shares of what the documents have, however little that is: sending mass to parts that do not count, or
    anywhere else, lowers no loss.
    """
    relative = scores / scores.detach().mean().clamp(min=torch.finfo(scores.dtype).tiny)
    return (sharpness * (relative + SMALLEST_SHARE).log()).log_softmax(dim=0)


def loss(scores: Tensor, target: Tensor, sharpness: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the documents' shares from `target`; never below zero.

    Parameters
    ----------
    scores, target : Tensor
        Shape (documents,); the target adds up to one.
    sharpness : Tensor
        Power of the shares; trained along, it changes no ranking.
    """
    return (torch.xlogy(target, target) - target * shares(scores, sharpness)).sum()
