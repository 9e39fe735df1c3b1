"""The training-time forward pass: what the scorer computes, over several packs at once, with gradients.

All tokens of a step go through the projections together, without padding; attention is pack by pack. A pack's tokens
are its prefix (introduction and passages), the late instruction, and the queries, each of which sees prefix, late
instruction and itself. The late instruction comes before the query, so it is read once for all.

Knows nothing of text or losses. `tests/unit/test_mini.py` holds its masses to the scorer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


@dataclass(frozen=True)
class Layout:
    """Where things stand among a pack's tokens; positions count from 0, ends are exclusive.

    Attributes
    ----------
    ids, positions : Tensor
        Shape (tokens,).
    passages : list of (int, int)
        In order, without gaps; before the first stands the introduction.
    late : (int, int)
    queries : list of (int, int)
    joint : bool
        Passages see those before them, as in use; else the introduction and themselves.
    """

    ids: Tensor
    positions: Tensor
    passages: list[tuple[int, int]]
    late: tuple[int, int]
    queries: list[tuple[int, int]]
    joint: bool = True


@dataclass(frozen=True)
class Reading:
    """What a forward pass found.

    Attributes
    ----------
    masses : list of Tensor
        For each pack, float32, shape (queries, heads, prefix tokens), heads of all read layers side by side.
    states : Tensor
        Normalised input of the deepest read layer, shape (tokens of all packs, hidden).
    last : Tensor or None
        Output of the last layer, same shape, where that layer was run.
    """

    masses: list[Tensor]
    states: Tensor
    last: Tensor | None


def read(
    model: LlamaForCausalLM, packs: Sequence[Layout], read_layers: Sequence[int], to_the_end: bool = False
) -> Reading:
    """Run the packs up to the deepest read layer, or through all layers."""
    config = model.config
    heads, deepest = config.num_attention_heads, max(read_layers)
    width = config.hidden_size // heads
    lengths = [len(pack.ids) for pack in packs]
    x = model.model.embed_tokens(torch.cat([pack.ids for pack in packs]))
    cos, sin = model.model.rotary_emb(x, torch.cat([pack.positions for pack in packs])[None])
    masses: list[list[Tensor]] = [[] for _ in packs]
    states = x
    for number, layer in enumerate(model.model.layers):
        normed = layer.input_layernorm(x)
        if number == deepest:
            states = normed
        own = layer.self_attn
        q, k, v = (p(normed).view(1, -1, heads, width).transpose(1, 2) for p in (own.q_proj, own.k_proj, own.v_proj))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        q, k, v = (t.to(v.dtype)[0] for t in (q, k, v))  # (heads, tokens, width)
        attended = []
        shares = zip(*(t.split(lengths, dim=1) for t in (q, k, v)), strict=True)  # slicing has a costly gradient
        for pack, found, (own_q, own_k, own_v) in zip(packs, masses, shares, strict=True):
            out, mass = _attend(own_q, own_k, own_v, pack, number in read_layers)
            attended.append(out)
            if mass is not None:
                found.append(mass)
        if number == deepest and not to_the_end:
            break
        x = x + own.o_proj(torch.cat(attended, dim=1).transpose(0, 1).reshape(-1, heads * width))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    last = model.model.norm(x) if to_the_end else None
    return Reading([torch.cat(found, dim=1) for found in masses], states, last)


def _attend(q: Tensor, k: Tensor, v: Tensor, pack: Layout, reads: bool) -> tuple[Tensor, Tensor | None]:
    """Attention of one pack, shape (heads, tokens, width), and its masses, shape (queries, heads, prefix)."""
    prefix, late = pack.late
    out = [_prefix(q, k, v, pack)]
    device = q.device
    lengths = torch.tensor([end - start for start, end in pack.queries], device=device)
    steps = torch.arange(int(lengths.max()), device=device)
    valid = steps < lengths[:, None]  # (queries, longest)
    places = torch.where(valid, torch.tensor([start for start, _ in pack.queries], device=device)[:, None] + steps, 0)
    instruction = torch.arange(prefix, late, device=device)[None]
    seen_late, attended = _probe(q, k, v, prefix, instruction)
    out.append(attended[:, 0])
    seen, attended = _probe(q, k, v, late, places)
    out.append(attended[:, valid])
    if not reads:
        return torch.cat(out, dim=1), None
    total = (seen[..., :prefix] * valid[None, :, :, None]).sum(dim=2) + seen_late[..., :prefix].sum(dim=2)
    rows = (lengths + late - prefix)[None, :, None]
    return torch.cat(out, dim=1), (total / rows).transpose(0, 1)


def _prefix(q: Tensor, k: Tensor, v: Tensor, pack: Layout) -> Tensor:
    """Attention of introduction and passages among themselves, shape (heads, prefix, width)."""
    end, opening = pack.late[0], pack.passages[0][0]
    if pack.joint:
        return _causal(q[:, :end], k[:, :end], v[:, :end])
    sizes = [opening, *(stop - start for start, stop in pack.passages), q.shape[1] - end]
    first, *parts = zip(*(t.split(sizes, dim=1) for t in (q, k, v)), strict=True)
    out = [_causal(*first)]
    for part in parts[:-1]:
        own = [torch.cat([before, after], dim=1) for before, after in zip(first, part, strict=True)]
        out.append(_causal(*own)[:, opening:])
    return torch.cat(out, dim=1)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def _probe(q: Tensor, k: Tensor, v: Tensor, shared: int, places: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of rows of tokens at `places`, shape (rows, longest), to the first `shared` tokens and themselves.

    Returns the weights, shape (heads, rows, longest, shared + longest), float32, and what was attended, shape
    (heads, rows, longest, width). What stands in padding (place 0, after a row's own tokens) is not for use.
    """
    heads, _, width = q.shape
    rows, longest = places.shape
    own_q, own_k, own_v = (t[:, places] for t in (q, k, v))
    before = (own_q.reshape(heads, -1, width) @ k[:, :shared].transpose(1, 2)).view(heads, rows, longest, shared)
    among = own_q @ own_k.transpose(2, 3)
    later = torch.ones(longest, longest, dtype=torch.bool, device=q.device).triu(1)
    logits = torch.cat([before.float(), among.float().masked_fill(later, float("-inf"))], dim=3) * width**-0.5
    weights = torch.softmax(logits, dim=3)
    cast = weights.to(v.dtype)
    attended = (cast[..., :shared].reshape(heads, -1, shared) @ v[:, :shared]).view(heads, rows, longest, width)
    return weights, attended + cast[..., shared:] @ own_v
