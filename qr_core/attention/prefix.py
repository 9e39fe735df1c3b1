"""Prefix: keys and values of a prompt's beginning, and the throw-away caches in which a query pass continues it.

A prefix never changes: views grow by new tensors, or write to the room behind it.

Knows nothing of models: of layers with a sliding window it is told how far back they look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class _ViewLayer(DynamicLayer):
    """One layer of a prefix as a query pass sees it: starts from its tensors and grows by new ones, never in place."""

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


class _NearViewLayer(_ViewLayer):
    """The same for a layer with a sliding window: a pass is shown the end of the prefix that its first row can see."""

    is_sliding = True

    def __init__(self, keys: Tensor, values: Tensor, window: int) -> None:
        self.first = max(keys.shape[-2] + 1 - window, 0)
        super().__init__(keys[..., self.first :, :], values[..., self.first :, :])

    def get_seq_length(self) -> int:
        return self.first + int(self.keys.shape[-2])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys a pass of `query_length` tokens is shown, and where these begin."""
        return int(self.keys.shape[-2]) + query_length, self.first


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a prompt's beginning, layers 0 to the deepest.

    Attributes
    ----------
    keys, values : tuple of Tensor
        One per layer, shape (batch, key heads, tokens, width). What was kept for the late layout has keys of the layers
        that are read only, and no values.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return int(self.keys[0].shape[-2])

    @property
    def depth(self) -> int:
        """The deepest layer."""
        return len(self.keys) - 1

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    @property
    def token_bytes(self) -> int:
        """Memory that one token takes."""
        tensors = (*self.keys, *self.values)
        return sum(t.shape[0] * t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def part(self, start: int, end: int) -> Prefix:
        """Of the tokens from `start` to `end` only, as views."""
        return Prefix(
            tuple(tensor[..., start:end, :] for tensor in self.keys),
            tuple(tensor[..., start:end, :] for tensor in self.values),
        )

    def copied(self) -> Prefix:
        """The same in memory of its own."""
        return Prefix(tuple(tensor.clone() for tensor in self.keys), tuple(tensor.clone() for tensor in self.values))

    def deepened(self, count: int) -> Prefix:
        """The same with `count` layers, for a pass that cannot be left early: what those above see does not matter."""
        above = count - len(self.keys)
        return replace(self, keys=self.keys + self.keys[-1:] * above, values=self.values + self.values[-1:] * above)

    def view(self, windows: Mapping[int, int] = MappingProxyType({})) -> Cache:
        """A cache that continues this prefix; a prefix of batch 1 serves any batch.

        Parameters
        ----------
        windows : mapping of int to int
            For layers with a sliding window, how far back they look.
        """
        layers = enumerate(zip(self.keys, self.values, strict=True))
        return Cache(
            layers=[_NearViewLayer(k, v, windows[n]) if n in windows else _ViewLayer(k, v) for n, (k, v) in layers]
        )


class _RoomLayer(DynamicLayer):
    """One layer of a prefix with room behind it, where a pass's own keys and values are written if they fit."""

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.all_keys, self.all_values, self.filled = keys, values, length
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        end = self.filled + key_states.shape[-2]
        if end > self.all_keys.shape[-2]:
            self.keys = torch.cat([self.keys, key_states], dim=-2)
            self.values = torch.cat([self.values, value_states], dim=-2)
            return self.keys, self.values
        self.all_keys[..., self.filled : end, :] = key_states
        self.all_values[..., self.filled : end, :] = value_states
        self.keys, self.values, self.filled = self.all_keys[..., :end, :], self.all_values[..., :end, :], end
        return self.keys, self.values


@dataclass(frozen=True)
class RoomyPrefix(Prefix):
    """A prefix of batch 1 with room behind it for a suffix; a pass with a longer one copies the prefix.

    Query passes write to that room: one at a time, as the model's lock has it.

    Attributes
    ----------
    room : int
        Tokens at the end of `keys` and `values` that are no part of the prefix.
    """

    room: int

    @property
    def length(self) -> int:
        """Number of tokens, without the room."""
        return super().length - self.room

    def view(self, windows: Mapping[int, int] = MappingProxyType({})) -> Cache:  # noqa: ARG002
        """A cache that continues this prefix with one suffix; of windows, the caller's mask has to know."""
        layers = zip(self.keys, self.values, strict=True)
        return Cache(layers=[_RoomLayer(k, v, self.length) for k, v in layers])


def joined(prefixes: Sequence[Prefix], room: int) -> RoomyPrefix:
    """Prefixes of one model, one after the other along their tokens, in one with `room` for a suffix."""

    def join(tensors: tuple[Tensor, ...]) -> Tensor:
        first = tensors[0]
        return torch.cat([*tensors, first.new_empty((*first.shape[:-2], room, first.shape[-1]))], dim=-2)

    return RoomyPrefix(
        tuple(join(tensors) for tensors in zip(*(p.keys for p in prefixes), strict=True)),
        tuple(join(tensors) for tensors in zip(*(p.values for p in prefixes), strict=True)),
        room,
    )
