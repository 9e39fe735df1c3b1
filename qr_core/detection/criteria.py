"""Criteria: how good each attention head is at one example, from what it pays every document. Pure functions.

Rows are heads, columns are documents, `gold` are the positions of those that answer. A criterion's value for a head is
its mean over examples. Knows nothing of models, prompts or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["qrscore", "ndcg", "contrastive"]
TEMPERATURE = 0.001
CUTOFF = 10


def gold_mass(scores: Tensor, gold: Sequence[int]) -> Tensor:
    """Mean attention mass on the documents that answer: QRscore (QRHead, arXiv 2506.09944, equation 1).

    Parameters
    ----------
    scores : Tensor
        Shape (heads, documents).
    gold : sequence of int

    Returns
    -------
    Tensor
        Shape (heads,).
    """
    return scores[:, list(gold)].mean(dim=1)


def ndcg(scores: Tensor, gold: Sequence[int], cutoff: int = CUTOFF) -> Tensor:
    """Each head's own nDCG at `cutoff` with binary gain, as the published code ranks heads on BEIR sets.

    Equal scores keep the documents' order, which is random where documents were shuffled.

    Returns
    -------
    Tensor
        Shape (heads,), in [0, 1].
    """
    documents = scores.shape[1]
    gain = torch.zeros(documents, dtype=torch.float64)
    gain[list(gold)] = 1.0
    discount = 1 / torch.log2(torch.arange(documents, dtype=torch.float64) + 2)
    discount[cutoff:] = 0
    ranked = torch.sort(scores.double(), dim=1, descending=True, stable=True).indices
    best = discount[: len(gold)].sum()
    return (gain[ranked] * discount).sum(dim=1) / best


def contrastive(scores: Tensor, gold: Sequence[int], temperature: float = TEMPERATURE) -> Tensor:
    """Softmax share of each document that answers against all that do not (CoRe, arXiv 2510.02219), their mean.

    Parameters
    ----------
    temperature : float
        Scores are divided by it; small values reward heads that put the answer first by however little.

    Returns
    -------
    Tensor
        Shape (heads,), in [0, 1].
    """
    scaled = scores.double() / temperature
    negative = torch.ones(scores.shape[1], dtype=torch.bool)
    negative[list(gold)] = False
    against = torch.logsumexp(scaled[:, negative], dim=1, keepdim=True)  # -inf without negatives: the share is 1
    return torch.sigmoid(scaled[:, list(gold)] - against).mean(dim=1)


def evaluate(criterion: Criterion, scores: Tensor, gold: Sequence[int], temperature: float = TEMPERATURE) -> Tensor:
    """The named criterion, float64, shape (heads,)."""
    if criterion == "qrscore":
        return gold_mass(scores.double(), gold)
    if criterion == "ndcg":
        return ndcg(scores, gold)
    return contrastive(scores, gold, temperature)
