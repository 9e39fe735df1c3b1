"""Scoring: from attention mass per head and token to one number per document. Pure functions on tensors.

Knows nothing of models or text: rows are heads (or their sum), columns are tokens, documents are token spans.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FILTER_DEVIATIONS = 2.0


def filter_tokens(token_scores: Tensor) -> Tensor:
    """Which tokens of one document count: those above mean - 2 standard deviations of that document's tokens.

    Parameters
    ----------
    token_scores : Tensor
        Shape (..., tokens of one document).

    Returns
    -------
    Tensor
        Bool, same shape. The deviation is the unbiased one (n - 1); a single token always counts. The paper does not
        describe this filter; its published code applies it.
    """
    if token_scores.shape[-1] < 2:
        return torch.ones_like(token_scores, dtype=torch.bool)
    mean = token_scores.mean(dim=-1, keepdim=True)
    deviation = token_scores.std(dim=-1, keepdim=True)
    return token_scores > mean - FILTER_DEVIATIONS * deviation


def by_length(token_scores: Tensor, spans: Sequence[tuple[int, int]], exponent: float) -> Tensor:
    """Token scores divided by the number of tokens of their document to the power of `exponent`.

    Parameters
    ----------
    token_scores : Tensor
        Shape (..., tokens).
    spans : sequence of (start, end)
        Half-open token positions of each document.
    exponent : float
        0 changes nothing; 1 makes a document's score the mean of its tokens'.
    """
    if not exponent:
        return token_scores
    scaled = token_scores.clone()
    for start, end in spans:
        scaled[..., start:end] /= max(1, end - start) ** exponent
    return scaled


def score_documents(token_scores: Tensor, spans: Sequence[tuple[int, int]], filtered: bool = True) -> Tensor:
    """Sum of each document's token scores: QRscore of the document (QRHead, equation 1, without the constant 1/|H|).

    Parameters
    ----------
    token_scores : Tensor
        Shape (..., tokens). Sum the heads before to score as the published reranker does; keep them to score
        each head on its own, as detection does. The two do not add up: the filter is a step function of its input.
    spans : sequence of (start, end)
        Half-open token positions of each document.
    filtered : bool
        Leave out the tokens that `filter_tokens` drops.

    Returns
    -------
    Tensor
        Float32, shape (..., documents).
    """
    starts, ends = torch.tensor(spans, dtype=torch.long, device=token_scores.device).reshape(-1, 2).T
    counts = ends - starts
    owner = torch.repeat_interleave(torch.arange(len(spans), device=counts.device), counts)
    columns = torch.arange(len(owner), device=counts.device) + (ends - counts.cumsum(0))[owner]
    inside = token_scores[..., columns].double()

    def sums(values: Tensor) -> Tensor:
        """Of each document's tokens, one after the other: no document changes another's sum."""
        return values.new_zeros((*values.shape[:-1], len(spans))).index_add_(-1, owner, values)

    if filtered:
        mean = sums(inside) / counts
        deviation = (sums((inside - mean[..., owner]) ** 2) / (counts - 1)).sqrt()
        dropped = inside <= (mean - FILTER_DEVIATIONS * deviation)[..., owner]
        inside = inside.masked_fill(dropped & (counts > 1)[owner], 0)
    return sums(inside).float()


def score_parts(
    token_scores: Tensor, span: tuple[int, int], parts: Sequence[tuple[int, int]], filtered: bool = True
) -> Tensor:
    """Sum of the token scores of parts of one document; the filter is that of the whole document.

    Parameters
    ----------
    token_scores : Tensor
        Shape (tokens,).
    span : (start, end)
        Half-open token positions of the document.
    parts : sequence of (start, end)
        Half-open token positions inside it.

    Returns
    -------
    Tensor
        Float32, shape (parts,).
    """
    start, end = span
    inside = token_scores[start:end]
    if filtered:
        inside = inside * filter_tokens(inside)
    sums = torch.cat([inside.new_zeros(1), inside.double().cumsum(dim=0)])
    first, last = torch.tensor(parts, dtype=torch.long).reshape(-1, 2).T - start
    return (sums[last] - sums[first]).float()


def relevance(scores: Tensor) -> Tensor:
    """Each score's share of the sum of the positive scores, in [0, 1]; all zero when none is positive.

    Parameters
    ----------
    scores : Tensor
        Shape (documents,).
    """
    positive = scores.clamp(min=0)
    total = positive.sum()
    return positive / total if total > 0 else positive
