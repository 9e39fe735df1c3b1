"""Reader: what the selected heads of one model pay documents that fit one prompt, for one query or many.

    prompts -> begin (documents encoded, or found) -> query passes -> attention mass per head and token

The same for all layouts. Takes the model's lock for each call. Knows nothing of calibration, of how tokens become
scores, or of rankings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core.attention import layers, rope
from qr_core.cache.reads import ReadCache
from qr_core.heads.sets import HeadSet
from qr_core.model.shared import SharedModel
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Asked
from qr_core.reading.layout import Begun, PromptLayout
from qr_core.reading.protocol import Reading, Told
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Suffix = tuple[int, ...]


class AttentionReader:
    """A `Reader` that runs a model of transformers.

    Parameters
    ----------
    model : SharedModel
    layout : PromptLayout
    heads : HeadSet
    name : str
        The model's, for errors.

    Raises
    ------
    HeadSetError
        When heads lie in layers whose attention cannot be read.
    """

    def __init__(self, model: SharedModel, layout: PromptLayout, heads: HeadSet, name: str) -> None:
        self.model = model
        self.layout = layout
        self.heads = heads
        self.name = name
        self.layers = layers.layers_of(model.config)
        layers.check_readable_layers(self.layers, heads.by_layer(), name)
        self._heads = {layer: tuple(chosen) for layer, chosen in heads.by_layer().items()}

    @property
    def prompts(self) -> PromptBuilder:
        """How queries and documents become tokens."""
        return self.layout.prompts

    @property
    def windows(self) -> Mapping[int, int]:
        """How far back each layer looks that has a sliding window."""
        return layers.windows_of(self.layers)

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most."""
        return self.prompts.lengths(documents)

    def build(
        self,
        query: str,
        documents: Sequence[Document],
        references: Sequence[str] = (),
        cache: ReadCache | None = None,
    ) -> Asked:
        """See `Reader.build`."""
        own, *others = self.layout.build([query, *references], documents, cache)
        # A content-free query cannot be calibrated by itself: every score would be zero.
        return Asked(own, () if any(other.ids == own.ids for other in others) else tuple(others))

    def read(self, asked: Asked, cache: ReadCache | None = None, progress: Told | None = None) -> Reading:
        """`read_many` of one query."""
        return self.read_many([asked], cache, progress)[0]

    def read_many(
        self, asked: Sequence[Asked], cache: ReadCache | None = None, progress: Told | None = None
    ) -> list[Reading]:
        """See `Reader.read_many`."""
        if not asked:  # and load nothing
            return []
        with self.model.lock, torch.inference_mode():
            for one in asked:
                layers.check_windows(self.layers, self._heads, one.reach, self.name, self.layout.remedy)
            model = self.model.at_depth(self.heads.deepest)
            self.layout.check(model, self.heads.deepest, self.name)
            found: list[Reading] = []
            for _, group in groupby(asked, lambda one: (one.query.before, rope.regime(model, one.reach))):
                found += self._read_group(model, list(group), cache, progress)
            return found

    def _read_group(
        self, model: PreTrainedModel, group: Sequence[Asked], cache: ReadCache | None, progress: Told | None
    ) -> list[Reading]:
        """What queries pay the same tokens, in the same RoPE regime."""
        reach = max(one.reach for one in group)
        with rope.held_to(model, reach):
            regime = rope.regime(model, reach)
            begun = self.layout.begin(self.model, group[0].query, regime, self.heads.deepest, cache, progress)
            references = {prompt.suffix for one in group for prompt in one.references}
            null = {suffix: self._reference(model, begun, suffix, cache) for suffix in sorted(references)}
            raw = self.layout.passes(model, begun, [one.query.suffix for one in group], self._heads)
        return [
            Reading(begun.turned(own), tuple(begun.turned(null[prompt.suffix]) for prompt in one.references), one.query)
            for own, one in zip(raw, group, strict=True)
        ]

    def _reference(self, model: PreTrainedModel, begun: Begun, suffix: Suffix, cache: ReadCache | None) -> Tensor:
        """What a content-free query pays; it comes again with every further query over the same documents.

        Kept in the order of the prefix, which stays the same whatever order the caller has the documents in.
        """
        key = (*begun.key, suffix, tuple(self._heads.items()))
        mass: Tensor | None = cache.get(self.model, key) if cache is not None else None
        if mass is None:
            mass = self.layout.passes(model, begun, [suffix], self._heads)[0]
            if cache is not None:
                cache.put(self.model, key, mass, mass.numel() * mass.element_size() + begun.key_bytes)
        return mass
