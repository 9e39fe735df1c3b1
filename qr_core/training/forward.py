"""The training-time forward pass: what the scorer computes, over several packs at once, with gradients.

Packs stand side by side, padded to the longest, and one mask says who sees whom. A pack's tokens are its introduction
and passages (the prefix), the late instruction, and the queries, each of which sees prefix, late instruction and
itself. The late instruction comes before the query, so it is encoded once for all. `tests/unit/training` compares its
masses with the scorer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import MinistralForCausalLM
from transformers.models.ministral.modeling_ministral import apply_rotary_pos_emb

from qr_core.attention.layers import layers_of

Tensors = TypeVar("Tensors")
INTRODUCTION = 0
LATE = 1_000
"""Part of the late instruction; passages have 1, 2, ..., queries LATE + 1, LATE + 2, ..., padding PADDING."""
PADDING = -1


@dataclass(frozen=True)
class Layout:
    """Where things stand in packs of up to N tokens.

    Attributes
    ----------
    ids, positions, parts : Tensor
        Int64, shape (packs, N); a pack's parts stand in the order of their numbers, padding last.
    joint : Tensor
        Bool, shape (packs,): passages see those before them, as in use; else the introduction and themselves.
    """

    ids: Tensor
    positions: Tensor
    parts: Tensor
    joint: Tensor


def moved(value: Tensors, device: torch.device | str) -> Tensors:
    """A dataclass of tensors, of lists of them, or of such dataclasses, on a device."""

    def move(item: object) -> object:
        if isinstance(item, Tensor):
            return item.to(device, non_blocking=True)
        return [move(one) for one in item] if isinstance(item, list) else moved(item, device)

    return type(value)(**{field.name: move(getattr(value, field.name)) for field in fields(value)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pass:
    """What a forward pass found.

    Attributes
    ----------
    masses : Tensor
        Float32, shape (packs, heads, queries, N): attention of late instruction and query, mean over their tokens, to
        each token of the prefix; heads of all read layers side by side. Nothing where a pack has fewer queries.
    states : Tensor
        Normalised input of the deepest read layer, shape (packs, N, hidden).
    last : Tensor or None
        Output of the last layer, same shape, where that layer was run.
    """

    masses: Tensor
    states: Tensor
    last: Tensor | None


def run(model: MinistralForCausalLM, packs: Layout, read_layers: Sequence[int], to_the_end: bool = False) -> Pass:
    """Run the packs up to the deepest read layer, or through all layers."""
    config = model.config
    heads, deepest = config.num_attention_heads, max(read_layers)
    width = config.hidden_size // heads
    count, length = packs.ids.shape
    x = model.model.embed_tokens(packs.ids)
    cos, sin = model.model.rotary_emb(x, packs.positions)
    everything, asking = visible(packs), QueryRows.of(packs)
    back = packs.positions[:, :, None] - packs.positions[:, None, :]
    windows = [layer.window for layer in layers_of(config)]
    seen_within = {w: everything if w is None else everything & (back < w) for w in set(windows)}
    masses = []
    states = x
    for number, layer in enumerate(model.model.layers):
        seen = seen_within[windows[number]]
        normed = layer.input_layernorm(x)
        if number == deepest:
            states = normed
        own = layer.self_attn
        q, k, v = (
            p(normed).view(count, -1, heads, width).transpose(1, 2) for p in (own.q_proj, own.k_proj, own.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        q, k = q.to(v.dtype), k.to(v.dtype)  # (packs, heads, N, width)
        if number in read_layers:
            masses.append(asking.masses(q, k, seen))
        if number == deepest and not to_the_end:
            break
        attended = scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        x = x + own.o_proj(attended.transpose(1, 2).reshape(count, length, heads * width))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return Pass(torch.cat(masses, dim=1), states, model.model.norm(x) if to_the_end else None)


def visible(packs: Layout) -> Tensor:
    """Which token sees which, bool, shape (packs, N, N). No row is empty: padding sees padding."""
    row, column = packs.parts[:, :, None], packs.parts[:, None, :]
    places = torch.arange(packs.parts.shape[1], device=packs.parts.device)
    passage = (column > INTRODUCTION) & (column < LATE)
    seen = (
        (row == column) | (passage & (packs.joint[:, None, None] | (row >= LATE))) | ((column == LATE) & (row > LATE))
    )
    seen = seen | ((column == INTRODUCTION) & (row > INTRODUCTION))
    return seen & (places[:, None] >= places)


@dataclass(frozen=True)
class QueryRows:
    """The rows whose attention counts: late instruction and queries.

    Attributes
    ----------
    places : Tensor
        Shape (packs, R): their places, then any others.
    weights : Tensor
        Float32, shape (packs, queries, R): 1 / tokens where a row belongs to a query or to the late instruction.
    prefix : Tensor
        Bool, shape (packs, N).
    """

    places: Tensor
    weights: Tensor
    prefix: Tensor

    @classmethod
    def of(cls, packs: Layout) -> QueryRows:
        """The rows of some packs."""
        parts = packs.parts
        asked = parts >= LATE
        longest = int(asked.sum(dim=1).max())
        places = asked.int().argmax(dim=1, keepdim=True) + torch.arange(longest, device=parts.device)
        inside = places < parts.shape[1]
        places = places.clamp_max(parts.shape[1] - 1)
        own = parts.gather(1, places).where(inside, PADDING)[:, None]
        queries = torch.arange(LATE + 1, int(parts.max()) + 1, device=parts.device)[:, None]
        member = ((own == queries) | (own == LATE)).float() * (own == queries).any(dim=2, keepdim=True)
        return cls(places, member / member.sum(dim=2, keepdim=True).clamp_min(1), (parts >= 0) & (parts < LATE))

    def masses(self, q: Tensor, k: Tensor, seen: Tensor) -> Tensor:
        """Mean attention of each query's rows to the prefix, shape (packs, heads, queries, N), float32."""
        width = q.shape[3]
        rows = q.gather(2, self.places[:, None, :, None].expand(-1, q.shape[1], -1, width))
        own = seen.gather(1, self.places[..., None].expand(-1, -1, seen.shape[2]))
        logits = (rows @ k.transpose(2, 3)).float() * width**-0.5
        shares = torch.softmax(logits.masked_fill(~own[:, None], float("-inf")), dim=3)
        with torch.autocast(q.device.type, enabled=False):  # sums of many small numbers
            return (self.weights[:, None] @ shares) * self.prefix[:, None, None]
