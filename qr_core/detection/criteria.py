"""Criteria: how good each attention head is at one example, from its scores for every document. Pure functions.

Rows are heads, columns are documents, `gold` are the positions of those that answer. A criterion's value for a head is
its mean over examples. To add one, write such a function in a file of its own and register it at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qr_core.detection.options import TEMPERATURE
from qr_core.registry import Registry

CUTOFF = 10


@dataclass(frozen=True)
class Criterion:
    """One way to judge heads.

    Attributes
    ----------
    function : callable
        From scores, float64 of shape (heads, documents), and `gold` to the heads' values, of shape (heads,).
    about : str
        What it computes, and where it comes from.
    calibrated : bool
        Whether it judges calibrated and filtered scores, unless the caller says otherwise; raw ones if not.
    takes_temperature : bool
        Whether `function` has an argument `temperature`.
    """

    function: Callable[..., Tensor]
    about: str
    calibrated: bool = True
    takes_temperature: bool = False

    def __call__(self, scores: Tensor, gold: Sequence[int], temperature: float = TEMPERATURE) -> Tensor:
        """Every head's value for one example, float64, shape (heads,)."""
        options = {"temperature": temperature} if self.takes_temperature else {}
        return self.function(scores.double(), gold, **options)


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
    ranked = torch.sort(scores.double(), dim=1, descending=True, stable=True).indices  # (heads, documents)
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


CRITERIA: Registry[Criterion] = Registry("criterion")
CRITERIA.add("qrscore", Criterion(gold_mass, "mean attention mass on what answers (QRHead)", calibrated=False))
CRITERIA.add("ndcg", Criterion(ndcg, "each head's own nDCG@10 (QRHead's code, on BEIR sets)"))
CRITERIA.add(
    "contrastive", Criterion(contrastive, "softmax of what answers against the rest (CoRe)", takes_temperature=True)
)
