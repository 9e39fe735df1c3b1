"""The embedded decoder's shape, its start from all-MiniLM-L6-v2's states of words, and the settings of its training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import MinistralConfig, MinistralForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run but its data and its start; written beside the model."""

    layers: int = 4
    hidden: int = 384
    heads: int = 6
    intermediate: int = 1024
    rope_theta: float = 1e6
    max_positions: int = 32768
    read_layers: tuple[int, ...] = (2,)
    window: int = 512  # tokens that layers before the first read one look back
    learning_rate: float = 7e-4
    embedding_rate: float = 0.0  # of the learning rate, for word embeddings; at 0 they stay as they are
    weight_decay: float = 0.01
    warmup: int = 50
    minutes: float = 120.0
    max_steps: int = 3600  # the run ends here if its minutes do not end it first
    seed: int = 0
    packs: int = 2  # a step
    chunks_per_chapter: float = 0.8  # of the books, as passages
    joint_share: float = 0.6  # packs with the full causal prompt; in the others passages do not see each other
    titled_share: float = 0.67  # packs that show titles
    renamed_share: float = 0.35  # packs in which some rare words are made up, the same ones everywhere
    spread_share: float = 0.2  # packs with gaps between passages, as in long prompts
    passage_tokens: int = 320
    temperature: float = 0.05  # of the teacher's cosines
    null_weight: float = 0.05
    vector_weight: float = 0.2  # of the distance between mean states, projected, and the teacher's vectors
    token_weight: float = 1.0  # of the distance between single states, projected, and the teacher's
    end_weight: float = 0.2  # of the distance between the states at a text's end, projected, and the teacher's vectors
    language_every: int = 4
    language_weight: float = 0.2
    language_tokens: int = 256
    averaged_from: float = 0.83  # the model is the mean of the checkpoints after this share of the run
    sharpness: float = 0.6  # factor on its read layers' attention logits: heads that learn by shares become too sure
    log_every: int = 50
    checkpoint_every: int = 200
    select_packs: int = 150  # held-out packs on which the heads are chosen


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


def layer_types(recipe: Recipe) -> list[str]:
    """What each layer looks at: those that are read, and those above, at everything; the others at what is near."""
    near = min(recipe.read_layers)
    return ["sliding_attention" if number < near else "full_attention" for number in range(recipe.layers)]


def new_model(recipe: Recipe, words: Tensor, tokenizer: PreTrainedTokenizerFast) -> MinistralForCausalLM:
    """A decoder that starts from vectors of words, with each key projection equal to its query projection.

    Equal projections make every head look at like words from the first step; without that nothing emerges.

    Parameters
    ----------
    recipe : Recipe
    words : Tensor
        Shape (vocabulary, width), at any scale: the teacher's states of words alone, or its word embeddings. A wider
        model has them in a subspace, with their angles.
    tokenizer : PreTrainedTokenizerFast

    Raises
    ------
    ValueError
        When the model is to be narrower than its words.
    """
    if recipe.hidden < words.shape[1]:
        raise ValueError(f"hidden {recipe.hidden} is less than the {words.shape[1]} of the teacher's states of words")
    torch.manual_seed(recipe.seed)
    model = MinistralForCausalLM(
        MinistralConfig(  # a Llama whose layers may look back a few tokens only
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            head_dim=recipe.hidden // recipe.heads,
            max_position_embeddings=recipe.max_positions,
            sliding_window=recipe.window,
            layer_types=layer_types(recipe),
            rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    words = words - words.mean(dim=0)
    if recipe.hidden > words.shape[1]:
        words = words @ torch.nn.init.orthogonal_(torch.empty(words.shape[1], recipe.hidden))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(words * (0.2 / words.std()))
        model.model.norm.weight.fill_(0.25)
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.normal_(std=0.05)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
            layer.self_attn.o_proj.weight.mul_(0.4)
            layer.mlp.down_proj.weight.mul_(0.4)
    return model


@torch.no_grad()
def grown(start: Path, recipe: Recipe) -> MinistralForCausalLM:
    """The model of a folder, with as many layers put in before the last read one as the recipe has more.

    The new layers change nothing at first: they write zeros.
    """
    old = MinistralForCausalLM.from_pretrained(start, dtype=torch.float32)
    added = recipe.layers - old.config.num_hidden_layers
    config = MinistralConfig.from_pretrained(
        start, num_hidden_layers=recipe.layers, sliding_window=recipe.window, layer_types=layer_types(recipe)
    )
    model = MinistralForCausalLM(config)
    new = range(max(recipe.read_layers) - added, max(recipe.read_layers))
    kept = [layer for place, layer in enumerate(model.model.layers) if place not in new]
    for layer, before in zip(kept, old.model.layers, strict=True):
        layer.load_state_dict(before.state_dict())
    model.model.embed_tokens.load_state_dict(old.model.embed_tokens.state_dict())
    model.model.norm.load_state_dict(old.model.norm.state_dict())
    for place in new:
        model.model.layers[place].self_attn.o_proj.weight.zero_()
        model.model.layers[place].mlp.down_proj.weight.zero_()
    return model
