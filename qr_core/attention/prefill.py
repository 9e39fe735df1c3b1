"""Prefill: run a prompt's shared beginning once and keep its keys and values, up to one layer.

The forward pass is the model's own, under its own attention implementation, over chunks of tokens small enough for a
byte budget. Each is left as soon as the deepest layer that matters has produced its keys: nothing else of that layer,
and nothing above it, is computed. What comes of it, a `Prefix`, serves any number of queries.

Knows nothing of documents, queries or heads: a prompt is token ids and a depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from qr_core.attention import memory
from qr_core.attention.capture import DepthReached
from qr_core.attention.chunks import SMALLEST_CHUNK, chunk_rows, rows_for_windows
from qr_core.attention.layers import Layer
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        Told how many tokens were encoded, after each chunk.
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
    facts = facts_of(model)
    layers = facts.layers
    if after is not None and facts.offloaded:
        after = after.deepened(len(layers))
    before = 0 if after is None else after.length
    told = 0

    def fill(rows: int) -> Prefix:
        nonlocal told
        cache = _FillingCache(layers, before + tokens, None if facts.offloaded else deepest)
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
    most = min(tokens, rows_for_windows(model))
    return memory.in_pieces(fill, min(rows, most), SMALLEST_CHUNK, f"of {batch * tokens} tokens", make_room, masked)
