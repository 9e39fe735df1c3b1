"""Self-check of the late layout: whether documents and query, each encoded alone, meet as this package has them meet.

Short documents leave keys behind as they would in use, and a query looks at them. Then each text runs alone, without
padding, under the model's own eager attention, and each layer's eager function is given the query's rows over the
documents' keys. So a model that takes positions from elsewhere, changes keys on the way, or treats padding otherwise is
refused.

Knows nothing of text, or of heads that were chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from qr_core.attention import rope
from qr_core.attention.capture import attention
from qr_core.attention.loaded import facts_of
from qr_core.attention.meeting import kept_keys, meeting_masses
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import Prefix, joined
from qr_core.attention.query_pass import Placement
from qr_core.attention.record import record_suffix, record_texts
from qr_core.attention.sharding import shards_of
from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.model.verify import EXACT_TOLERANCE, ROUNDED_TOLERANCE, exact

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECK_NAME = "qrhead_late_check"
INSTRUCTION, LENGTHS, QUERY = 3, (4, 2, 5), 4
"""Tokens of each text: all of them within a sliding window."""


@dataclass(frozen=True)
class _Given:
    """What one layer's attention was given, and its own eager function."""

    module: torch.nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    options: dict[str, Any]

    def masses(self, others: Sequence[_Given], rows: slice, keys: Sequence[slice]) -> Tensor:
        """Of these rows over the others' keys, averaged; shape (heads, keys)."""
        key = torch.cat([one.key[:, :, own] for one, own in zip(others, keys, strict=True)], dim=2)
        value = torch.cat([one.value[:, :, own] for one, own in zip(others, keys, strict=True)], dim=2)
        eager = _eager_of(self.module)
        weights: Tensor = eager(self.module, self.query[:, :, rows], key, value, None, **self.options)[1]
        return weights[0, :, :, : key.shape[2]].float().mean(dim=1)


_ACTIVE: ContextVar[dict[int, _Given] | None] = ContextVar("qrhead_late_check", default=None)


def _eager_of(module: torch.nn.Module) -> Any:
    return sys.modules[type(module).__module__].eager_attention_forward


def _keep(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    """The model's own eager attention; keeps what it was given."""
    found = _ACTIVE.get()
    if found is not None:
        found[int(module.layer_idx)] = _Given(module, query, key, value, options)  # type: ignore[arg-type]
    return _eager_of(module)(module, query, key, value, attention_mask, **options)


AttentionInterface.register(CHECK_NAME, _keep)
AttentionMaskInterface.register(CHECK_NAME, eager_mask)


@torch.inference_mode()
def check_late(model: PreTrainedModel, deepest: int, name: str) -> None:
    """Compare with eager attention, layers 0 to `deepest`, all heads; nothing to do for a model that passed.

    Raises
    ------
    ModelLoadError
        When the two differ, the model has no eager function, or is spread over processes.
    """
    facts = facts_of(model)
    if facts.late >= deepest:
        return
    problem = f"{name} cannot be used with layout='late': the attention of {type(model).__name__} "
    if shards_of(model) > 1:
        raise ModelLoadError(f"{problem}is spread over processes: leave tp_size out")
    ids = (torch.arange(INSTRUCTION + sum(LENGTHS) + QUERY) * 7 + 3) % int(model.config.get_text_config().vocab_size)
    before, *documents, query = (part.tolist() for part in ids.split([INSTRUCTION, *LENGTHS, QUERY]))
    check = _check_encoder if facts.sees_ahead else _check_decoder
    try:
        found, expected = check(model, before, documents, query, deepest)
    except NonFiniteError as error:
        raise ModelLoadError(f"{name} cannot be scored: {error}") from error
    except ModelLoadError as error:
        raise ModelLoadError(f"{problem}{error}: pass layout='independent'") from error
    except Exception as error:  # the model's own code may raise anything
        raise ModelLoadError(f"{problem}fails in the self-check: {error or type(error).__name__}") from error
    distance = (found - expected.cpu()).abs()
    off = float(distance.max()) if exact(model) else float(distance.sum(dim=-1).mean() / 2)
    if not off <= (EXACT_TOLERANCE if exact(model) else ROUNDED_TOLERANCE):
        raise ModelLoadError(f"{problem}is not computed as this package does (off by {off:.1e})")
    facts.late = deepest


def _check_decoder(
    model: PreTrainedModel, before: list[int], documents: list[list[int]], query: list[int], deepest: int
) -> tuple[Tensor, Tensor]:
    """Masses in use and expected, shape (heads of all layers, instruction and documents)."""
    start = len(before) + max(map(len, documents))
    device = facts_of(model).device
    with rope.held_to(model, start + len(query)):
        instruction = prefill(model, torch.tensor([before], device=device), deepest)
        states = [prefill(model, torch.tensor([ids], device=device), deepest, after=instruction) for ids in documents]
        heads = _every_head(model, deepest)
        placement = Placement(torch.arange(len(before)).int(), start)
        rows = record_suffix(model, instruction, query, placement, heads)
        if any(rows[layer].key.shape[1::2] != instruction.keys[layer].shape[1::2] for layer in heads):
            raise ModelLoadError("keeps keys in another form than it attends with")
        kept = [kept_keys(dict(enumerate(one.keys)), heads, len(heads[0])) for one in [instruction, *states]]
        found = meeting_masses(joined(kept, 0), rows, heads)
        positions = list(range(start + len(query)))
        alone = [_eager(model, [*before, *ids], positions[: len(before) + len(ids)]) for ids in [[], *documents]]
        asked = _eager(model, [*before, *query], [*positions[: len(before)], *positions[start:]])
    own = [slice(0, len(before)), *(slice(len(before), None) for _ in documents)]
    expected = [asked[layer].masses([one[layer] for one in alone], slice(len(before), None), own) for layer in heads]
    return found, torch.cat(expected)


def _check_encoder(
    model: PreTrainedModel, before: list[int], documents: list[list[int]], query: list[int], deepest: int
) -> tuple[Tensor, Tensor]:
    """Masses in use and expected, shape (heads of all layers, documents)."""
    after = before[:1]
    texts = [[*before, *ids, *after] for ids in [*documents, query]]
    heads = _every_head(model, deepest)
    recorded = record_texts(model, texts, max(map(len, texts)) + 3, len(texts) + 1, heads)
    own = [slice(len(before), len(text) - len(after)) for text in texts]
    kept: list[Prefix] = []
    for row in range(len(documents)):
        keys = {layer: one.key[row : row + 1, :, own[row]] for layer, one in recorded.items()}
        kept.append(kept_keys(keys, heads, len(heads[0])))
    last = len(documents)
    rows = {layer: one.item(last).part(own[last].start, own[last].stop) for layer, one in recorded.items()}
    found = meeting_masses(joined(kept, 0), rows, heads)
    *alone, asked = (_eager(model, text) for text in texts)
    expected = [asked[layer].masses([one[layer] for one in alone], own[last], own[:last]) for layer in heads]
    return found, torch.cat(expected)


def _every_head(model: PreTrainedModel, deepest: int) -> dict[int, list[int]]:
    heads = list(range(int(model.config.get_text_config(decoder=True).num_attention_heads)))
    return dict.fromkeys(range(deepest + 1), heads)


def _eager(model: PreTrainedModel, ids: list[int], positions: list[int] | None = None) -> dict[int, _Given]:
    """What every layer's attention is given when a text runs alone."""
    found: dict[int, _Given] = {}
    device = facts_of(model).device
    tokens = torch.tensor([ids], device=device)
    # Without a mask transformers takes a gap in positions for the end of one text and the beginning of another.
    options: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if positions is not None:
        options |= {"position_ids": torch.tensor([positions], device=device), "use_cache": False}
    token = _ACTIVE.set(found)
    try:
        with attention(model, CHECK_NAME):
            model(**options)
    finally:
        _ACTIVE.reset(token)
    return found
