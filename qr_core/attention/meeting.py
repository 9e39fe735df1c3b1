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
    query, tokens = rows.query, keys.shape[2]
    group = query.shape[1] // rows.key.shape[1]
    mass = torch.zeros(len(chosen), tokens, device=keys.device)
    if not tokens:
        return mass
    for place, key_head in enumerate(key_heads(chosen, group)):
        own = [number for number, head in enumerate(chosen) if head // group == key_head]
        heads = torch.tensor([chosen[number] for number in own], device=query.device)
        block = BLOCK_BYTES.get(keys.device.type, OTHER_BLOCK_BYTES) // (4 * len(own) * tokens)
        sinks = None if rows.sinks is None else rows.sinks[heads]
        for part in query[:, heads].to(keys.device).split(max(1, block), dim=2):
            weights = attention_weights(part, keys[:, place : place + 1], None, rows.scaling, rows.softcap, sinks)
            mass[own] += weights[0].sum(dim=1)
    return mass / query.shape[2]
