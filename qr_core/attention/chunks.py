"""Chunks: how many rows of a prompt, or how many queries, run at a time, for a byte budget by kind of device.

Knows nothing of what the rows are.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

from qr_core.attention import memory
from qr_core.attention.loaded import facts_of
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


def chunk_rows(model: PreTrainedModel, tokens: int, alone_to: int | None = None) -> int:
    """How many of a prompt's `tokens` to run at a time, for `CHUNK_BYTES`; all where there is room for the whole.

    Parameters
    ----------
    alone_to : int, optional
        The deepest layer, where nothing stands before the tokens and no other prompt beside them.
    """
    text = model.config.get_text_config(decoder=True)
    facts = facts_of(model)
    if alone_to is not None and _has_room(model, tokens, alone_to):
        return tokens
    heads = int(text.num_attention_heads) if text._attn_implementation == "eager" else 1
    budget = CHUNK_BYTES.get(facts.device.type, OTHER_CHUNK_BYTES)
    return max(SMALLEST_CHUNK, budget // max(facts.widest, 4 * heads * tokens))


def _has_room(model: PreTrainedModel, tokens: int, deepest: int) -> bool:
    """Whether a whole prompt may be one chunk."""
    text = model.config.get_text_config(decoder=True)
    facts = facts_of(model)
    masked = text._attn_implementation != "sdpa" or facts.windows
    if masked or shards_of(model) > 1:  # processes that share a model must agree, whatever each has free
        return False
    if facts.device.type == "cpu":
        return tokens * facts.widest <= WHOLE_BYTES
    places = set(getattr(model, "hf_device_map", {}).values()) - {"cpu", "disk"} or {facts.device}
    room = min(memory.free_bytes(torch.device("cuda", p) if isinstance(p, int) else torch.device(p)) for p in places)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kept = 2 * int(heads) * int(width) * model.dtype.itemsize * (deepest + 1)
    return tokens * (2 * facts.widest + kept) <= room // WHOLE_SHARE


def rows_for_windows(model: PreTrainedModel) -> int:
    """Most rows of a chunk, on a CPU, so that layers with windows are shown few keys that a row cannot see."""
    facts = facts_of(model)
    if not facts.windows or facts.device.type != "cpu":
        return sys.maxsize
    return max(SMALLEST_CHUNK, min(facts.windows.values()))


def suffixes_at_once(model: PreTrainedModel, prefix: Prefix | QuantizedPrefix, heads: int, longest: int) -> int:
    """How many suffixes to run over `prefix` in one pass, for `CHUNK_BYTES`.

    Parameters
    ----------
    heads : int
        How many are read: for each suffix, their masses on every prefix token are held.
    longest : int
        Most tokens of a suffix.
    """
    budget = CHUNK_BYTES.get(facts_of(model).device.type, OTHER_CHUNK_BYTES)
    # Suffixes are keys to each other, if masked ones: they should be few beside the prefix's.
    rows = min(chunk_rows(model, prefix.length), max(SMALLEST_PACK, prefix.length // 4))
    return max(1, min(budget // (4 * heads * prefix.length), rows // longest))
