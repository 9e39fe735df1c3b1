"""Self-check: whether the capture computes what a loaded model's own attention does. Every load makes one.

Two comparisons on a short prompt. In one forward pass, each layer's eager function and the capture's formula get the
very same queries, keys and mask, so they agree closely in any dtype. Then a whole prefill and query pass is compared
with the model's eager attention, which also tests positions, masks and the reuse of a prefix. Of a shallow copy that
attention must be the same with one layer more.

Knows nothing of documents or heads that were chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from qr_core.attention.capture import Capture, attention, attention_weights
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.query_pass import query_pass, query_passes
from qr_core.attention.sharding import all_heads, shards_of, worst
from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.model.shallow import one_layer_more
from qr_core.model.verify_places import far

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECK_NAME = "qrhead_self_check"
CHECK_TOKENS = 12
EXACT_TOLERANCE = 1e-4
"""Largest difference of one mass, float32 weights."""
ROUNDED_TOLERANCE = 0.1
"""Share of the attention that may lie elsewhere after all layers, mean over a layer's heads, other weights."""
FORMULA_TOLERANCE = 0.003
"""Share of the attention that may lie elsewhere in a layer that got the same input, mean over rows and heads."""
PACKED_TOLERANCE = 0.02
"""The same where one pass runs several suffixes, weights not in float32."""
PLACE_TOLERANCE = 0.002
"""The same for one pass that is run twice, at places in memory that should not matter."""

OUT_OF_REACH = "does not go through transformers' attention interface, so it cannot be read"

_DISTANCES: ContextVar[dict[int, float] | None] = ContextVar("qrhead_self_check", default=None)


def _both(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's own eager attention; notes how far the capture's formula is from it."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    output, weights = eager(module, query, key, value, attention_mask, **options)
    found = _DISTANCES.get()
    if weights is not None and found is not None:
        mask = None if attention_mask is None else attention_mask[..., : key.shape[2]]
        known = {name: options.get(name) for name in ("scaling", "softcap", "s_aux")}
        ours = attention_weights(query, key, mask, **known)
        distance = (ours - weights[..., : key.shape[2]].float()).abs().sum(dim=-1).mean() / 2
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        found[layer] = max(found.get(layer, 0.0), float(distance))
    return output, weights


AttentionInterface.register(CHECK_NAME, _both)
AttentionMaskInterface.register(CHECK_NAME, eager_mask)


@torch.inference_mode()
def check_readable(model: PreTrainedModel, name: str, tokens: int = CHECK_TOKENS) -> None:
    """Compare captures with the model's own eager attention, on `tokens` tokens, all layers and heads.

    Raises
    ------
    ModelLoadError
        When attention never reaches the capture, or the two differ.
    """
    text = model.config.get_text_config(decoder=True)
    layers, heads = facts_of(model).depth, int(text.num_attention_heads)
    ids = (torch.arange(tokens, device=model.device) * 7 + 3)[None] % int(text.vocab_size)
    start = tokens * 2 // 3
    rows = tokens - start
    capture = Capture(
        heads={layer: torch.arange(heads) for layer in range(layers)},
        row_weights=torch.full((1, rows), 1 / rows),
        stop_after=layers - 1,
    )
    problem = f"{name} cannot be scored: the attention of {type(model).__name__} "
    try:
        eager = _eager(model, ids)
        unequal = {len(weights[0]) for weights in eager or ()} - {heads} if shards_of(model) == 1 else set()
        if unequal:
            numbers = ", ".join(map(str, sorted({heads, *unequal})))
            raise ModelLoadError(f"{problem}has another number of heads in some layers ({numbers}): not supported")
        formula = _formula_distances(model, ids)
        if _looks_ahead(eager):
            facts_of(model).sees_ahead = True
            if sorted(formula) != list(range(layers)):
                raise ModelLoadError(f"{problem}{OUT_OF_REACH}")
            _check_formula(formula, layers, problem)
            return
        masses = query_pass(model, prefill(model, ids[:, :start], layers - 1), ids[:, start:], capture)
        deeper = eager
        if layers < len(facts_of(model).layers):
            with one_layer_more(model):
                deeper = _eager(model, ids)
    except NonFiniteError as error:
        raise ModelLoadError(f"{name} cannot be scored: {error}") from error
    except ModelLoadError:
        raise
    except Exception as error:  # the model's own code may raise anything
        raise ModelLoadError(f"{problem}fails in the self-check: {error or type(error).__name__}") from error
    if sorted(masses) != list(range(layers)):
        raise ModelLoadError(f"{problem}{OUT_OF_REACH}")
    compare(model, masses, eager, start, problem)
    if not same_masses(model, eager, deeper[:layers]):
        raise ModelLoadError(f"{problem}depends on how many layers are above: choose heads of the last layer as well")
    _check_formula(formula, layers, problem)


def refuse_encoder(model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose tokens look ahead, for layouts in which a query continues what was encoded before.

    Raises
    ------
    ModelLoadError
    """
    if facts_of(model).sees_ahead:
        raise ModelLoadError(
            f"{name} is an encoder ({type(model).__name__}): its tokens look at those behind them, so no query can "
            "continue a prompt: pass layout='late'"
        )


def _looks_ahead(eager: Sequence[Tensor] | None) -> bool:
    """Whether any token looks at one behind it.

    Eager weights have shape (1, heads, tokens, tokens); with more keys than tokens, keys are not tokens' own.
    """
    square = (weights for weights in eager or () if weights.shape[-1] == weights.shape[-2])
    return any(bool((weights.triu(1) > 0).any()) for weights in square)


def _check_formula(distances: Mapping[int, float], layers: int, problem: str) -> None:
    for layer in range(layers):
        off = distances.get(layer, 0.0)
        if not off <= FORMULA_TOLERANCE:
            raise ModelLoadError(
                f"{problem}in layer {layer} is not computed as this package does ({off:.0%} lies elsewhere)"
            )


def compare(
    model: PreTrainedModel, masses: Mapping[int, Tensor], eager: Sequence[Tensor], start: int, problem: str
) -> None:
    """Refuse a model whose masses of a query pass are not those of its eager attention.

    Parameters
    ----------
    masses : mapping of int to Tensor
        From `query_pass`, all heads, even row weights.
    eager : sequence of Tensor
        For each layer, shape (1, heads, tokens, tokens).
    start : int
        First token of the pass.
    problem : str
        How the error begins.

    Raises
    ------
    ModelLoadError
    """
    precise = exact(model)
    for layer in masses:
        weights = all_heads(eager[layer], masses[layer].shape[1]) if shards_of(model) > 1 else eager[layer]
        expected = weights[0, :, start:, :start].float().mean(dim=1).to(masses[layer].device)
        distance = (masses[layer][0] - expected).abs()
        # Rounding moves single weights of half-precision models a lot (a routed expert, an int8 step), not all of them.
        off = float(distance.max()) if precise else float(distance.sum(dim=-1).mean() / 2)
        if not off <= (EXACT_TOLERANCE if precise else ROUNDED_TOLERANCE):
            raise ModelLoadError(f"{problem}in layer {layer} is not computed as this package does (off by {off:.1e})")


def _formula_distances(model: PreTrainedModel, ids: Tensor) -> dict[int, float]:
    """How far the formula is from eager attention on the same input, by layer; empty without such a function."""
    kinds = {type(module).__module__ for module in model.modules() if hasattr(module, "layer_idx")}
    if not all(hasattr(sys.modules[kind], "eager_attention_forward") for kind in kinds):
        return {}
    found: dict[int, float] = {}
    token = _DISTANCES.set(found)
    try:
        with attention(model, CHECK_NAME):
            model(input_ids=ids, use_cache=False)
    finally:
        _DISTANCES.reset(token)
    return worst(found, model.device) if shards_of(model) > 1 else found


@torch.inference_mode()
def packs_queries(model: PreTrainedModel) -> bool:
    """Whether one pass over several suffixes of a prefix captures what a pass over each alone does.

    It does not where a model counts positions by itself, or lets one token's computation depend on its neighbours'.
    """
    text = model.config.get_text_config(decoder=True)
    layers = facts_of(model).depth
    every = {layer: range(int(text.num_attention_heads)) for layer in range(layers)}
    ids = (torch.arange(CHECK_TOKENS + 8, device=model.device) * 7 + 3) % int(text.vocab_size)
    suffixes = [part.tolist() for part in (ids[8:16], ids[10:13], ids[16:])]
    try:
        prefix = prefill(model, ids[None, :8], layers - 1)
        alone = [query_passes(model, prefix, [suffix], every)[0] for suffix in suffixes]
        several = query_passes(model, prefix, suffixes, every)
        farther = query_passes(model, far(model, prefix), suffixes, every)
    except Exception:  # the model's own code may raise anything
        return False
    return same_masses(model, alone, several) and same_masses(model, several, farther, PLACE_TOLERANCE)


def _eager(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, ...]:
    with attention(model, "eager"):
        found: tuple[Tensor, ...] = model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    return found


def same_masses(
    model: PreTrainedModel, ones: Sequence[Tensor], others: Sequence[Tensor], rounded: float = PACKED_TOLERANCE
) -> bool:
    """Whether masses that should be equal differ by no more than rounding does in this model.

    Parameters
    ----------
    rounded : float
        Share of the attention that may lie elsewhere, weights not in float32.
    """
    distances = [(one - other).abs() for one, other in zip(ones, others, strict=True)]
    if exact(model):
        return all(float(distance.max()) <= EXACT_TOLERANCE for distance in distances)
    return all(float(distance.sum(dim=-1).mean() / 2) <= rounded for distance in distances)


def exact(model: PreTrainedModel) -> bool:
    """Whether weights are float32, so that only the order of sums makes a difference."""
    return model.dtype == torch.float32 and getattr(model.config, "quantization_config", None) is None
