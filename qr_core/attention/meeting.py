"""Meeting: what a query's rows pay the keys that documents left behind, under one softmax.

The rows look at these keys only: neither at each other, nor through any mask. So a query is one matrix product for each
key head, however many documents there are.

Knows nothing of models or of documents: keys are those of one prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qr_core.attention.capture import BLOCK_BYTES, OTHER_BLOCK_BYTES, attention_weights
from qr_core.attention.prefix import Prefix
from qr_core.attention.record import Recorded
from qr_core.errors import NonFiniteError

Heads = Mapping[int, Sequence[int]]
"""For each layer, in ascending order, the heads that are read."""


def key_heads(heads: Sequence[int], group: int) -> list[int]:
    """The key heads that some heads of a layer read, ascending; `group` heads share one."""
    return sorted({head // group for head in heads})


def kept_keys(keys: Mapping[int, Tensor], heads: Heads, all_heads: int) -> Prefix:
    """Of a text's keys those that selected heads read, one tensor for each layer that is read; no values.

    Parameters
    ----------
    keys : mapping of int to Tensor
        By layer, shape (batch, key heads, tokens, width).
    all_heads : int
        How many heads a layer has.
    """
    found = []
    for layer, chosen in heads.items():
        of_layer = keys[layer]
        wanted = key_heads(chosen, all_heads // of_layer.shape[1])
        found.append(of_layer if len(wanted) == of_layer.shape[1] else of_layer[:, wanted])
    return Prefix(tuple(found), ())


def meeting_masses(prefix: Prefix, rows: Mapping[int, Recorded], heads: Heads) -> Tensor:
    """Attention mass of every selected head on every key, averaged over a query's rows.

    Parameters
    ----------
    prefix : Prefix
        From `kept_keys`, of batch 1.
    rows : mapping of int to Recorded
        The query's own, batch 1, by layer.
    heads : mapping of int to sequence of int

    Returns
    -------
    Tensor
        Float32, shape (heads of all layers, tokens), on the CPU.

    Raises
    ------
    NonFiniteError
        When attention is NaN or infinite.
    """
    found = []
    for place, (layer, chosen) in enumerate(heads.items()):
        mass = _layer_mass(prefix.keys[place][..., : prefix.length, :], rows[layer], chosen)
        if not bool(torch.isfinite(mass).all()):
            raise NonFiniteError(
                f"attention in layer {layer} is not finite (NaN or infinity): load the model in another dtype, "
                "for example dtype='bfloat16' or 'float32', and check its weights"
            )
        found.append(mass.cpu())
    return torch.cat(found)


def _layer_mass(keys: Tensor, rows: Recorded, chosen: Sequence[int]) -> Tensor:
    """Shape (chosen heads, tokens)."""
    tokens, group = keys.shape[2], rows.query.shape[1] // rows.key.shape[1]
    if not tokens:
        return torch.zeros(len(chosen), 0)
    readers = [[head for head in chosen if head // group == key_head] for key_head in key_heads(chosen, group)]
    if len({len(heads) for heads in readers}) == 1:  # one product for all
        return _mass(keys, rows, list(chosen))
    masses = [_mass(keys[:, place : place + 1], rows, heads) for place, heads in enumerate(readers)]
    return torch.cat(masses)


def _mass(keys: Tensor, rows: Recorded, heads: list[int]) -> Tensor:
    """Of heads, ascending, each key head of which as many read; shape (heads, tokens)."""
    own = torch.tensor(heads, device=rows.query.device)
    sinks = None if rows.sinks is None else rows.sinks[own]
    query = rows.query[:, own].to(keys.device)
    block = BLOCK_BYTES.get(keys.device.type, OTHER_BLOCK_BYTES) // (4 * len(heads) * keys.shape[2])
    mass = torch.zeros(len(heads), keys.shape[2], device=keys.device)
    for part in query.split(max(1, block), dim=2):
        mass += attention_weights(part, keys, None, rows.scaling, rows.softcap, sinks)[0].sum(dim=1)
    return mass / query.shape[2]
