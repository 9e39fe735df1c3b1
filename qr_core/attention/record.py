"""Record: the queries and keys of chosen layers, taken while a model runs under its own attention.

Registers one attention function with transformers, which hands everything on to the implementation that the model had,
and one mask function, which does the same. Serves decoders, whose text continues a prefix, and encoders, whose tokens
see each other on both sides and which have no cache.

Knows nothing of documents, queries or heads: texts are token ids.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from qr_core.attention.capture import Capture, DepthReached, attention, capturing
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix
from qr_core.attention.query_pass import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RECORD_NAME = "qrhead_record"


@dataclass(frozen=True)
class Recorded:
    """What one layer's attention was given.

    Attributes
    ----------
    query : Tensor
        Shape (batch, heads, rows, width), after position encodings.
    key : Tensor
        Shape (batch, key heads, keys, width); head h reads key head h // (heads / key heads).
    scaling, softcap, sinks
        As for `attention_weights`.
    """

    query: Tensor
    key: Tensor
    scaling: float | None
    softcap: float | None
    sinks: Tensor | None

    def item(self, number: int) -> Recorded:
        """Of one batch item only."""
        own = slice(number, number + 1)
        return replace(self, query=self.query[own], key=self.key[own])

    def part(self, start: int, end: int) -> Recorded:
        """Of the rows from `start` to `end` only."""
        return replace(self, query=self.query[:, :, start:end])


def one_after_another(parts: Sequence[Recorded]) -> Recorded:
    """The rows of several texts that were each run alone; keys are the first one's."""
    return replace(parts[0], query=torch.cat([part.query for part in parts], dim=2))


@dataclass
class Recording:
    """What a forward pass records.

    Attributes
    ----------
    own : str
        The attention implementation that runs.
    layers : collection of int
    stop_after : int or None
        The layer after whose recording the pass is left; None runs all.
    found : dict of int to Recorded
        Filled by the pass.
    """

    own: str
    layers: Collection[int]
    stop_after: int | None
    found: dict[int, Recorded] = field(default_factory=dict)


_ACTIVE: ContextVar[Recording | None] = ContextVar("qrhead_record", default=None)


def _recording() -> Recording:
    recording = _ACTIVE.get()
    if recording is None:
        raise RuntimeError(f"attention function {RECORD_NAME!r} ran outside a recording")
    return recording


def record_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    """Attend as the model does; keep what the layer was given, if it is to be recorded."""
    recording = _recording()
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if layer in recording.layers:
        known = (options.get(name) for name in ("scaling", "softcap", "s_aux"))
        recording.found[layer] = Recorded(query, key, *known)
        if layer == recording.stop_after:
            raise DepthReached
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own: Any = ALL_ATTENTION_FUNCTIONS.get_interface(recording.own, eager)
    return own(module, query, key, value, attention_mask, **options)


def record_mask(*args: Any, **options: Any) -> Any:
    """The mask that the model's own implementation makes."""
    return ALL_MASK_ATTENTION_FUNCTIONS[_recording().own](*args, **options)


# Registered once and never taken out: other threads may be using it.
AttentionInterface.register(RECORD_NAME, record_attention)
AttentionMaskInterface.register(RECORD_NAME, record_mask)


@contextmanager
def recording(model: PreTrainedModel, layers: Collection[int]) -> Iterator[Recording]:
    """Record `layers` of every pass of `model` in this block, under the implementation that it has now.

    The caller holds the model's lock. A pass is left after the last of the layers, by `DepthReached`.
    """
    stop_after = None if facts_of(model).offloaded else max(layers)
    own = str(model.config.get_text_config(decoder=True)._attn_implementation)
    found = Recording(own, layers, stop_after)
    token = _ACTIVE.set(found)
    try:
        with attention(model, RECORD_NAME):
            yield found
    finally:
        _ACTIVE.reset(token)


def record_texts(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], length: int, rows: int, layers: Collection[int]
) -> Mapping[int, Recorded]:
    """Run texts through an encoder in one batch, none of which sees another.

    Parameters
    ----------
    texts : sequence of sequence of int
        Token ids, with what the tokenizer puts around a text.
    length, rows : int
        Shape of the batch. Padding stands behind a text, where none of its tokens looks.
    layers : collection of int

    Returns
    -------
    mapping of int to Recorded
        For each layer; batch items are texts, then filling.
    """
    spare = [[0] * length] * (rows - len(texts))
    ids = torch.tensor([[*text, *[0] * (length - len(text))] for text in texts] + spare)
    mask = torch.ones_like(ids)  # rows of mere filling see themselves: attention over nothing would not be finite
    for row, text in enumerate(texts):
        mask[row, len(text) :] = 0
    device = facts_of(model).device
    if device.type != "cpu":  # a mask that hides nothing is left out, and other kernels, with other last bits, chosen
        ids = torch.cat([ids, ids.new_zeros(1, length)])
        mask = torch.cat([mask, torch.eye(1, length, dtype=mask.dtype)])
    with recording(model, layers) as found, suppress(DepthReached):
        model(input_ids=ids.to(device), attention_mask=mask.to(device))
    return found.found


def record_suffix(
    model: PreTrainedModel, prefix: Prefix, suffix: Sequence[int], placement: Placement, layers: Collection[int]
) -> Mapping[int, Recorded]:
    """Run a decoder's suffix over `prefix`, at positions of its own.

    Parameters
    ----------
    prefix : Prefix
        Of batch 1; layers 0 to the last that is recorded, at least.
    suffix : sequence of int
        Token ids, at least one.
    placement : Placement
        The positions of prefix and suffix: windows are counted by them.
    layers : collection of int
    """
    facts = facts_of(model)
    ids = torch.tensor([list(suffix)], device=facts.device)
    positions = placement.query + torch.arange(len(suffix), device=facts.device)
    keys = torch.cat([placement.keys.to(facts.device), positions.int()])
    view = (prefix.deepened(len(facts.layers)) if facts.offloaded else prefix).view()
    with (
        capturing(model, Capture(heads={}, windows=facts.windows, positions=keys)),
        recording(model, layers) as found,
        suppress(DepthReached),
    ):
        model(input_ids=ids, position_ids=positions[None], past_key_values=view, use_cache=True)
    return found.found
