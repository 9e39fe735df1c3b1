"""The embedded model's shape, its start from all-MiniLM-L6-v2, and the settings of its training.

Knows nothing of data or of the training loop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but its data; written beside the model."""

    layers: int = 3
    hidden: int = 384
    heads: int = 6
    intermediate: int = 1024
    rope_theta: float = 1e6
    max_positions: int = 32768
    read_layers: tuple[int, ...] = (1, 2)
    learning_rate: float = 7e-4
    weight_decay: float = 0.01
    warmup: int = 200
    minutes: float = 50.0
    max_steps: int = 1_000_000  # the run ends here if its minutes do not end it first
    seed: int = 0
    joint_share: float = 0.15  # steps with the full causal prompt; in the others passages attend to themselves only
    spread_share: float = 0.3  # of those, steps with gaps between passages, as in long prompts
    passage_tokens: int = 260
    null_weight: float = 0.1
    language_every: int = 4
    language_weight: float = 0.3
    language_tokens: int = 256
    log_every: int = 100
    checkpoint_every: int = 500


def tokenizer_from(init: Path) -> PreTrainedTokenizerFast:
    """The WordPiece tokenizer of the initial folder, without the markers that an encoder adds."""
    spec = json.loads((init / "tokenizer.json").read_text(encoding="utf-8"))
    spec.update(post_processor=None, truncation=None, padding=None)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        clean_up_tokenization_spaces=False,
        model_max_length=Recipe.max_positions,
    )


def new_model(recipe: Recipe, init: Path, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama that starts from MiniLM's word embeddings, with each key projection equal to its query projection.

    Equal projections make every head look at like words from the first step; without that nothing emerges.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    words = load_file(init / "model.safetensors")["embeddings.word_embeddings.weight"].float()
    words = words - words.mean(dim=0)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(words * (0.2 / words.std()))
        model.model.norm.weight.fill_(0.25)
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.normal_(std=0.05)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
            layer.self_attn.o_proj.weight.mul_(0.4)
            layer.mlp.down_proj.weight.mul_(0.4)
    return model
