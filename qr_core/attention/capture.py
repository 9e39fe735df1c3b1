"""Capture: the attention mass of chosen heads, read while a query pass runs.

Registers one attention function with transformers. While a `Capture` is active it computes what the model's own
eager attention computes (scaling, soft cap, mask, attention sinks) and keeps, for the chosen heads only, each key's
attention averaged over the rows of the pass. Softmax and average are float32 whatever the weights' type.

One batch item may hold several suffixes of the same prefix, one after the other, that do not see each other.

Knows nothing of prompts, documents, queries or scores: rows and keys are positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from qr_core.attention.loaded import facts_of
from qr_core.attention.masks import near_mask, others_mask
from qr_core.attention.sharding import own_heads, put_together, shards_of
from qr_core.errors import NonFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION_NAME = "qrhead_capture"
BLOCK_BYTES = {"cpu": 16 * 2**20}
OTHER_BLOCK_BYTES = 256 * 2**20
"""Most attention weights (float32) held at a time, by kind of device: a layer's rows are read in blocks of this size.
A CPU's fit its cache; a GPU would read all keys again for every block of a few rows."""


class DepthReached(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a forward pass once the deepest layer that matters has done its part."""


@dataclass
class Capture:
    """What one query pass reads, and what it has read so far.

    Attributes
    ----------
    heads : mapping of int to Tensor
        For each layer to read, the indices of its heads, shape (heads of that layer,).
    row_weights : Tensor, optional
        Needed where there are heads to read. Float32, shape (readings, rows): the weight of each row of the pass in the
        average. Rows that are no part of the query (padding, say) have weight 0; the weights of a reading sum to 1.
        There is one reading per batch item, or any number of a batch of one.
    stop_after : int or None
        The layer after whose capture the forward pass is left by `DepthReached`. None runs all layers.
    ablated : mapping of int to Tensor
        For each layer, the indices of heads whose output is replaced by zeros, for causal checks.
    suffixes : tuple of int
        Where the rows are several suffixes, the rows of each. No more than one: all rows follow each other.
    windows : mapping of int to int
        For layers with a sliding window, how far back they look, by position: where documents share positions, the
        model's own mask would count tokens that stand in between. Needs `positions`.
    positions : Tensor, optional
        Int32, shape (keys,): every key's, those of the pass's rows last.
    shards : int
        Over how many processes the model's heads are spread; set by `capturing`.
    masses : dict of int to Tensor
        Filled by the pass: for each layer, float32, shape (readings, heads of that layer, keys).
    """

    heads: Mapping[int, Tensor]
    row_weights: Tensor | None = None
    stop_after: int | None = None
    ablated: Mapping[int, Tensor] = field(default_factory=dict)
    suffixes: tuple[int, ...] = ()
    windows: Mapping[int, int] = field(default_factory=dict)
    positions: Tensor | None = None
    shards: int = 1
    masses: dict[int, Tensor] = field(default_factory=dict)


_ACTIVE: ContextVar[Capture | None] = ContextVar("qrhead_capture", default=None)


def capture_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 - part of the interface, off at inference
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as eager attention does, and keep the chosen heads' rows for the active `Capture`.

    Parameters
    ----------
    query : Tensor
        Shape (batch, heads, rows, width).
    key, value : Tensor
        Shape (batch, key heads, keys, width); query head h reads key head h // (heads / key heads).
    attention_mask : Tensor or None
        Additive, shape (batch or 1, 1 or heads, rows, keys).
    softcap : float, optional
        Scores become `softcap * tanh(scores / softcap)` before the mask (Gemma 2).
    s_aux : Tensor, optional
        One sink logit per head, shape (heads,), which takes part in the softmax and holds no key (gpt-oss).

    Returns
    -------
    tuple of (Tensor, None)
        The attention output, shape (batch, rows, heads, value width), as transformers expects it.
    """
    capture = _ACTIVE.get()
    if capture is None:
        raise RuntimeError(f"attention function {ATTENTION_NAME!r} ran outside a capture")
    batch, heads, rows = query.shape[:3]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys = key.shape[2]
    step = max(1, BLOCK_BYTES.get(query.device.type, OTHER_BLOCK_BYTES) // (4 * batch * heads * keys))
    attended: list[Tensor] = []
    mass: Tensor | None = None
    places, own = _own(capture, module, capture.heads.get(layer), heads)
    positions = capture.positions if layer in capture.windows else None
    for start in range(0, rows, step):
        block = slice(start, start + step)
        mask = None if attention_mask is None else attention_mask[..., block, :keys]
        if positions is not None:
            mask = near_mask(positions[keys - rows :][block], positions, capture.windows[layer]).to(query.device)
            if len(capture.suffixes) > 1:
                own_keys = mask[..., keys - rows :]
                own_keys += others_mask(capture.suffixes)[block].to(query.device)
        weights = attention_weights(query[:, :, block], key, mask, scaling, softcap, s_aux)
        if own is not None and capture.row_weights is not None:
            chosen = weights[:, own.to(weights.device)]
            if mass is None:
                mass = chosen.new_zeros((len(capture.row_weights), chosen.shape[1], keys))
            _add_rows(mass, chosen, capture.row_weights[:, block])
        if layer != capture.stop_after:
            grouped = weights.to(value.dtype).view(batch, value.shape[1], -1, keys)
            attended.append(_products(grouped, value).view(batch, heads, -1, value.shape[-1]))
    if mass is not None:
        if places is not None:
            mass = put_together(mass, places, len(capture.heads[layer]))
        if not bool(torch.isfinite(mass).all()):
            raise NonFiniteError(
                f"attention in layer {layer} is not finite (NaN or infinity): load the model in another dtype, "
                "for example dtype='bfloat16' or 'float32', and check its weights"
            )
        capture.masses[layer] = mass
    if layer == capture.stop_after:
        raise DepthReached
    output = torch.cat(attended, dim=2)
    ablated = _own(capture, module, capture.ablated.get(layer), heads)[1]
    if ablated is not None:
        output[:, ablated.to(output.device)] = 0
    return output.transpose(1, 2).contiguous(), None


def _own(
    capture: Capture, module: torch.nn.Module, chosen: Tensor | None, present: int
) -> tuple[Tensor | None, Tensor | None]:
    """Of the chosen heads those that this process has: their places among them, None for all, and their indices."""
    if chosen is None or capture.shards == 1:
        return None, chosen
    return own_heads(chosen, present, int(module.config.num_attention_heads))  # type: ignore[union-attr, arg-type]


def _add_rows(mass: Tensor, chosen: Tensor, row_weights: Tensor) -> None:
    """Add weighted rows (batch, heads, rows, keys) to the readings' masses (readings, heads, keys), all float32."""
    for reading, weights in enumerate(row_weights):
        counted = weights.nonzero()[:, 0].tolist()
        if counted:
            rows = slice(counted[0], counted[-1] + 1)
            own = chosen[reading if len(chosen) > 1 else 0, :, rows]
            mass[reading] += (own * weights[rows].to(own.device)[:, None]).sum(dim=1)


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """Post-softmax attention of some rows, float32, shape (batch, heads, rows, keys)."""
    batch, heads, rows, width = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    # Grouped instead of repeated keys: head h = (h // group, h % group), so a view of the query is enough.
    grouped = query.reshape(batch, key_heads, heads // key_heads * rows, width)
    logits = _products(grouped, key.transpose(2, 3)) * (width**-0.5 if scaling is None else scaling)
    logits = logits.view(batch, heads, rows, keys).float()
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = logits + mask
    if s_aux is None:
        return torch.softmax(logits, dim=-1)
    sinks = s_aux.float().reshape(1, heads, 1, 1).expand(batch, heads, rows, 1)
    return torch.softmax(torch.cat([logits, sinks], dim=-1), dim=-1)[..., :keys]


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Matrix products, shape (batch, heads, rows, columns), without a copy of what `right` holds.

    On a CPU, in half precision, one call for all heads copies tensors that leave room between heads, which takes ten
    times as long as the products of a few rows. So they are made one by one.
    """
    if right.device.type != "cpu" or right.dtype == torch.float32 or not _gaps(right):
        return torch.matmul(left, right)
    made = left.new_empty((*left.shape[:-1], right.shape[-1]))
    for item, own in enumerate(right.unbind()):
        for head, matrix in enumerate(own.unbind()):
            torch.mm(left[item, head], matrix, out=made[item, head])
    return made


def _gaps(tensor: Tensor) -> bool:
    """Whether a tensor's matrices, rows first or columns first, do not follow each other in memory."""
    return not (tensor.is_contiguous() or tensor.transpose(2, 3).is_contiguous())


def capture_mask(batch_size: int, q_length: int, kv_length: int, **options: Any) -> Tensor:
    """Eager attention's own (additive) mask; rows of one suffix do not see those of another.

    Each suffix sees what it would see if it followed the prefix alone, whatever the model's mask function is.

    Returns
    -------
    Tensor
        Shape (batch, 1, rows, keys).
    """
    capture = _ACTIVE.get()
    suffixes = () if capture is None else capture.suffixes
    if len(suffixes) < 2:
        return eager_mask(batch_size, q_length, kv_length, **options)
    before, longest = kv_length - q_length, max(suffixes)
    alone = eager_mask(batch_size, longest, before + longest, **options)
    mask = alone.new_full((batch_size, 1, q_length, kv_length), torch.finfo(alone.dtype).min)
    start = 0
    for rows in suffixes:
        own = slice(start, start + rows)
        mask[:, :, own, :before] = alone[:, :, :rows, :before]
        mask[:, :, own, before + start : before + start + rows] = alone[:, :, :rows, before : before + rows]
        start += rows
    return mask


# Registered once and never taken out: other threads may be using it.
AttentionInterface.register(ATTENTION_NAME, capture_attention)
AttentionMaskInterface.register(ATTENTION_NAME, capture_mask)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run `model` with the attention implementation `name`; its own comes back on exit, whatever happens.

    The caller holds the model's lock: the choice is a property of the model, not of the call.
    """
    configs = facts_of(model).configs
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, value in zip(configs, before, strict=True):
            config._attn_implementation_internal = value


@contextmanager
def capturing(model: PreTrainedModel, capture: Capture) -> Iterator[Capture]:
    """Make `capture` the active one and switch `model` to the capturing attention, until exit."""
    capture.shards = shards_of(model)
    token = _ACTIVE.set(capture)
    try:
        with attention(model, ATTENTION_NAME):
            yield capture
    finally:
        _ACTIVE.reset(token)
