"""A GPT-2 without positions whose heads are set by hand, so that one known head does a known thing.

Tokens have random embeddings and blocks add almost nothing, so a layer's input is the token's own embedding. All heads
attend nearly evenly, except a planted one.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tests.helpers import GOLDEN

WIDTH, HEADS, LAYERS = 128, 4, 2
HEAD_WIDTH = WIDTH // HEADS
SHARPNESS = 3.0
COPY_GAIN = 20.0


def tokenizer():
    return AutoTokenizer.from_pretrained(GOLDEN / "tiny-qwen2")


class Planted:
    """The model; plant heads in it, then `save`."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=1920, n_positions=4096, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
                bos_token_id=None, eos_token_id=None,
            )
        ).eval()  # fmt: skip
        with torch.no_grad():
            self.model.transformer.wte.weight.normal_()
            self.model.transformer.wpe.weight.zero_()
            for block in self.model.transformer.h:
                block.attn.c_attn.weight.normal_(std=0.01)
                block.attn.c_proj.weight.normal_(std=1e-4)
                block.mlp.c_proj.weight.zero_()
        orthogonal = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
        self.projection = orthogonal[:, :HEAD_WIDTH]

    def embedding(self, token: int) -> torch.Tensor:
        found = self.model.transformer.wte.weight[token].detach()
        return (found - found.mean()) / found.std(correction=0)  # as the layer norm shows it

    def columns(self, part: str, head: int) -> slice:
        start = "qkv".index(part) * WIDTH + head * HEAD_WIDTH
        return slice(start, start + HEAD_WIDTH)

    def attend_to_like_words(self, layer: int, head: int) -> None:
        """The head looks at tokens equal to the one it reads from."""
        weight = self.model.transformer.h[layer].attn.c_attn.weight
        with torch.no_grad():
            for part in "qk":
                weight[:, self.columns(part, head)] = self.projection * SHARPNESS**0.5

    def copy_chain(self, layer: int, head: int, chain: list[int]) -> None:
        """From each token of the chain the head looks at the next one and makes the model write it."""
        block = self.model.transformer.h[layer].attn
        query = torch.zeros(WIDTH, HEAD_WIDTH)
        for token, following in pairwise(chain):
            now = self.embedding(token)
            query += torch.outer(now / now.dot(now), self.embedding(following) @ self.projection)
        with torch.no_grad():
            block.c_attn.weight[:, self.columns("q", head)] = query * SHARPNESS
            block.c_attn.weight[:, self.columns("k", head)] = self.projection
            block.c_attn.weight[:, self.columns("v", head)] = self.projection
            rows = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            block.c_proj.weight[rows] = self.projection.T * COPY_GAIN

    def destroy_keys(self, layer: int, head: int) -> None:
        with torch.no_grad():
            self.model.transformer.h[layer].attn.c_attn.weight[:, self.columns("k", head)] = 0

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return folder
