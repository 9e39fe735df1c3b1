"""Sharding: the heads of one model spread over processes, read as one. See transformers' tensor parallelism.

Each process computes some heads of every layer. What a query pass reads of them is put together by a sum over all
processes, so that every process has the same numbers; all of them make the same calls, in the same order.

Knows nothing of prompts or head sets.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from qr_core.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shards_of(model: PreTrainedModel) -> int:
    """Over how many processes a model is spread."""
    return int(getattr(model, "tp_size", None) or 1)


def loading_options(size: int) -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread a model over all `size` processes that were started together.

    Raises
    ------
    ModelLoadError
        When another number was started, or transformers is too old.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != size:
        raise ModelLoadError(
            f"tp_size is {size} and {started} processes were started: use torchrun --nproc-per-node {size}"
        )
    try:
        from transformers.distributed.configuration_utils import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_size=size)}
    except (ImportError, TypeError) as error:
        raise ModelLoadError(f"tp_size needs a later transformers: {error}") from error


def own_heads(heads: Tensor, present: int, total: int) -> tuple[Tensor, Tensor]:
    """Which of `heads` this process computes.

    Parameters
    ----------
    heads : Tensor
        Indices of heads of the whole layer.
    present, total : int
        Heads of the layer here and everywhere. Equal where a layer is not spread: then the first process has them all.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Their places in `heads`, and their indices here.
    """
    first = dist.get_rank() * present
    here = (heads >= first) & (heads < min(first + present, total))
    return here.nonzero()[:, 0], heads[here] - first


def put_together(part: Tensor, places: Tensor, count: int) -> Tensor:
    """What all processes read of `count` heads, shape (readings, count, ...), from this one's `part` at `places`."""
    whole = part.new_zeros((part.shape[0], count, *part.shape[2:]))
    whole[:, places.to(part.device)] = part
    dist.all_reduce(whole)
    return whole


def all_heads(attention: Tensor, total: int) -> Tensor:
    """Attention weights of all heads of a layer, shape (1, total, rows, keys), from those of the heads here."""
    places, own = own_heads(torch.arange(total), attention.shape[1], total)
    return put_together(attention[:, own.to(attention.device)], places, total)


def worst(values: dict[int, float], device: torch.device) -> dict[int, float]:
    """The largest of all processes, layer by layer."""
    found = torch.tensor([values[layer] for layer in sorted(values)], device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return dict(zip(sorted(values), found.tolist(), strict=True))
