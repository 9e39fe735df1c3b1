"""Prefill: run a prompt's shared beginning once and keep its keys and values, up to one layer.

The forward pass is the model's own, under its own attention implementation. It is left as soon as the deepest layer
that matters has produced its keys: nothing else of that layer, and nothing above it, is computed. A `Prefix` can be
probed any number of times through throw-away views; it never changes.

Knows nothing of documents, queries or heads: a prefix is token ids, a depth, and tensors.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from qr_core.capture import Capture, DepthReached, capturing

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _FillingCache(DynamicCache):
    """Collects keys and values, and leaves the forward pass when layer `leave_at` has delivered its keys."""

    def __init__(self, leave_at: int | None) -> None:
        super().__init__()  # no config: every layer keeps all its keys, sliding windows live in the mask alone
        self.leave_at = leave_at

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        updated = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == self.leave_at:
            raise DepthReached
        return updated


class _ViewLayer(DynamicLayer):
    """One layer of a prefix as a probe sees it: starts from its tensors and grows by new ones, never in place."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        batch = key_states.shape[0]
        self.keys = torch.cat([self.keys.expand(batch, -1, -1, -1), key_states], dim=-2)
        self.values = torch.cat([self.values.expand(batch, -1, -1, -1), value_states], dim=-2)
        return self.keys, self.values


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a prompt's beginning, layers 0 to the deepest.

    Attributes
    ----------
    keys, values : tuple of Tensor
        One per layer, shape (batch, key heads, tokens, width).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return int(self.keys[0].shape[-2])

    def view(self) -> Cache:
        """A cache that continues this prefix; a prefix of batch 1 serves any batch."""
        return Cache(layers=[_ViewLayer(k, v) for k, v in zip(self.keys, self.values, strict=True)])


def offloaded(model: PreTrainedModel) -> bool:
    """Whether weights come from CPU or disk layer by layer: hooks that put them back must not be skipped."""
    devices = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
    return "disk" in devices or (len(devices) > 1 and "cpu" in devices)


def prefill(model: PreTrainedModel, input_ids: Tensor, deepest: int, position_ids: Tensor | None = None) -> Prefix:
    """Run `input_ids` through layers 0 to `deepest` and keep every layer's keys and values.

    Parameters
    ----------
    model : PreTrainedModel
        A decoder without a language-model head; it runs under its own attention implementation.
    input_ids : Tensor
        Shape (batch, tokens).
    deepest : int
        The last layer whose keys are needed. Of that layer only keys and values are computed.
    position_ids : Tensor, optional
        Shape (batch, tokens); 0, 1, 2, ... by default.
    """
    cache = _FillingCache(None if offloaded(model) else deepest)
    with suppress(DepthReached):
        model(input_ids=input_ids, position_ids=position_ids, past_key_values=cache, use_cache=True)
    layers = cast(list[DynamicLayer], cache.layers[: deepest + 1])
    return Prefix(
        tuple(cast(Tensor, layer.keys) for layer in layers), tuple(cast(Tensor, layer.values) for layer in layers)
    )


def probe(
    model: PreTrainedModel, prefix: Prefix, input_ids: Tensor, capture: Capture, position_ids: Tensor | None = None
) -> dict[int, Tensor]:
    """Run a suffix over `prefix` through the capturing attention and return the masses it read.

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
    if offloaded(model):
        capture = replace(capture, stop_after=None)
    with capturing(model, capture), suppress(DepthReached):
        model(input_ids=input_ids, position_ids=position_ids, past_key_values=prefix.view(), use_cache=True)
    return {layer: mass[..., : prefix.length] for layer, mass in capture.masses.items()}
