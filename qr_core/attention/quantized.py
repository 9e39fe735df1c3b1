"""Quantised prefix: what was encoded of documents, kept in fewer bits by one of transformers' quantised caches.

Documents are encoded in full precision; what is kept of them afterwards, for this and further queries, is quantised,
and each layer is turned back when a query pass reaches it. Scores are no longer exact.

Knows nothing of how keys and values are quantised: that is transformers' own, or a package's that it calls.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, QuantizedCache

from qr_core.attention.layers import layers_of, windows_of
from qr_core.attention.prefix import Prefix
from qr_core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class QuantizedPrefix:
    """In place of a `Prefix`, whose `length`, `depth`, `bytes` and `view` it has.

    Attributes
    ----------
    layers : tuple
        Layers of a quantised cache; never updated.
    length : int
        Number of tokens.
    """

    layers: tuple[Any, ...]
    length: int

    @property
    def depth(self) -> int:
        """The deepest layer."""
        return len(self.layers) - 1

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(_bytes(layer._quantized_keys) + _bytes(layer._quantized_values) for layer in self.layers)

    def deepened(self, count: int) -> QuantizedPrefix:
        """The same with `count` layers; see `Prefix`."""
        return replace(self, layers=self.layers + self.layers[-1:] * (count - len(self.layers)))

    def view(self, windows: Mapping[int, int] = MappingProxyType({})) -> Cache:  # noqa: ARG002
        """A cache that continues this prefix; its updates bind new tensors and leave these alone."""
        return Cache(layers=[copy.copy(layer) for layer in self.layers])


def quantized(prefix: Prefix, config: PreTrainedConfig, options: Mapping[str, Any]) -> QuantizedPrefix:
    """`prefix` in a quantised cache that `options` describe; see `check_options`.

    Raises
    ------
    InputError
        When the model's shape does not go with the options, such as the size of groups.
    """
    layers: list[Any] = QuantizedCache(config=_whole(config), **options).layers[: prefix.depth + 1]
    try:
        for layer, keys, values in zip(layers, prefix.keys, prefix.values, strict=True):
            layer.update(keys, values)
    except ValueError as error:
        raise InputError(f"quantized_cache={dict(options)!r} does not go with this model: {error}") from error
    return QuantizedPrefix(tuple(layers), prefix.length)


def check_options(options: Mapping[str, Any], config: PreTrainedConfig) -> None:
    """Refuse what transformers' `QuantizedCache` does not take.

    Raises
    ------
    InputError
        When it refuses the options, or this model.
    ImportError
        When the package of that backend is missing.
    """
    try:
        QuantizedCache(config=_whole(config), **options)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"quantized_cache={options!r}: {error}. Pass what transformers' QuantizedCache takes, such as "
            '{"backend": "fp8"} or {"backend": "quanto", "nbits": 4}'
        ) from error


def _whole(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config without sliding windows, which transformers does not quantise: a prefix has all keys all the same."""
    text = config.get_text_config(decoder=True)
    if not windows_of(layers_of(text)):
        return config
    text = copy.deepcopy(text)
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    return text


def _bytes(kept: Any) -> int:
    """Of a tensor, of what a tensor is made of, or of several."""
    if isinstance(kept, Mapping):
        return sum(map(_bytes, kept.values()))
    if isinstance(kept, tuple | list):
        return sum(map(_bytes, kept))
    if not isinstance(kept, torch.Tensor):
        return 0
    if hasattr(kept, "__tensor_flatten__"):
        names, _ = kept.__tensor_flatten__()
        return sum(_bytes(getattr(kept, name)) for name in names)
    return kept.numel() * kept.element_size()
