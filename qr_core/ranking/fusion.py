"""Fusion: the order that documents came in, joined with the attention on them.

Both become shares of 1. The attention's are the relevances of a survey, which compare across its rounds, over their sum
(which is not 1 where a document's best part counts, or in several rounds). A document that came in place `n`, from 1,
has `1/n` of the sum of `1/n` over all (its reciprocal rank). The joined relevance is
`(1 - weight) * attention + weight * place`: one number that gives the order and that thresholds can use.

Knows nothing of models, nor of scores that documents came with: their order is all it asks for, as every framework and
protocol has one. `tools/measure_retrieval_weight.py` compares it with the usual forms.
"""

from __future__ import annotations

from collections.abc import Sequence


def joined(order: Sequence[int], relevances: Sequence[float], weight: float) -> tuple[list[int], list[float]]:
    """Order and relevance of documents once the order that they came in counts.

    Parameters
    ----------
    order : sequence of int
        Positions in the caller's list, best first by attention alone.
    relevances : sequence of float
        By position, in [0, 1].
    weight : float
        0 gives back what was given; 1 gives the caller's order.

    Returns
    -------
    tuple of (list of int, list of float)
        Positions, best first, and by position the joined relevances, in [0, 1]. From hit to hit they do not rise; equal
        ones keep the caller's order.
    """
    if not weight:
        return list(order), list(relevances)
    attention = sum(relevances) or 1.0
    places = sum(1 / place for place in range(1, len(order) + 1))
    both = [
        min(1.0, (1 - weight) * own / attention + weight / (place * places))  # rounding may pass 1 by a hair
        for place, own in enumerate(relevances, start=1)
    ]
    return sorted(range(len(both)), key=lambda position: (-both[position], position)), both
