"""Query pass: run queries over a prefix and take what the chosen heads pay every token of it.

Several queries may share a pass over the same keys and values; none sees another. Knows nothing of documents: a prefix
is keys and values, a query is the token ids that follow them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from qr_core.attention.capture import Capture, DepthReached, capturing
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qr_core.attention.quantized import QuantizedPrefix


@dataclass(frozen=True)
class Placement:
    """Positions, where they are not those of the tokens' places in memory.

    Attributes
    ----------
    keys : Tensor
        Int32, shape (prefix tokens,): every key's.
    query : int
        Where each query begins.
    """

    keys: Tensor
    query: int


def query_pass(
    model: PreTrainedModel,
    prefix: Prefix | QuantizedPrefix,
    input_ids: Tensor,
    capture: Capture,
    position_ids: Tensor | None = None,
) -> dict[int, Tensor]:
    """Run a suffix over `prefix` through the capturing attention and return the masses that it captured.

    Parameters
    ----------
    input_ids : Tensor
        The suffix, shape (batch, rows).
    capture : Capture
        With row weights of shape (batch, rows).
    position_ids : Tensor, optional
        Shape (batch, rows); by default the positions that follow the prefix.

    Returns
    -------
    dict of int to Tensor
        For each layer of `capture.heads`, float32, shape (batch, heads of that layer, prefix tokens).

    Raises
    ------
    NonFiniteError
        When attention in a chosen layer is NaN or infinite.
    """
    facts = facts_of(model)
    if facts.offloaded:
        capture, prefix = replace(capture, stop_after=None), prefix.deepened(len(facts.layers))
    view = prefix.view(facts.windows)
    with capturing(model, capture), suppress(DepthReached):
        model(input_ids=input_ids, position_ids=position_ids, past_key_values=view, use_cache=True)
    total = prefix.length + input_ids.shape[1]
    # What a window left out has no mass.
    return {n: pad(mass, (total - mass.shape[-1], 0))[..., : prefix.length] for n, mass in capture.masses.items()}


def query_passes(
    model: PreTrainedModel,
    prefix: Prefix | QuantizedPrefix,
    suffixes: Sequence[Sequence[int]],
    heads: Mapping[int, Sequence[int]],
    placement: Placement | None = None,
) -> list[Tensor]:
    """Run several suffixes over `prefix` in one pass, none of which sees another, and average each one's rows.

    Parameters
    ----------
    suffixes : sequence of sequence of int
        Token ids; none is empty.
    heads : mapping of int to sequence of int
        For each layer to read, in ascending order, the heads to read. The pass ends with the last of these layers.
    placement : Placement, optional
        By default every suffix stands at the positions that follow the prefix.

    Returns
    -------
    list of Tensor
        For each suffix, float32, shape (heads of all layers, prefix tokens), on the CPU.

    Raises
    ------
    NonFiniteError
        As for `query_pass`.
    """
    facts = facts_of(model)
    counts = [len(suffix) for suffix in suffixes]
    row_weights = torch.zeros(len(suffixes), sum(counts))
    begin = prefix.length if placement is None else placement.query
    positions: list[int] = []
    for number, count in enumerate(counts):
        row_weights[number, len(positions) : len(positions) + count] = 1 / count
        positions += range(begin, begin + count)
    capture = Capture(
        heads={layer: torch.tensor(chosen) for layer, chosen in heads.items()},
        row_weights=row_weights,
        stop_after=max(heads),
        suffixes=tuple(counts),
    )
    ids = torch.tensor([[token for suffix in suffixes for token in suffix]], device=facts.device)
    own = torch.tensor([positions], device=facts.device)
    if placement is not None:
        keys = torch.cat([placement.keys.to(facts.device), own[0].int()])
        capture = replace(capture, windows=facts.windows, positions=keys)
    follows = placement is None and len(suffixes) == 1
    masses = query_pass(model, prefix, ids, capture, None if follows else own)
    every = torch.cat([masses[layer].cpu() for layer in heads], dim=1)
    return list(every.unbind())
