"""Masks: which keys the rows of a query pass may see, where the model's own mask does not know.

Knows nothing of models: rows and keys are positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def near_mask(rows: Tensor, keys: Tensor, window: int) -> Tensor:
    """The additive mask of a sliding window, between tokens at the positions `rows` and those at `keys`.

    Returns
    -------
    Tensor
        Float32, shape (1, 1, rows, keys).
    """
    back = rows[:, None] - keys[None, :]
    mask = torch.zeros(back.shape, device=back.device)
    return mask.masked_fill_((back < 0) | (back >= window), torch.finfo(torch.float32).min)[None, None]


def others_mask(suffixes: Sequence[int]) -> Tensor:
    """The additive mask that hides every suffix from the rows of the others.

    Returns
    -------
    Tensor
        Float32, shape (rows, rows): the suffixes' own keys, which come last.
    """
    owner = torch.cat([torch.full((count,), number) for number, count in enumerate(suffixes)])
    mask = torch.zeros(len(owner), len(owner))
    return mask.masked_fill_(owner[:, None] != owner[None, :], torch.finfo(torch.float32).min)
