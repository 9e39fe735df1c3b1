"""Self-check of the independent layout: whether a loaded model can encode documents independently. Once for each model.

Short documents are encoded after an instruction, and a query is run over all of them; the masses are compared with one
pass of the model's own eager attention over the whole row of tokens, under an explicit mask and the same positions. So
a model that takes positions from where tokens stand in memory, or makes a mask of its own, is refused.

Knows nothing of text, or of heads that were chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core.attention import rope
from qr_core.attention.capture import attention
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import RoomyPrefix, joined
from qr_core.attention.query_pass import Placement, query_passes
from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.model.verify import PLACE_TOLERANCE, compare, same_masses
from qr_core.model.verify_places import far

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTRUCTION, LENGTHS, QUERY = 3, (4, 2, 5), 4
"""Tokens of each part of the check's prompt: all of them within a sliding window, the mask has none."""
START = INSTRUCTION + sum(LENGTHS)


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

    Says in the model's `Facts` whether queries may share a pass, too.

    Raises
    ------
    ModelLoadError
        When the two differ, or the model refuses such a mask or such positions.
    """
    facts = facts_of(model)
    if facts.independent >= deepest:
        return
    heads = int(model.config.get_text_config(decoder=True).num_attention_heads)
    every = {layer: range(heads) for layer in range(deepest + 1)}
    ids, positions, seen = _prompt(model)
    placement = Placement(positions[0, :START].int(), int(positions[0, START]))
    query = ids[0, START:].tolist()
    problem = f"{name} cannot encode documents independently: the attention of {type(model).__name__} "
    try:
        with rope.held_to(model, int(positions.max()) + 1):
            prefix = _encoded(model, ids, deepest)
            alone = query_passes(model, prefix, [query], every, placement)[0]
            farther = query_passes(model, far(model, prefix), [query], every, placement)[0]
            eager = _eager(model, ids, positions, seen)
            facts.packs_independent = _packs(model, prefix, query, every, placement)
    except NonFiniteError as error:
        raise ModelLoadError(f"{name} cannot be scored: {error}") from error
    except Exception as error:  # the model's own code may raise anything
        raise ModelLoadError(f"{problem}fails in the self-check: {error or type(error).__name__}") from error
    masses = alone.view(deepest + 1, 1, heads, START)
    compare(model, dict(enumerate(masses)), eager, START, problem)
    if not same_masses(model, [alone], [farther], PLACE_TOLERANCE):
        raise ModelLoadError(f"{problem}counts positions where tokens stand in memory: pass layout='joint'")
    facts.independent = deepest


def _encoded(model: PreTrainedModel, ids: Tensor, deepest: int) -> RoomyPrefix:
    """Instruction and documents, each of these after the instruction alone."""
    instruction = prefill(model, ids[:, :INSTRUCTION], deepest)
    places = [INSTRUCTION + sum(LENGTHS[:n]) for n in range(len(LENGTHS))]
    documents = [
        prefill(model, ids[:, place : place + length], deepest, after=instruction)
        for place, length in zip(places, LENGTHS, strict=True)
    ]
    return joined([instruction, *documents], room=2 * QUERY)


def _eager(model: PreTrainedModel, ids: Tensor, positions: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
    with attention(model, "eager"):
        found: tuple[Tensor, ...] = model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask[None, None].to(model.device),
            output_attentions=True,
            use_cache=False,
        ).attentions
    return found


def _packs(
    model: PreTrainedModel, prefix: RoomyPrefix, query: list[int], every: dict[int, range], placement: Placement
) -> bool:
    """Whether one pass over several queries computes what a pass over each alone does."""
    queries = [query, query[1:3], query[::-1]]
    try:
        alone = [query_passes(model, prefix, [one], every, placement)[0] for one in queries]
        return same_masses(model, alone, query_passes(model, prefix, queries, every, placement))
    except Exception:  # the model's own code may raise anything
        return False


def _prompt(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and positions, shape (1, tokens), and which tokens see which."""
    total = START + QUERY
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    ids = (torch.arange(total, device=model.device) * 7 + 3)[None] % vocabulary
    starts = [0, *(INSTRUCTION for _ in LENGTHS), INSTRUCTION + max(LENGTHS)]
    lengths = [INSTRUCTION, *LENGTHS, QUERY]
    positions = torch.cat([start + torch.arange(n) for start, n in zip(starts, lengths, strict=True)])
    return ids, positions[None].to(model.device), block_mask(INSTRUCTION, list(LENGTHS), QUERY)
