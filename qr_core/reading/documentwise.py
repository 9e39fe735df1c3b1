"""Documentwise: what layouts share that encode each document on its own, and run queries over all of them.

    instruction -> once                                        \
    documents   -> cache, or in batches of one padded length    > one prefix, joined once for all queries that follow

What a document leaves behind depends on the instruction and the document only: to the last bit on a CPU, since the
shape in which it is encoded does too. How it is encoded, and what of it is kept, is the business of each layout.

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from qr_core.attention import layers
from qr_core.attention.chunks import chunk_rows
from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix, RoomyPrefix
from qr_core.attention.query_pass import Placement
from qr_core.cache.documents import DocumentCache, Keys
from qr_core.cache.reads import ReadCache
from qr_core.model.fingerprint import fingerprint
from qr_core.model.loading import context_length
from qr_core.model.shared import SharedModel
from qr_core.prompts.independent import IndependentPrompt, IndependentPromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.reading.layout import Begun
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

LARGEST_STEP = 32
"""A document is padded to one of four lengths in each doubling, at most this far apart."""
CPU_PART = 4
"""On a CPU a batch has a fourth of the rows that a chunk of a long prompt may have, which its caches hold better."""
FIXED_ROWS = 2048
"""Rows of every batch on other devices, filled with padding: there a row's last bits depend on how many there are."""

States = dict[str, Prefix]
"""What documents left behind, by the document's key."""


class DocumentwiseLayout(ABC):
    """A `PromptLayout`, but for how documents are encoded and queries run.

    Parameters
    ----------
    prompts : IndependentPromptBuilder
    documents : DocumentCache
        Where what documents leave behind is kept.
    config : PreTrainedConfig
        The model's.
    deepest : int
        Last layer with a selected head.
    name : str
        The model's, for errors.

    Attributes
    ----------
    room : int
        Tokens behind joined documents, for a query.

    Raises
    ------
    HeadSetError
        When a layer up to the deepest selected one is chunked.
    """

    remedy = "encode documents in shorter parts with passage_tokens="
    room = 0

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
        self._positions = context_length(config)
        layers.check_chunks(layers.layers_of(config), deepest, name)

    @property
    @abstractmethod
    def kind(self) -> str:
        """What tells entries of this layout from others of the same documents."""

    @abstractmethod
    def instruct(self, model: PreTrainedModel, ids: Sequence[int], deepest: int, progress: Told | None) -> Prefix:
        """The states of the instruction, which documents are encoded after."""

    @abstractmethod
    def encode(
        self,
        model: PreTrainedModel,
        prompt: IndependentPrompt,
        instruction: Prefix,
        documents: Mapping[str, tuple[int, ...]],
        length: int,
        rows: int,
        deepest: int,
    ) -> States:
        """What documents of one batch leave behind, each encoded after the instruction alone.

        Parameters
        ----------
        documents : mapping of str to tuple of int
            Token ids by key, none empty.
        length, rows : int
            Shape of the batch: tokens of a document with its padding, and documents with filling.
        """

    def lead(self, instruction: Prefix) -> Prefix:
        """What of the instruction stands before the documents that are joined."""
        return instruction

    def around(self, prompt: IndependentPrompt) -> int:
        """Positions that a document cannot take."""
        return prompt.instruction

    def positions(self, model: PreTrainedModel) -> int | None:
        """Most positions of a text; None where the model sets no limit."""
        return None if self._positions is None else self._positions - facts_of(model).unusable

    def build(
        self,
        queries: Sequence[str],
        documents: Sequence[Document],
        cache: ReadCache | None,  # noqa: ARG002
    ) -> list[Prompt]:
        """See `PromptLayout.build`. Documents' tokens are remembered by the builder, not by `cache`."""
        return self.prompts.build(queries, documents)

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
        keys = self.keys(shared, prompt, regime, deepest)
        order = _own_order(prompt)
        texts = {number: ids for number in order if (ids := prompt.part(number))}
        names = {number: keys.of(ids) for number, ids in texts.items()}
        key = (self.kind, regime, keys.of(()), *names.values())
        owner = (shared.owner, keys.of(()))  # where no document has a token, nothing else tells scorers apart
        prefix = self.documents.joined(owner, list(names.values()))
        if prefix is None and cache is not None:
            prefix = cast("RoomyPrefix | None", cache.get(shared, key))
        if prefix is None:
            instruction = self.instruction(model, prompt, keys, deepest, progress)
            named = {names[number]: ids for number, ids in texts.items()}
            states = self._states(model, prompt, instruction, keys, named, deepest, progress)
            prefix, kept = self.documents.join(owner, self.lead(instruction), list(names.values()), states, self.room)
            if not kept and cache is not None:
                cache.put(shared, key, prefix, prefix.bytes + 64 * len(key))
        elif progress:
            progress(prompt.query_start)
        columns = _columns(prompt, order)
        positions = torch.from_numpy(prompt.positions()).int()
        placement = Placement(positions[columns].to(facts_of(model).device), prompt.query_position)
        return Begun(key, 64 * len(key), prefix, placement, columns.argsort())

    def keys(self, shared: SharedModel, prompt: IndependentPrompt, regime: Hashable, deepest: int) -> Keys:
        """What makes keys of documents' tokens."""
        mark, lasting = fingerprint(shared.at_depth(deepest), shared.config, deepest)
        return Keys(self.kind, mark, deepest, prompt.ids[: prompt.instruction], regime, lasting)

    def instruction(
        self, model: PreTrainedModel, prompt: IndependentPrompt, keys: Keys, deepest: int, progress: Told | None = None
    ) -> Prefix:
        """The instruction's states: a few tokens, kept in memory only."""
        ids, key = prompt.ids[: prompt.instruction], keys.of(())
        kept = self.documents.get({key: len(ids)}, Prefix((), ()), shared=False)
        if key not in kept:
            kept = {key: self.instruct(model, ids, deepest, progress)}
            self.documents.put(kept, shared=False)
        return kept[key]

    def _states(
        self,
        model: PreTrainedModel,
        prompt: IndependentPrompt,
        instruction: Prefix,
        keys: Keys,
        texts: Mapping[str, tuple[int, ...]],
        deepest: int,
        progress: Told | None,
    ) -> States:
        """What every document leaves behind, from the cache or encoded now; `texts` are token ids by key."""
        lengths = {key: len(ids) for key, ids in texts.items()}
        found = self.documents.get(lengths, self.lead(instruction), keys.lasting)
        missing = {key: ids for key, ids in texts.items() if key not in found}
        if progress:
            progress(sum(lengths[key] for key in found))
        new: States = {}
        around = self.around(prompt)
        positions = self.positions(model)
        most = None if positions is None else positions - around
        for length, batch, rows in _batches(model, around, missing, most):
            new |= self.encode(model, prompt, instruction, batch, length, rows, deepest)
            if progress:
                progress(sum(map(len, batch.values())))
        self.documents.put(new, keys.lasting)
        return found | new


def padded_length(length: int, most: int | None = None) -> int:
    """Tokens of the row in which a document of `length` tokens is encoded, whatever stands beside it; up to `most`."""
    step = min(max(1 << max((length - 1).bit_length() - 3, 0), 4), LARGEST_STEP)
    padded = -(-length // step) * step
    return padded if most is None else max(length, min(padded, most))


def _batches(
    model: PreTrainedModel, instruction: int, documents: Mapping[str, tuple[int, ...]], most: int | None
) -> Iterator[tuple[int, dict[str, tuple[int, ...]], int]]:
    """Length, documents and rows of each batch: documents of one padded length, the longest first."""

    def shape(key: str) -> int:
        return padded_length(len(documents[key]), most)

    for length, group in groupby(sorted(documents, key=lambda key: (-shape(key), documents[key])), shape):
        keys = list(group)
        if model.device.type == "cpu":
            at_once = max(1, chunk_rows(model, instruction + length) // CPU_PART // length)
        else:
            at_once = max(1, FIXED_ROWS // length)
        for start in range(0, len(keys), at_once):
            batch = {key: documents[key] for key in keys[start : start + at_once]}
            yield length, batch, len(batch) if model.device.type == "cpu" else at_once


def _own_order(prompt: IndependentPrompt) -> list[int]:
    """Documents by their tokens: sums over them then come out the same whatever order the caller has."""
    return sorted(range(len(prompt.parts)), key=prompt.part)


def _columns(prompt: IndependentPrompt, order: Sequence[int]) -> Tensor:
    """Where in the prompt each token of the prefix stands, when documents are in `order`."""
    spans = [(0, prompt.instruction), *(prompt.parts[number] for number in order)]
    return torch.cat([torch.arange(start, end) for start, end in spans])
