"""Every class that works, with its features switched on: thresholds, windows and scales that act within the prompts.

Each is read whole and shallow, queries packed and alone, documents joint, independent and late. What the
self-checks let pass must be what eager attention computes, or what the whole model gives; what they refuse is never
wrong.
"""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModel

from qr_core import HeadSetError, ModelLoadError
from qr_core.attention import layers, rope
from qr_core.attention.capture import attention
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.query_pass import query_passes
from qr_core.model import verify, verify_independent, verify_late
from qr_core.model.shallow import lower_layers
from tests.parity.test_all_classes import TABLE, tiny_config

PREFIX, SUFFIXES, CLOSE = 61, (5, 19, 8), 1e-4
LONG = 10, 6, 12  # documents: together beyond a window or threshold, each within it
SCALES = {
    "floor_scale": 32, "attn_scale": 0.5, "attn_temperature_tuning": True, "scale_depth": 1.4, "scale_emb": 3,
    "residual_multiplier": 0.5, "attention_multiplier": 0.4, "embedding_multiplier": 2.0, "query_pre_attn_scalar": 5,
    "attn_logit_softcapping": 2.0, "scale_attn_by_inverse_layer_idx": True, "attention_value_scale": 0.5,
    "routed_scaling_factor": 2.0, "partial_rotary_factor": 0.5,
    "num_attention_heads_per_layer": [4, 2, 4, 2],
}  # fmt: skip
NEAR = {
    "use_sliding_window": True, "max_window_layers": 2, "sliding_window": 24, "attention_chunk_size": 24,
    "sliding_window_pattern": 2, "no_rope_layer_interval": 2, "layer_types": None, "no_rope_layers": None,
}  # fmt: skip
ROPES = {
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32, "llama_4_scaling_beta": 0.5},
    "dynamic": {"factor": 8.0, "original_max_position_embeddings": 32},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    },
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 32},
}  # fmt: skip
VARIANTS = ("scales", "near", "both", *ROPES)


def switched_on(name: str, variant: str):
    """The class's tiny config with a variant's features, or None where it has none of them or does not take them."""
    config = tiny_config(name)
    fields = config.to_dict()
    if variant in ROPES:
        own = fields.get("rope_parameters")
        if not own or "rope_theta" not in own:
            return None
        width = getattr(config, "qk_rope_head_dim", None) or getattr(config, "head_dim", None) or 16
        half = int(width * (own.get("partial_rotary_factor") or 1)) // 2
        more = dict(ROPES[variant])
        if variant == "longrope":
            more |= {"short_factor": [1.0] * half, "long_factor": [2.0 + n for n in range(half)]}
        changes = {"rope_parameters": {**own, "rope_type": variant, **more}, "max_position_embeddings": 32}
    else:
        wanted = {"scales": SCALES, "near": NEAR, "both": SCALES | NEAR}[variant]
        changes = {key: value for key, value in wanted.items() if key in fields}
    if not changes:
        return None
    if changes.get("sliding_window_pattern") and not isinstance(fields["sliding_window_pattern"], int):
        changes.pop("sliding_window_pattern")
    try:
        return type(config)(**{**fields, **changes})
    except Exception:  # a class refuses a feature that another takes
        return None


def built(config):
    torch.manual_seed(0)
    return AutoModel.from_config(config).float().eval()


def shallow_copy(config, model, count: int):
    """The lowest `count` layers of a model, as loading makes them."""
    with lower_layers(config, count) as made:
        copy = built(config)
    facts_of(copy).depth = made.depth
    copy.load_state_dict(model.state_dict(), strict=False)
    return copy


@torch.inference_mode()
def faults(config) -> set[str]:
    """In which ways a model of `config` is read wrongly, without an error."""
    model = built(config)
    try:
        kinds = layers.layers_of(config)
        layers.check_readable_layers(kinds, range(len(kinds)), "tiny")
        verify.check_readable(model, "tiny")
    except (HeadSetError, ModelLoadError):
        return set()
    found = set()
    heads = {layer: range(config.num_attention_heads) for layer in range(len(kinds))}
    ids = (torch.arange(PREFIX + sum(SUFFIXES)) * 7 + 3) % config.vocab_size
    ends = [PREFIX + sum(SUFFIXES[: n + 1]) for n in range(len(SUFFIXES))]
    suffixes = [ids[end - count : end].tolist() for end, count in zip(ends, SUFFIXES, strict=True)]
    before = ids[None, :PREFIX]
    with rope.held_to(model, PREFIX + max(SUFFIXES)):
        prefix = prefill(model, before, len(kinds) - 1)
        alone = [query_passes(model, prefix, [suffix], heads)[0] for suffix in suffixes]
        for suffix, mass in zip(suffixes, alone, strict=True):
            whole = torch.cat([before, torch.tensor([suffix])], dim=1)
            with attention(model, "eager"):
                eager = model(input_ids=whole, output_attentions=True, use_cache=False).attentions
            expected = torch.cat([weights[0, :, PREFIX:, :PREFIX].mean(dim=1) for weights in eager])
            if not torch.allclose(mass, expected, rtol=0, atol=CLOSE):
                found.add("alone")
        if verify.packs_queries(model):
            together = query_passes(model, prefix, suffixes, heads)
            if not all(torch.allclose(a, b, rtol=0, atol=CLOSE) for a, b in zip(alone, together, strict=True)):
                found.add("packed")
        lower = {layer: heads[layer] for layer in range(2)}
        shallow = shallow_copy(config, model, 2)
        with rope.held_to(shallow, PREFIX + max(SUFFIXES)):
            read = query_passes(shallow, prefill(shallow, before, 1), suffixes[:1], lower)[0]
        if not torch.allclose(read, alone[0][: len(read)], rtol=0, atol=CLOSE):
            found.add("shallow")
    return found | independent_faults(model, kinds) | late_faults(model, kinds)


def independent_faults(model, kinds) -> set[str]:
    """Whether the independent layout's self-check passes what longer documents show to be wrong."""
    deepest = len(kinds) - 1
    try:
        layers.check_chunks(kinds, deepest, "tiny")
        verify_independent.check_independent(model, deepest, "tiny")
    except (HeadSetError, ModelLoadError):
        return set()
    facts_of(model).independent = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_independent, "LENGTHS", LONG)
        patch.setattr(verify_independent, "START", verify_independent.INSTRUCTION + sum(LONG))
        try:
            verify_independent.check_independent(model, deepest, "tiny")
        except ModelLoadError:
            return {"independent"}
    return set()


def late_faults(model, kinds) -> set[str]:
    """The same for the late layout."""
    deepest = len(kinds) - 1
    try:
        layers.check_chunks(kinds, deepest, "tiny")
        verify_late.check_late(model, deepest, "tiny")
    except (HeadSetError, ModelLoadError):
        return set()
    facts_of(model).late = -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_late, "LENGTHS", LONG)
        try:
            verify_late.check_late(model, deepest, "tiny")
        except ModelLoadError:
            return {"late"}
    return set()


def working() -> list[str]:
    return re.findall(r"`([\w-]+)`", TABLE.read_text(encoding="utf-8").split("## Work")[1].split("\n\n")[1])


def wrong(names) -> dict[str, set[str]]:
    """Of each class and variant that is read wrongly: how."""
    found = {}
    for name in names:
        for variant in VARIANTS:
            config = switched_on(name, variant)
            try:
                ways = set() if config is None else faults(config)
            except (IndexError, KeyError, TypeError, AttributeError, AssertionError) as error:
                ways = {f"{type(error).__name__}: {error}"}
            if ways:
                found[f"{name}/{variant}"] = ways
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama4_text", "minicpm3"])
def test_no_feature_is_read_wrongly(name):
    assert wrong([name]) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_no_feature_of_any_class_is_read_wrongly():
    assert wrong(working()) == {}
