"""Independent layout: documents that were each encoded after the instruction alone, and one query over all of them.

    instruction -> prefill, once                          \
    documents   -> cache, or prefill in batches            > one prefix
    query, N/A  -> at the positions after the longest one /

What a document's tokens look at, and so its keys and values, depends on the instruction and the document only. The
cost grows linearly with the number of documents, and scores do not depend on their order. It is another score than
that of the joint layout, where every document sees those before it.

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from qr_core.attention import layers
from qr_core.attention.chunks import chunk_rows
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import Prefix, RoomyPrefix
from qr_core.attention.query_pass import Placement
from qr_core.cache.documents import DocumentCache, Keys
from qr_core.cache.partition import current_partition
from qr_core.cache.reads import ReadCache, make_room
from qr_core.model.fingerprint import fingerprint
from qr_core.model.shared import SharedModel
from qr_core.model.verify_independent import check_independent
from qr_core.prompts.independent import IndependentPrompt, IndependentPromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.reading.layout import Begun
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

TOTAL_TOKENS = 131_072
"""Most tokens of one prompt by default: positions do not limit how many documents stand side by side, memory does."""
ROOM = 256
"""Tokens of a query (and what stands around it) for which documents are not copied again."""
SHORTEST_SHARE = 0.75
"""Documents of a batch have at least this share of its longest one's tokens; the rest is padding."""
CPU_PART = 4
"""On a CPU a batch has a fourth of the rows that a chunk of a long prompt may have, which its caches hold better."""

States = dict[str, Prefix]
"""Keys and values of documents, by the document's key."""


class IndependentLayout:
    """A `PromptLayout`.

    Parameters
    ----------
    prompts : IndependentPromptBuilder
    documents : DocumentCache
        Where documents' keys and values are kept.
    config : PreTrainedConfig
        The model's.
    deepest : int
        Last layer with a selected head.
    name : str
        The model's, for errors.

    Raises
    ------
    HeadSetError
        When a layer up to the deepest selected one is chunked.
    """

    remedy = "encode documents in shorter parts with passage_tokens="

    def __init__(
        self,
        prompts: IndependentPromptBuilder,
        documents: DocumentCache,
        config: PreTrainedConfig,
        deepest: int,
        name: str,
    ) -> None:
        self.prompts = prompts
        self.documents = documents
        layers.check_chunks(layers.layers_of(config), deepest, name)

    def build(
        self,
        queries: Sequence[str],
        documents: Sequence[Document],
        cache: ReadCache | None,  # noqa: ARG002
    ) -> list[Prompt]:
        """See `PromptLayout.build`. Documents' tokens are remembered by the builder, not by `cache`."""
        return self.prompts.build(queries, documents)

    def check(self, model: PreTrainedModel, deepest: int, name: str) -> None:
        """See `PromptLayout.check`."""
        check_independent(model, deepest, name)

    def packs(self, model: PreTrainedModel) -> bool:
        """Whether queries may share a pass."""
        return facts_of(model).packs_independent

    def begin(
        self,
        shared: SharedModel,
        prompt: Prompt,
        regime: Hashable,
        deepest: int,
        cache: ReadCache | None,
        progress: Told | None,
    ) -> Begun:
        """See `PromptLayout.begin`. Documents are joined once for all queries that follow."""
        prompt = cast(IndependentPrompt, prompt)
        model = shared.at_depth(deepest)
        mark, lasting = fingerprint(model, shared.config, deepest)
        keys = Keys(mark, deepest, prompt.ids[: prompt.instruction], regime, current_partition())
        order = _own_order(prompt)
        texts = {number: ids for number in order if (ids := prompt.part(number))}
        names = {number: keys.of(ids) for number, ids in texts.items()}
        key = ("independent", regime, keys.of(()), *names.values())
        prefix = self.documents.joined(shared.owner, list(names.values()))
        if prefix is None and cache is not None:
            prefix = cast("RoomyPrefix | None", cache.get(shared, key))
        if prefix is None:
            instruction = self._instruction(model, prompt, keys, deepest, progress)
            named = {names[number]: ids for number, ids in texts.items()}
            states = self._states(model, instruction, named, deepest, lasting, progress)
            prefix, kept = self.documents.join(shared.owner, instruction, list(names.values()), states, ROOM)
            if not kept and cache is not None:
                cache.put(shared, key, prefix, prefix.bytes + 64 * len(key))
        elif progress:
            progress(prompt.query_start)
        columns = _columns(prompt, order)
        positions = torch.from_numpy(prompt.positions()).int()
        placement = Placement(positions[columns].to(facts_of(model).device), prompt.query_position)
        return Begun(key, 64 * len(key), prefix, placement, columns.argsort())

    def _instruction(
        self, model: PreTrainedModel, prompt: IndependentPrompt, keys: Keys, deepest: int, progress: Told | None
    ) -> Prefix:
        """The instruction's states: a few tokens, kept in memory only."""
        ids, key = prompt.ids[: prompt.instruction], keys.of(())
        kept = self.documents.get({key: len(ids)}, Prefix((), ()), shared=False)
        if key not in kept:
            input_ids = torch.tensor([ids], device=model.device)
            kept = {key: prefill(model, input_ids, deepest, progress=progress, make_room=make_room)}
            self.documents.put(kept, shared=False)
        return kept[key]

    def _states(
        self,
        model: PreTrainedModel,
        instruction: Prefix,
        texts: Mapping[str, tuple[int, ...]],
        deepest: int,
        lasting: bool,
        progress: Told | None,
    ) -> States:
        """Every document's states, from the cache or encoded now.

        Parameters
        ----------
        texts : mapping of str to tuple of int
            Token ids by key.
        lasting : bool
            Whether keys mean anything to another process.
        """
        found = self.documents.get({key: len(ids) for key, ids in texts.items()}, instruction, lasting)
        missing = {key: ids for key, ids in texts.items() if key not in found}
        if progress:
            progress(sum(len(texts[key]) for key in found))
        new: States = {}
        for batch in _batches(model, instruction.length, missing):
            new |= encode(model, instruction, {key: missing[key] for key in batch}, deepest)
            if progress:
                progress(sum(len(missing[key]) for key in batch))
        self.documents.put(new, lasting)
        return found | new


def encode(
    model: PreTrainedModel, instruction: Prefix, documents: Mapping[str, tuple[int, ...]], deepest: int
) -> States:
    """Keys and values of documents in one batch, each after the `instruction` alone.

    Padding stands after a document, where causal attention never looks, and is dropped.

    Parameters
    ----------
    documents : mapping of str to tuple of int
        Token ids, none empty.
    """
    longest = max(len(ids) for ids in documents.values())
    rows = [[*ids, *[0] * (longest - len(ids))] for ids in documents.values()]
    states = prefill(model, torch.tensor(rows, device=model.device), deepest, after=instruction, make_room=make_room)
    return {
        key: Prefix(
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.keys),
            tuple(tensor[row : row + 1, :, : len(ids)].clone() for tensor in states.values),
        )
        for row, (key, ids) in enumerate(documents.items())
    }


def _batches(model: PreTrainedModel, instruction: int, documents: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Keys of documents of similar length, as many at a time as `chunk_rows` allows, longest first."""
    batch: list[str] = []
    longest = most = 0
    for key in sorted(documents, key=lambda key: (-len(documents[key]), documents[key])):
        length = len(documents[key])
        if batch and (len(batch) == most or length < SHORTEST_SHARE * longest):
            yield batch
            batch = []
        if not batch:
            rows = chunk_rows(model, instruction + length) // (CPU_PART if model.device.type == "cpu" else 1)
            longest, most = length, max(1, rows // length)
        batch.append(key)
    if batch:
        yield batch


def _own_order(prompt: IndependentPrompt) -> list[int]:
    """Documents by their tokens: sums over them then come out the same whatever order the caller has."""
    return sorted(range(len(prompt.parts)), key=prompt.part)


def _columns(prompt: IndependentPrompt, order: Sequence[int]) -> Tensor:
    """Where in the prompt each token of the prefix stands, when documents are in `order`."""
    spans = [(0, prompt.instruction), *(prompt.parts[number] for number in order)]
    return torch.cat([torch.arange(start, end) for start, end in spans])
