"""What the teacher, all-MiniLM-L6-v2, makes of single tokens: in a text, and of a word alone.

Its vectors are means of these states, so that they teach the same at every token. The learner has the same tokenizer,
so its tokens are the teacher's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

from qr_core.training.forward import moved

BATCH = 512
"""Most texts in one forward pass."""
LEAST_FILL = 0.75
"""Texts share a forward pass when each has more than this share of the tokens of the longest."""


def device() -> str:
    """Where teacher and learner run."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Texts:
    """Texts in batches of like length.

    Attributes
    ----------
    ids, masks : list of Tensor
        Of each batch, shape (texts, longest): tokens between the marks of start and end, and which are no padding.
    inside : list of Tensor
        Of each batch, the places of the texts' own tokens in a flat view.
    rows, tokens : Tensor
        Shapes (texts,) and (tokens of all,): where each stands among those of all batches.
    """

    ids: list[Tensor]
    masks: list[Tensor]
    inside: list[Tensor]
    rows: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], start: int, end: int) -> Texts:
        """Batches of texts, each a sequence of tokens."""
        lengths = torch.tensor([len(text) for text in texts])
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        ids, masks, inside = [], [], []
        place = 0
        while place < len(order):
            longest = len(texts[order[place]]) + 2
            some = [i for i in order[place : place + BATCH] if len(texts[i]) + 2 > LEAST_FILL * longest]
            place += len(some)
            ids.append(pad_sequence([torch.tensor([start, *texts[i], end]) for i in some], batch_first=True))
            steps = torch.arange(longest)
            masks.append(steps < lengths[some, None] + 2)
            own = (steps > 0) & (steps <= lengths[some, None])
            inside.append(own.flatten().nonzero()[:, 0])
        rows = torch.empty(len(order), dtype=torch.long)
        rows[order] = torch.arange(len(order))
        ends = lengths[order].cumsum(0)[rows]
        before = lengths.cumsum(0) - lengths
        tokens = torch.arange(int(lengths.sum())) + (ends - lengths - before).repeat_interleave(lengths)
        return cls(ids, masks, inside, rows, tokens)


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

    def texts(self, texts: Sequence[Sequence[int]]) -> Texts:
        """What `states` reads."""
        return Texts.of(texts, self.start, self.end)

    @torch.no_grad()
    def states(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Last states of the tokens of the texts, each text on its own, and the texts' vectors.

        Returns
        -------
        states, vectors : Tensor
            Float32, shapes (tokens of all, hidden) and (texts, hidden); vectors have length 1.
        """
        states, vectors = [], []
        for ids, mask, inside in zip(texts.ids, texts.masks, texts.inside, strict=True):
            found = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            states.append(found.flatten(0, 1)[inside])
            vectors.append(normalize((found * mask[..., None]).sum(dim=1), dim=1))
        return torch.cat(states)[texts.tokens], torch.cat(vectors)[texts.rows]

    def words(self) -> Tensor:
        """Last state of every token of the vocabulary as a text of its own; shape (vocabulary, hidden), float32."""
        alone = self.texts([[token] for token in range(self.model.config.vocab_size)])
        return self.states(moved(alone, self.model.device))[0]


def fitted(inputs: Tensor, states: Tensor, ridge: float = 50.0) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that comes nearest to `states`, shape (tokens, hidden), from `inputs`."""
    wide = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    some = ridge * torch.eye(wide.shape[1], device=wide.device)
    solution = torch.linalg.solve(wide.T @ wide + some, wide.T @ states)
    return solution[:-1].T.contiguous(), solution[-1]


def sample(
    texts: list[str], encode: Callable[[str], list[int]], count: int = 1200, longest: int = 200
) -> list[list[int]]:
    """Tokens of some of the texts, at most `longest` of each; the same ones each time."""
    some = (encode(text)[:longest] for text in random.Random(0).sample(texts, min(count, len(texts))))
    return [ids for ids in some if ids]
