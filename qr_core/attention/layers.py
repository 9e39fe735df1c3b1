"""Layers: which of a model's layers have attention that can be read, and how far back each can look.

Read from the config, by way of the cache that transformers would make for it. Knows nothing of weights or prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import DynamicCache
from transformers.cache_utils import CacheLayerMixin

from qr_core.errors import HeadSetError, InputError, ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes
    ----------
    attends : bool
        False for linear attention and other layers without attention over keys.
    window : int or None
        How many tokens back a sliding or chunked layer looks; None for all.
    chunked : bool
        True where that is at most: only tokens of the same chunk are seen.
    """

    attends: bool
    window: int | None
    chunked: bool = False


def layers_of(config: PreTrainedConfig) -> list[Layer]:
    """What each layer of a config's decoder can look at.

    Raises
    ------
    ModelLoadError
        When transformers cannot make a cache for this config, or its layers do not keep keys of their own.
    """
    try:
        kinds = DynamicCache(config=config).layers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(f"{type(config).__name__} has no layers that a cache can be made for: {error}") from error
    text = config.get_text_config(decoder=True)
    if getattr(text, "num_kv_shared_layers", None):
        raise ModelLoadError(f"{type(config).__name__} shares keys between layers, which is not supported")
    if getattr(text, "keep_window_size", None) is not None:
        raise ModelLoadError(
            f"{type(config).__name__} chooses the keys of a token from all of a prompt, later ones too, "
            "so a prefix cannot be encoded alone: not supported"
        )
    check_equal_heads(text)
    named = getattr(text, "layer_types", None) or [None] * len(kinds)
    chunks = getattr(text, "attention_chunk_size", None) is not None
    found = []
    for layer, name in zip(kinds, named, strict=True):
        window = getattr(layer, "sliding_window", None)
        chunked = window is not None and (chunks if name is None else name == "chunked_attention")
        found.append(Layer(isinstance(layer, CacheLayerMixin), None if window is None else int(window), chunked))
    return found


def check_equal_heads(config: PreTrainedConfig) -> None:
    """Refuse a decoder's config that gives layers different numbers of heads: a head set has one number for all.

    Raises
    ------
    ModelLoadError
        Naming the field and the numbers.
    """
    for field, value in vars(config).items():
        if "attention_heads" in field and isinstance(value, list | tuple) and len(set(value)) > 1:
            numbers = ", ".join(map(str, sorted(set(value))))
            raise ModelLoadError(
                f"{type(config).__name__} has layers with different numbers of heads ({field}: {numbers}), "
                "which is not supported"
            )


def windows_of(layers: Iterable[Layer]) -> dict[int, int]:
    """How far back each layer looks that does not look at everything, by its number."""
    return {number: layer.window for number, layer in enumerate(layers) if layer.window is not None}


def check_readable_layers(layers: list[Layer], heads: Iterable[int], model: str) -> None:
    """Refuse heads that lie in, or above, layers without attention over keys.

    Parameters
    ----------
    heads : iterable of int
        The layers that have a selected head.

    Raises
    ------
    HeadSetError
    """
    selected = sorted(heads)
    without = [number for number, layer in enumerate(layers) if not layer.attends]
    inside = [number for number in selected if number in without]
    if inside:
        raise HeadSetError(
            f"layer {inside[0]} of {model} is linear attention, which has no attention weights to read: "
            f"choose heads in other layers than {_listed(without)}"
        )
    below = [number for number in without if selected and number < selected[-1]]
    if below:
        raise HeadSetError(
            f"{model} mixes attention with linear layers ({_listed(below)}), whose state cannot be shared between "
            "queries: this model is not supported"
        )


def check_windows(layers: list[Layer], heads: Iterable[int], reach: int, model: str, remedy: str) -> None:
    """Refuse a prompt that a selected head cannot see whole.

    Parameters
    ----------
    reach : int
        How many positions the prompt takes.
    remedy : str
        What to do, besides choosing other heads; `{window}` stands for the layer's.

    Raises
    ------
    InputError
        Naming the layer, its window and the prompt's reach.
    """
    for number in sorted(heads):
        window = layers[number].window if number < len(layers) else None
        if window is not None and reach > window:
            raise InputError(
                f"heads in layer {number} of {model} look {window} tokens back, and the prompt has {reach}: what is "
                "farther back would score nothing. Choose heads in layers without a sliding window, or "
                f"{remedy.format(window=window)}"
            )


def check_chunks(layers: list[Layer], deepest: int, model: str) -> None:
    """Refuse chunked layers at or below the `deepest` one with a selected head, for documents that share positions.

    Chunks are counted where tokens stand in memory.

    Raises
    ------
    HeadSetError
        Naming the first such layer and its window.
    """
    for number, layer in enumerate(layers[: deepest + 1]):
        if layer.chunked:
            below = f"choose heads below layer {number}, or " if number else ""
            raise HeadSetError(
                f"layer {number} of {model} looks {layer.window} tokens back in chunks, which this layout "
                f"cannot do for heads in layer {deepest}: {below}pass layout='joint'"
            )


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    return shown if len(numbers) <= 8 else f"{shown}, ..."
