"""Prefill: run a prompt's shared beginning once and keep its keys and values, up to one layer.

The forward pass is the model's own, under its own attention implementation, over chunks of tokens small enough for a
byte budget. Each is left as soon as the deepest layer that matters has produced its keys: nothing else of that layer,
and nothing above it, is computed. What was read, a `Prefix`, can be probed any number of times.

Knows nothing of documents, queries or heads: a prompt is token ids and a depth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from qr_core.attention import memory
from qr_core.attention.capture import Capture, DepthReached, capturing
from qr_core.attention.layers import Layer, layers_of, windows_of
from qr_core.attention.prefix import Prefix
from qr_core.attention.sharding import shards_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from qr_core.attention.quantized import QuantizedPrefix


CHUNK_BYTES = {"cpu": 64 * 2**20}
OTHER_CHUNK_BYTES = 512 * 2**20
"""Most bytes that a chunk's rows may take, by kind of device: against all keys in a mask, or in the widest layer."""
WHOLE_BYTES = 256 * 2**20
WHOLE_SHARE = 2
"""A prompt is one chunk where its attention then needs no mask and there is room: on a CPU, when its rows take no more
than this in the widest layer; on CUDA, when that twice and all keys and values take no more than half of what the
fullest device has free. Later chunks need a mask: on a CPU that costs a sixth of the time that attention takes, on a
GPU it rules out the fast kernels."""
SMALLEST_CHUNK = 64
"""Rows. Fewer would read the weights too often."""
SMALLEST_PACK = 512
"""Rows that suffixes may take in one pass over however short a prefix."""


class _FillingLayer(DynamicLayer):
    """One layer's keys and values, written chunk by chunk into room made for all tokens at once."""

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = tokens
        self.filled = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        count = key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.all_keys = key_states.new_empty((*key_states.shape[:-2], self.room, key_states.shape[-1]))
            self.all_values = value_states.new_empty((*value_states.shape[:-2], self.room, value_states.shape[-1]))
        self.all_keys[..., self.filled : self.filled + count, :] = key_states
        self.all_values[..., self.filled : self.filled + count, :] = value_states
        self.filled += count
        self.keys, self.values = self.all_keys[..., : self.filled, :], self.all_values[..., : self.filled, :]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.filled


class _WindowLayer(_FillingLayer):
    """The same for a layer that looks `window` tokens back. All keys are kept; a chunk is shown those it can see."""

    is_sliding = True

    def __init__(self, tokens: int, window: int) -> None:
        super().__init__(tokens)
        self.window = window

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        first = self._first()
        keys, values = super().update(key_states, value_states)
        return keys[..., first:, :], values[..., first:, :]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys the next `query_length` tokens are shown, and where these begin."""
        return self.filled + query_length - self._first(), self._first()

    def _first(self) -> int:
        return max(self.filled + 1 - self.window, 0)


class _FillingCache(Cache):
    """Collects keys and values, and leaves the forward pass when layer `leave_at` has delivered its keys."""

    def __init__(self, layers: Sequence[Layer], tokens: int, leave_at: int | None) -> None:
        filling = [
            _FillingLayer(tokens) if layer.window is None else _WindowLayer(tokens, layer.window) for layer in layers
        ]
        super().__init__(layers=cast(Any, filling))
        self.leave_at = leave_at

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        updated = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == self.leave_at:
            raise DepthReached
        return updated

    def begin_with(self, prefix: Prefix, batch: int) -> None:
        """Let every item of a batch start from the same `prefix`."""
        for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values, strict=True)):
            super().update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), layer)


def offloaded(model: PreTrainedModel) -> bool:
    """Whether weights come from CPU or disk layer by layer: hooks that put them back must not be skipped."""
    devices = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
    return "disk" in devices or (len(devices) > 1 and "cpu" in devices)


def chunk_rows(model: PreTrainedModel, tokens: int, alone_to: int | None = None) -> int:
    """How many of a prompt's `tokens` to run at a time, for `CHUNK_BYTES`; all where there is room for the whole.

    Parameters
    ----------
    alone_to : int, optional
        The deepest layer, where nothing stands before the tokens and no other prompt beside them.
    """
    text = model.config.get_text_config(decoder=True)
    widest = _widest(text)
    if alone_to is not None and _has_room(model, tokens, alone_to):
        return tokens
    heads = int(text.num_attention_heads) if text._attn_implementation == "eager" else 1
    budget = CHUNK_BYTES.get(model.device.type, OTHER_CHUNK_BYTES)
    return max(SMALLEST_CHUNK, budget // max(widest, 4 * heads * tokens))


def _widest(text: Any) -> int:
    """Bytes of a token's row in the widest layer, in float32."""
    return 4 * max(int(getattr(text, "intermediate_size", None) or 0), 4 * int(text.hidden_size))


def _has_room(model: PreTrainedModel, tokens: int, deepest: int) -> bool:
    """Whether a whole prompt may be one chunk."""
    text = model.config.get_text_config(decoder=True)
    masked = text._attn_implementation != "sdpa" or any(layer.window for layer in layers_of(model.config))
    if masked or shards_of(model) > 1:  # processes that share a model must agree, whatever each has free
        return False
    if model.device.type == "cpu":
        return tokens * _widest(text) <= WHOLE_BYTES
    places = set(getattr(model, "hf_device_map", {}).values()) - {"cpu", "disk"} or {model.device}
    room = min(memory.free_bytes(torch.device("cuda", p) if isinstance(p, int) else torch.device(p)) for p in places)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kept = 2 * int(heads) * int(width) * model.dtype.itemsize * (deepest + 1)
    return tokens * (2 * _widest(text) + kept) <= room // WHOLE_SHARE


def _rows_for_windows(model: PreTrainedModel) -> int:
    """Most rows of a chunk, on a CPU, so that layers with windows are shown few keys that a row cannot see."""
    windows = [layer.window for layer in layers_of(model.config) if layer.window]
    return max(SMALLEST_CHUNK, min(windows)) if windows and model.device.type == "cpu" else sys.maxsize


def prefill(
    model: PreTrainedModel,
    input_ids: Tensor,
    deepest: int,
    position_ids: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    make_room: Callable[[], None] | None = None,
    after: Prefix | None = None,
) -> Prefix:
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
        Shape (batch, tokens); by default 0, 1, 2, ..., or those that follow `after`.
    progress : callable, optional
        Told how many tokens were run, after each chunk.
    make_room : callable, optional
        Called when memory is short, before smaller chunks are tried.
    after : Prefix, optional
        What every item of the batch follows, of batch 1; no part of the result.

    Raises
    ------
    MemoryLimitError
        When memory is short, with smaller chunks as well.
    """
    batch, tokens = input_ids.shape
    layers = layers_of(model.config)
    if after is not None and offloaded(model):
        after = after.deepened(len(layers))
    before = 0 if after is None else after.length
    told = 0

    def fill(rows: int) -> Prefix:
        nonlocal told
        cache = _FillingCache(layers, before + tokens, None if offloaded(model) else deepest)
        if after is not None:
            cache.begin_with(after, batch)
        for start in range(0, tokens, rows):
            chunk = slice(start, start + rows)
            positions = None if position_ids is None else position_ids[..., chunk]
            with suppress(DepthReached):
                model(input_ids=input_ids[..., chunk], position_ids=positions, past_key_values=cache, use_cache=True)
            done = min(start + rows, tokens)
            if progress and done > told:
                progress(batch * (done - told))
            told = max(told, done)
        filled = cast(list[DynamicLayer], cache.layers[: deepest + 1])
        return Prefix(
            tuple(cast(Tensor, layer.keys)[..., before:, :] for layer in filled),
            tuple(cast(Tensor, layer.values)[..., before:, :] for layer in filled),
        )

    rows = max(1, chunk_rows(model, before + tokens, deepest if before == 0 and batch == 1 else None) // batch)
    masked = max(1, chunk_rows(model, before + tokens) // batch)
    most = min(tokens, _rows_for_windows(model))
    return memory.in_pieces(fill, min(rows, most), SMALLEST_CHUNK, f"of {batch * tokens} tokens", make_room, masked)


def probe(
    model: PreTrainedModel,
    prefix: Prefix | QuantizedPrefix,
    input_ids: Tensor,
    capture: Capture,
    position_ids: Tensor | None = None,
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
    layers = layers_of(model.config)
    if offloaded(model):
        capture, prefix = replace(capture, stop_after=None), prefix.deepened(len(layers))
    view = prefix.view(windows_of(layers))
    with capturing(model, capture), suppress(DepthReached):
        model(input_ids=input_ids, position_ids=position_ids, past_key_values=view, use_cache=True)
    total = prefix.length + input_ids.shape[1]
    # What a window left out has no mass.
    return {n: pad(mass, (total - mass.shape[-1], 0))[..., : prefix.length] for n, mass in capture.masses.items()}


def probe_each(
    model: PreTrainedModel,
    prefix: Prefix | QuantizedPrefix,
    suffixes: Sequence[Sequence[int]],
    heads: Mapping[int, Sequence[int]],
    deepest: int,
) -> list[Tensor]:
    """Run several suffixes over `prefix` in one pass, none of which sees another, and average each one's rows.

    Parameters
    ----------
    suffixes : sequence of sequence of int
        Token ids; none is empty.
    heads : mapping of int to sequence of int
        For each layer to read, in ascending order, the heads to read.
    deepest : int
        The last of those layers.

    Returns
    -------
    list of Tensor
        For each suffix, float32, shape (heads of all layers, prefix tokens), on the CPU.

    Raises
    ------
    NonFiniteError
        As for `probe`.
    """
    counts = [len(suffix) for suffix in suffixes]
    row_weights = torch.zeros(len(suffixes), sum(counts))
    positions: list[int] = []
    for number, count in enumerate(counts):
        row_weights[number, len(positions) : len(positions) + count] = 1 / count
        positions += range(prefix.length, prefix.length + count)
    capture = Capture(
        heads={layer: torch.tensor(chosen) for layer, chosen in heads.items()},
        row_weights=row_weights,
        stop_after=deepest,
        suffixes=tuple(counts),
    )
    ids = torch.tensor([[token for suffix in suffixes for token in suffix]], device=model.device)
    apart = torch.tensor([positions], device=model.device) if len(suffixes) > 1 else None
    masses = probe(model, prefix, ids, capture, apart)
    every = torch.cat([masses[layer].cpu() for layer in heads], dim=1)
    return list(every.unbind())


def suffixes_at_once(model: PreTrainedModel, prefix: Prefix | QuantizedPrefix, heads: int, longest: int) -> int:
    """How many suffixes to run over `prefix` in one pass, for `CHUNK_BYTES`.

    Parameters
    ----------
    heads : int
        How many are read: for each suffix, their masses on every prefix token are held.
    longest : int
        Most tokens of a suffix.
    """
    budget = CHUNK_BYTES.get(model.device.type, OTHER_CHUNK_BYTES)
    # Suffixes are keys to each other, if masked ones: they should be few beside the prefix's.
    rows = min(chunk_rows(model, prefix.length), max(SMALLEST_PACK, prefix.length // 4))
    return max(1, min(budget // (4 * heads * prefix.length), rows // longest))
