"""Independent layout: documents that were each encoded after the instruction alone, and one query over all of them.

    instruction -> prefill, once                          \
    documents   -> cache, or prefill in batches            > one prefix
    query, N/A  -> at the positions after the longest one /

What a document's tokens look at, and so its keys and values, depends on the instruction and the document only. The cost
grows linearly with the number of documents, and scores do not depend on their order. It is another score than that of
the joint layout, where every document sees those before it.

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import Prefix
from qr_core.cache.reads import make_room
from qr_core.model.verify import refuse_encoder
from qr_core.model.verify_independent import check_independent
from qr_core.prompts.independent import IndependentPrompt
from qr_core.reading.documentwise import DocumentwiseLayout, States
from qr_core.reading.layout import Begun, Heads, continue_prefix
from qr_core.reading.protocol import Told

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOTAL_TOKENS = 131_072
"""Most tokens of one prompt by default: positions do not limit how many documents stand side by side, memory does."""
ROOM = 256
"""Tokens of a query (and what stands around it) for which documents are not copied again."""


class IndependentLayout(DocumentwiseLayout):
    """A `PromptLayout`; parameters and errors are those of `DocumentwiseLayout`."""

    kind = "independent"
    room = ROOM

    def check(self, model: PreTrainedModel, deepest: int, name: str) -> None:
        """See `PromptLayout.check`."""
        refuse_encoder(model, name)
        check_independent(model, deepest, name)

    def passes(
        self, model: PreTrainedModel, begun: Begun, suffixes: Sequence[Sequence[int]], heads: Heads
    ) -> list[Tensor]:
        """See `PromptLayout.passes`."""
        return continue_prefix(model, begun, suffixes, heads, facts_of(model).packs_independent)

    def instruct(self, model: PreTrainedModel, ids: Sequence[int], deepest: int, progress: Told | None) -> Prefix:
        """See `DocumentwiseLayout.instruct`."""
        input_ids = torch.tensor([list(ids)], device=model.device)
        return prefill(model, input_ids, deepest, progress=progress, make_room=make_room)

    def encode(
        self,
        model: PreTrainedModel,
        prompt: IndependentPrompt,  # noqa: ARG002
        instruction: Prefix,
        documents: Mapping[str, tuple[int, ...]],
        length: int,
        rows: int,
        deepest: int,
    ) -> States:
        """See `DocumentwiseLayout.encode`."""
        return encode(model, instruction, documents, length, rows, deepest)


def encode(
    model: PreTrainedModel,
    instruction: Prefix,
    documents: Mapping[str, tuple[int, ...]],
    length: int,
    rows: int,
    deepest: int,
) -> States:
    """Keys and values of documents in one batch, each after the `instruction` alone.

    Padding stands after a document, where causal attention never looks, and is dropped.

    Parameters
    ----------
    documents : mapping of str to tuple of int
        Token ids, none empty.
    length, rows : int
        Shape of the batch.
    """
    padded = [[*ids, *[0] * (length - len(ids))] for ids in documents.values()]
    padded += [[0] * length] * (rows - len(padded))
    states = prefill(model, torch.tensor(padded, device=model.device), deepest, after=instruction, make_room=make_room)
    return {
        key: Prefix(
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.keys),
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.values),
        )
        for row, (key, ids) in enumerate(documents.items())
    }
