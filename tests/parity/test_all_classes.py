"""Every causal or masked language model class that transformers has: which can be read, which are refused, and why.

Each class is built tiny from its own config and put through the self-check that every load makes, on a prompt longer
than its sliding window. The outcome is the table in `docs/architectures.md`; `QRHEAD_WRITE_TABLE=1` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from qr_core import HeadSetError, ModelLoadError
from qr_core.attention import layers
from qr_core.attention.loaded import facts_of
from qr_core.heads.parts import HeadShape
from qr_core.model import verify, verify_late
from tests.architectures import ENCODERS, FAMILIES

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"
TABLE_VERSION = "5.23.0"
TOKENS = 120
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.3,
    "sliding_window": 24, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_shared_experts": 1,
    "num_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "n_embd": 64, "n_layer": 4,
    "n_head": 4, "n_inner": 96, "n_positions": 512, "d_model": 64, "n_heads": 4, "n_layers": 4, "ffn_dim": 96,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOO_COSTLY = {"blt", "phi4_multimodal"}  # minutes each to build from a config of their own
CLAIMED = {
    "llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "ministral", "ministral3", "mixtral", "gemma", "gemma2",
    "gemma3_text", "phi3", "granite", "olmo2", "smollm3", "cohere2", "glm4", "gpt_oss", "gpt_neox", "gpt2",
    "deepseek_v3",
}  # fmt: skip
REFUSED = {"falcon", "bloom", "gptj", "mpt", "mamba"}


def tiny_config(name: str):
    """The class's own config with small numbers, or None for composites, whose decoder stands in a row of its own."""
    if name in ("ministral", "deepseek_v3"):
        return FAMILIES[name]()
    if name == "falcon":
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}
        return CONFIG_MAPPING[name](**sizes)
    default = CONFIG_MAPPING[name]()
    if default.get_text_config(decoder=True) is not default:
        return None
    small = {
        key: value
        for key, value in SMALL.items()
        if hasattr(default, key) and not (key in ("sliding_window", "q_lora_rank") and getattr(default, key) is None)
    }
    if "qk_rope_head_dim" in small:  # latent attention: as many key heads as heads, and a width of its own
        small.pop("head_dim", None)
        small["num_key_value_heads"] = small["num_attention_heads"]
    return CONFIG_MAPPING[name](**small)


def outcome(name: str) -> tuple[str, str] | None:
    """`works`, `encoder`, `refused` or `not built`, and the reason; None for composite classes.

    Of those that work: what is wrong with the late layout, if anything is.
    """
    if name in TOO_COSTLY:
        return "not built", "takes minutes to build"
    try:
        config = tiny_config(name)
        if config is None:
            return None
        torch.manual_seed(0)
        model = AutoModel.from_config(config).float().eval()
    except Exception as error:  # whatever a config or model class raises for the small numbers above
        return "not built", type(error).__name__
    try:
        HeadShape.of(config)
        kinds = layers.layers_of(config)
        layers.check_readable_layers(kinds, range(len(kinds)), name)
        verify.check_readable(model, name, tokens=TOKENS)
    except (HeadSetError, ModelLoadError) as error:
        return "refused", reason(str(error))
    encoder = facts_of(model).sees_ahead
    try:
        verify_late.check_late(model, len(kinds) - 1, name)
    except ModelLoadError as error:
        return "refused" if encoder else "works", reason(str(error))
    return "encoder" if encoder else "works", ""


def reason(message: str) -> str:
    """The kind of refusal, without names and numbers."""
    for words, kind in (
        ("linear attention", "linear attention layers"),
        ("mixes attention", "linear attention layers"),
        ("keeps keys in another form", "keeps keys in another form than it attends with"),
        ("number of heads in some", "layers with different numbers of heads"),
        ("does not go through", "attention is out of reach: own interface, or no shared prefix"),
        ("not computed as this", "attention is not causal, or not what the capture computes"),
        ("does not describe a decoder", "no attention heads in its config"),
        ("cache can be made", "no attention heads in its config"),
        ("fails in the self-check", "attention is out of reach: own interface, or no shared prefix"),
    ):
        if words in message:
            return kind
    return re.sub(r"\d+", "n", message)


def render(found: dict[str, tuple[str, str]]) -> str:
    kinds = ("works", "encoder", "refused", "not built")
    rows = {kind: sorted(n for n, (k, _) in found.items() if k == kind) for kind in kinds}
    early = ", ".join(f"`{n}`" for n in rows["works"] if found[n][1])
    lines = [
        "# Which models work",
        "",
        f"Every causal or masked language model class of transformers {TABLE_VERSION}, built tiny with random weights,",
        "put through the self-check that every load makes: the captured attention of all heads must equal the model's",
        "own eager attention. This table is made by `tests/parity/test_all_classes.py`. Composite (multimodal) classes",
        "are not in it, their text decoders are. Classes that can mix in layers of another kind (linear, convolution,",
        "sparse) stand for their form without them: a model that has such layers at or below the deepest head is",
        "refused. A refused class gives a clear error, never a wrong score.",
        "",
        "Those that work are run again with what their configs can switch on (`tests/parity/test_features.py`): scales",
        "of residuals, of scores and of attention by place, soft caps, windows, chunks and long-context RoPE that act",
        "within the prompt, layers with different numbers of heads. Each is read whole and only as deep as its heads,",
        "with queries alone and together, in both layouts. What is read must be right, the rest is refused: layers",
        "with different numbers of heads, and the independent layout if a model counts places in memory or has chunks.",
        "",
        f"## Work ({len(rows['works'])})",
        "",
        ", ".join(f"`{n}`" for n in rows["works"]) + ".",
        "",
        "All of these work in the joint layout. In the late one those do not that keep keys in another form than they",
        f"attend with: {early}.",
        "",
        f"## Encoders, in the late layout only ({len(rows['encoder'])})",
        "",
        ", ".join(f"`{n}`" for n in rows["encoder"]) + ".",
        "",
        f"## Refused ({len(rows['refused'])})",
        "",
        "| class | why |",
        "|---|---|",
        *(f"| `{n}` | {found[n][1]} |" for n in rows["refused"]),
        "",
        f"## Not built ({len(rows['not built'])})",
        "",
        "The test's small numbers do not make a config of these; nothing is known about them here.",
        "",
        ", ".join(f"`{n}`" for n in rows["not built"]) + ".",
        "",
    ]
    return "\n".join(lines)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_every_class_works_or_is_refused(monkeypatch):
    for module in (verify, verify_late):
        monkeypatch.setattr(module, "EXACT_TOLERANCE", 1e-5)
    names = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_MASKED_LM_MAPPING_NAMES})
    found = {name: result for name in names if (result := outcome(name))}
    assert {n for n in CLAIMED if found[n][0] != "works"} == set()
    assert {n for n in REFUSED & found.keys() if found[n][0] == "works"} == set()
    assert {found[n][0] for n in ENCODERS} == {"encoder"}
    assert sum(kind == "works" for kind, _ in found.values()) > 60
    if os.environ.get("QRHEAD_WRITE_TABLE"):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(render(found), encoding="utf-8")
    if transformers.__version__ == TABLE_VERSION:
        assert TABLE.read_text(encoding="utf-8") == render(found)
