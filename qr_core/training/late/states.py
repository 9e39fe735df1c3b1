"""States of an encoder that is not trained, computed once: every text alone, long ones in parts of equal length.

Knows nothing of questions or scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import BertModel, PreTrainedTokenizerBase

PART = 190
"""Tokens of a part without the marks at its ends."""
AT_ONCE = 4000
"""Tokens of a batch."""


def cut(tokens: list[int], size: int = PART) -> list[list[int]]:
    """Parts of at most `size` tokens, as equal as can be; one, perhaps empty, of a text that is short enough."""
    count = max(1, math.ceil(len(tokens) / size))
    step = max(1, math.ceil(len(tokens) / count))
    return [tokens[start : start + step] for start in range(0, max(1, len(tokens)), step)]


class States:
    """States of texts after some of the encoder's layers.

    Parameters
    ----------
    texts : sequence of str
    layers : sequence of int
        Numbers of layers before the states: 0 is the embeddings.
    most : int
        Parts of a text that are kept.
    """

    def __init__(
        self,
        encoder: BertModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        layers: Sequence[int],
        most: int = 2,
    ) -> None:
        rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        self.parts: list[range] = []
        tokens: list[list[int]] = []
        for row in rows:
            some = cut(row)[:most]
            self.parts.append(range(len(tokens), len(tokens) + len(some)))
            tokens += some
        self.lengths = torch.tensor([len(part) for part in tokens])
        self._starts = [0, *self.lengths.cumsum(0).tolist()]
        hidden = encoder.config.hidden_size
        self._states = {n: torch.empty(self._starts[-1], hidden, dtype=encoder.dtype) for n in layers}
        self._means = torch.empty(len(tokens), hidden)
        marks = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._encode(encoder, [[marks[0], *part, marks[1]] for part in tokens])

    @torch.no_grad()
    def _encode(self, encoder: BertModel, rows: list[list[int]]) -> None:
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]), reverse=True)
        while order:
            longest = len(rows[order[0]])
            batch, order = order[: max(1, AT_ONCE // longest)], order[max(1, AT_ONCE // longest) :]
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, number in enumerate(batch):
                ids[place, : len(rows[number])] = torch.tensor(rows[number])
                mask[place, : len(rows[number])] = 1
            found = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            for place, number in enumerate(batch):
                inner = slice(1, len(rows[number]) - 1)
                for layer, states in self._states.items():
                    states[self._starts[number] : self._starts[number + 1]] = found[layer][place, inner]
                self._means[number] = found[-1][place, : len(rows[number])].float().mean(dim=0)

    def of(self, text: int, layer: int) -> Tensor:
        """States of a text's own tokens, all its parts one after the other, shape (tokens, hidden)."""
        parts = self.parts[text]
        return self._states[layer][self._starts[parts.start] : self._starts[parts.stop]]

    def sample(self, layer: int, count: int, seed: int = 0) -> Tensor:
        """Some tokens' states, float32."""
        states = self._states[layer]
        return states[torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))[:count]].float()

    def vectors(self) -> Tensor:
        """The sentence encoder's unit vector of every text: the mean of the last states of its first part."""
        return normalize(self._means[[parts.start for parts in self.parts]], dim=1)
