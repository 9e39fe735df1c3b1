"""Tiny configs of the families this package claims: sharp attention, windows shorter than the tests' prompts."""

from __future__ import annotations

from transformers import (
    BertConfig,
    Cohere2Config,
    DeepseekV3Config,
    ElectraConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    MinistralConfig,
    MistralConfig,
    MixtralConfig,
    ModernBertConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    SmolLM3Config,
)

COMMON = {
    "vocab_size": 1920,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
WINDOW = 24
ALTERNATING = ["sliding_attention", "full_attention"] * 2
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}


def _rope(kind: str, **more) -> LlamaConfig:
    return LlamaConfig(**COMMON, head_dim=8, rope_parameters={"rope_type": kind, "rope_theta": 10000.0, **more})


def _phi3(original: int) -> Phi3Config:
    """LongRoPE whose regime changes after `original` tokens."""
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 4.0, 6.0, 8.0]}
    return Phi3Config(
        **COMMON,
        original_max_position_embeddings=original,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": original,
            **factors,
        },
    )


GEMMA3_TEXT = {
    **COMMON,
    "head_dim": 8,
    "query_pre_attn_scalar": 4,
    "sliding_window": WINDOW,
    "layer_types": ALTERNATING,
}

FAMILIES = {
    "llama": lambda: LlamaConfig(**COMMON, head_dim=8),
    "llama-linear-rope": lambda: _rope("linear", factor=4.0),
    "llama-yarn": lambda: _rope("yarn", factor=4.0, original_max_position_embeddings=64),
    "llama-llama3-rope": lambda: _rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    ),
    "llama-proportional-rope": lambda: _rope("proportional", partial_rotary_factor=0.5),
    "llama-dynamic-rope": lambda: LlamaConfig(
        **{**COMMON, "max_position_embeddings": 64},
        head_dim=8,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 64.0},
    ),
    "llama-longrope": lambda: _rope(
        "longrope",
        original_max_position_embeddings=64,
        factor=4.0,
        short_factor=[1.0] * 4,
        long_factor=[2.0, 4.0, 6.0, 8.0],
    ),
    "qwen2": lambda: Qwen2Config(**COMMON),
    "qwen3": lambda: Qwen3Config(**COMMON, head_dim=16),
    "qwen3_moe": lambda: Qwen3MoeConfig(**COMMON, head_dim=8, num_experts=4, **EXPERTS),
    "mistral": lambda: MistralConfig(**COMMON, head_dim=8, sliding_window=WINDOW),
    "ministral": lambda: MinistralConfig(**COMMON, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
    "ministral3": lambda: Ministral3Config(**COMMON, head_dim=8),
    "mixtral": lambda: MixtralConfig(**COMMON, head_dim=8, sliding_window=WINDOW, num_local_experts=4),
    "gemma": lambda: GemmaConfig(**COMMON, head_dim=8),
    "gemma2": lambda: Gemma2Config(
        **COMMON,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=ALTERNATING,
        query_pre_attn_scalar=5,
        attn_logit_softcapping=2.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(**GEMMA3_TEXT),
    "gemma3-composite": lambda: Gemma3Config(
        text_config=GEMMA3_TEXT,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        image_token_index=1919,
        boi_token_index=1918,
        eoi_token_index=1917,
    ),
    "phi3-below": lambda: _phi3(4000),
    "phi3-above": lambda: _phi3(40),
    "phi3-straddling": lambda: _phi3(135),
    "granite": lambda: GraniteConfig(**COMMON, attention_multiplier=0.6, residual_multiplier=0.5),
    "olmo2": lambda: Olmo2Config(**COMMON),
    "smollm3": lambda: SmolLM3Config(**COMMON, no_rope_layer_interval=2),
    "cohere2": lambda: Cohere2Config(**COMMON, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
    "glm4": lambda: Glm4Config(**COMMON, head_dim=8, partial_rotary_factor=0.5),
    "gpt_oss": lambda: GptOssConfig(
        **COMMON,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=ALTERNATING,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**{k: v for k, v in COMMON.items() if k != "num_key_value_heads"}),
    "gpt2": lambda: GPT2Config(
        vocab_size=1920,
        n_embd=64,
        n_layer=4,
        n_head=8,
        n_positions=1024,
        initializer_range=0.4,
        scale_attn_by_inverse_layer_idx=True,
        bos_token_id=None,
        eos_token_id=1,
    ),
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**COMMON, "num_key_value_heads": 8},
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=2,
    ),
}

_SIZES = {key: COMMON[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
_ENCODER = {**_SIZES, "vocab_size": 30522, "initializer_range": 0.3, "max_position_embeddings": 512, "pad_token_id": 0}
ENCODERS = {
    "bert": (lambda: BertConfig(**_ENCODER), 0),
    "roberta": (lambda: RobertaConfig(**_ENCODER), 1),
    "electra": (lambda: ElectraConfig(**_ENCODER, embedding_size=64), 0),
    "modernbert": (
        lambda: ModernBertConfig(**_ENCODER, local_attention=512, cls_token_id=101, sep_token_id=102),
        0,
    ),
}
"""Encoders' configs, and the position that they give a text's first token."""
