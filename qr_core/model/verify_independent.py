"""Trial of the independent layout: whether a loaded model can encode documents apart. Made once for each model.

Short documents are encoded after an instruction, and a query is probed over all of them; the masses are compared with
one pass of the model's own eager attention over the whole row of tokens, under an explicit mask and the same positions.
So a model that takes positions from where tokens stand in memory, or makes a mask of its own, is refused.

Knows nothing of text, or of heads that were chosen.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core.attention import rope
from qr_core.attention.capture import Capture, attention
from qr_core.attention.layers import layers_of, windows_of
from qr_core.attention.prefill import prefill, probe
from qr_core.attention.prefix import joined
from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.model.verify import compare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTRUCTION, LENGTHS, QUERY = 3, (4, 2, 5), 4
"""Tokens of each part of the trial's prompt: all of them within a sliding window, the mask has none."""

_tried: weakref.WeakKeyDictionary[PreTrainedModel, int] = weakref.WeakKeyDictionary()


def block_mask(instruction: int, lengths: list[int], query: int) -> Tensor:
    """Which tokens see which: documents see the instruction and themselves, the query sees everything; all causal.

    Returns
    -------
    Tensor
        Bool, shape (tokens, tokens): row sees column.
    """
    owner = torch.cat([torch.full((n,), number) for number, n in enumerate([instruction, *lengths, query])])
    everyone = (owner == 0)[None, :] | (owner == len(lengths) + 1)[:, None]
    return ((owner[:, None] == owner[None, :]) | everyone).tril()


@torch.inference_mode()
def check_independent(model: PreTrainedModel, deepest: int, name: str) -> None:
    """Compare with eager attention, layers 0 to `deepest`, all heads; nothing to do for a model that passed.

    Raises
    ------
    ModelLoadError
        When the two differ, or the model refuses such a mask or such positions.
    """
    if _tried.get(model, -1) >= deepest:
        return
    heads = int(model.config.get_text_config(decoder=True).num_attention_heads)
    ids, positions, seen = _prompt(model)
    capture = Capture(
        heads={layer: torch.arange(heads) for layer in range(deepest + 1)},
        row_weights=torch.full((1, QUERY), 1 / QUERY),
        stop_after=deepest,
        windows=windows_of(layers_of(model.config)),
        positions=positions[0].int(),
    )
    problem = f"{name} cannot read documents apart (the independent layout): the attention of {type(model).__name__} "
    start = INSTRUCTION + sum(LENGTHS)
    try:
        with rope.held_to(model, int(positions.max()) + 1):
            instruction = prefill(model, ids[:, :INSTRUCTION], deepest)
            places = [INSTRUCTION + sum(LENGTHS[:n]) for n in range(len(LENGTHS))]
            documents = [
                prefill(model, ids[:, place : place + length], deepest, after=instruction)
                for place, length in zip(places, LENGTHS, strict=True)
            ]
            masses = probe(
                model, joined([instruction, *documents], room=QUERY), ids[:, start:], capture, positions[:, start:]
            )
        mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
        with attention(model, "eager"):
            eager = model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=mask[None, None].to(model.device),
                output_attentions=True,
                use_cache=False,
            ).attentions
    except NonFiniteError as error:
        raise ModelLoadError(f"{name} cannot be scored: {error}") from error
    except Exception as error:  # the model's own code may raise anything
        raise ModelLoadError(f"{problem}fails in a trial: {error or type(error).__name__}") from error
    compare(model, masses, eager, start, problem)
    _tried[model] = deepest


def _prompt(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and positions, shape (1, tokens), and which tokens see which."""
    total = INSTRUCTION + sum(LENGTHS) + QUERY
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    ids = (torch.arange(total, device=model.device) * 7 + 3)[None] % vocabulary
    starts = [0, *(INSTRUCTION for _ in LENGTHS), INSTRUCTION + max(LENGTHS)]
    lengths = [INSTRUCTION, *LENGTHS, QUERY]
    positions = torch.cat([start + torch.arange(n) for start, n in zip(starts, lengths, strict=True)])
    return ids, positions[None].to(model.device), block_mask(INSTRUCTION, list(LENGTHS), QUERY)
