"""What the teacher, all-MiniLM-L6-v2, makes of single tokens: in a text, and of a word alone.

Its vectors are means of these states, so that they teach the same at every token. The learner has the same tokenizer,
so its tokens are the teacher's. Knows nothing of packs or of the model that learns.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

BATCH = 512


class TokenTeacher:
    """The teacher's last states.

    Parameters
    ----------
    folder : Path
        A sentence encoder with mean pooling.
    device : str

    Raises
    ------
    ValueError
        Where its tokenizer has no marks of a text's start and end.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval().to(device)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        if self.start is None or self.end is None:
            raise ValueError(f"the tokenizer of {folder} names no cls_token and sep_token; is it a sentence encoder?")
        self.longest = self.model.config.max_position_embeddings - 2

    @torch.no_grad()
    def states(self, texts: list[Tensor]) -> Tensor:
        """Last states of the tokens of the texts, each text read alone; shape (tokens of all, hidden), float32."""
        rows = [pad(pad(ids[: self.longest], (1, 0), value=self.start), (0, 1), value=self.end) for ids in texts]
        found: list[Tensor] = list(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        start = 0
        while start < len(order):
            longest = len(rows[order[start]])
            some = [i for i in order[start : start + BATCH] if len(rows[i]) > 0.75 * longest]
            start += len(some)
            ids = pad_sequence([rows[i] for i in some], batch_first=True)
            lengths = torch.tensor([len(rows[i]) for i in some], device=ids.device)
            mask = torch.arange(longest, device=ids.device) < lengths[:, None]
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            for place, row in zip(some, states, strict=True):
                found[place] = row[1 : len(rows[place]) - 1]
        return torch.cat(found)

    def words(self) -> Tensor:
        """Last state of every token of the vocabulary as a text of its own; shape (vocabulary, hidden), float32."""
        return self.states(list(torch.arange(self.model.config.vocab_size, device=self.model.device)[:, None]))


def fitted(inputs: Tensor, states: Tensor, ridge: float = 50.0) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that comes nearest to `states`, shape (tokens, hidden), from `inputs`."""
    wide = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.solve(wide.T @ wide + ridge * torch.eye(wide.shape[1]), wide.T @ states)
    return solution[:-1].T.contiguous(), solution[-1]


def sample(texts: list[list[int]], count: int = 1200, longest: int = 200) -> list[Tensor]:
    """Some of the texts, as tensors of at most `longest` tokens; the same ones each time."""
    return [torch.tensor(ids[:longest]) for ids in random.Random(0).sample(texts, min(count, len(texts))) if ids]
