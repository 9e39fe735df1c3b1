"""Late layout: documents and query each encoded alone; they meet in the layers that are read, and nowhere else.

    instruction -> once                                  \
    documents   -> cache, or encoded in batches           > keys of the layers that are read, joined
    query, N/A  -> alone, after the instruction           -> one softmax over all these keys

A document leaves nothing behind but the keys of selected heads, so a further query costs little more than its own
tokens. With heads in several layers, each is read as if query and documents met in it only.

For decoders, and for encoders, whose texts see themselves on both sides: there the instruction (a begin token, as a
rule) and what the tokenizer puts behind a text belong to every text, and a query sees the documents' own tokens only.

Meeting in one layer is how late interaction works (ColBERT, arXiv 2004.12832); here the score is attention mass.

Knows nothing of how mass becomes a score.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import pad

from qr_core.attention.loaded import facts_of
from qr_core.attention.meeting import kept_keys, meeting_masses
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import Prefix
from qr_core.attention.query_pass import Placement
from qr_core.attention.record import Recorded, one_after_another, record_suffix, record_texts
from qr_core.cache.documents import DocumentCache
from qr_core.cache.reads import ReadCache, make_room
from qr_core.errors import ContextLengthError, InputError
from qr_core.heads.sets import HeadSet
from qr_core.model.shared import SharedModel
from qr_core.model.verify_late import check_late
from qr_core.prompts.independent import IndependentPrompt, IndependentPromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.reading.documentwise import DocumentwiseLayout, States
from qr_core.reading.independent import encode
from qr_core.reading.layout import Begun, Heads
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

TOTAL_TOKENS = 2**20
"""Most tokens of one prompt by default: of each, keys of a few heads are held."""
NOTHING = Prefix((), ())


@dataclass(frozen=True)
class LateBegun(Begun):
    """Documents, encoded; and what their query is encoded after.

    Attributes
    ----------
    instruction : Prefix
    instruction_ids : tuple of int
    hidden : int
        Tokens before the documents that no query sees.
    """

    instruction: Prefix = NOTHING
    instruction_ids: tuple[int, ...] = ()
    hidden: int = 0

    def turned(self, mass: Tensor) -> Tensor:
        """See `Begun.turned`."""
        return super().turned(pad(mass, (self.hidden, 0)))


class LateLayout(DocumentwiseLayout):
    """A `PromptLayout`; parameters and errors are those of `DocumentwiseLayout`, but for these.

    Parameters
    ----------
    heads : HeadSet
        The heads that are read: of other ones no keys are kept.
    """

    def __init__(
        self,
        prompts: IndependentPromptBuilder,
        documents: DocumentCache,
        config: PreTrainedConfig,
        heads: HeadSet,
        name: str,
    ) -> None:
        super().__init__(prompts, documents, config, heads.deepest, name)
        self._heads = heads.by_layer()
        self._all_heads = heads.config.heads
        self._name = name

    @cached_property
    def kind(self) -> str:
        """See `DocumentwiseLayout.kind`."""
        return f"late {self._heads} {self._trailing}"

    @property
    def _trailing(self) -> list[int]:
        return self.prompts.tokens.trailing

    def check(self, model: PreTrainedModel, deepest: int, name: str) -> None:
        """See `PromptLayout.check`."""
        check_late(model, deepest, name)

    def build(self, queries: Sequence[str], documents: Sequence[Document], cache: ReadCache | None) -> list[Prompt]:
        """See `PromptLayout.build`. A tokenizer that ends texts by tokens of its own is taken for an encoder's."""
        prompts = super().build(queries, documents, cache)
        behind = len(self._trailing) or None
        return [replace(cast(IndependentPrompt, prompt), behind=behind) for prompt in prompts]

    def begin(
        self,
        shared: SharedModel,
        prompt: Prompt,
        regime: Hashable,
        deepest: int,
        cache: ReadCache | None,
        progress: Told | None,
    ) -> LateBegun:
        """See `PromptLayout.begin`."""
        prompt, model = cast(IndependentPrompt, prompt), shared.at_depth(deepest)
        self._check_positions(model, prompt)
        begun = super().begin(shared, prompt, regime, deepest, cache, progress)
        instruction = self.instruction(model, prompt, self.keys(shared, prompt, regime, deepest), deepest)
        hidden = prompt.instruction if facts_of(model).sees_ahead else 0
        return LateBegun(
            **vars(begun), instruction=instruction, instruction_ids=prompt.ids[: prompt.instruction], hidden=hidden
        )

    def _check_positions(self, model: PreTrainedModel, prompt: IndependentPrompt) -> None:
        """Refuse what a prompt's own limit cannot know before weights are loaded."""
        needed = prompt.query_position + (prompt.behind or 0)
        if not facts_of(model).sees_ahead:
            needed = prompt.query_position + len(prompt.suffix)
        positions = self.positions(model)
        if positions is not None and needed > positions:
            raise ContextLengthError(
                f"documents take {needed} positions, with the query where it follows them, and {self._name} has "
                f"{positions}: encode documents in shorter parts with passage_tokens="
            )

    def passes(
        self, model: PreTrainedModel, begun: Begun, suffixes: Sequence[Sequence[int]], heads: Heads
    ) -> list[Tensor]:
        """See `PromptLayout.passes`."""
        late = cast(LateBegun, begun)
        prefix = cast(Prefix, late.prefix)
        nothing = torch.zeros(sum(map(len, heads.values())), prefix.length)
        return [
            meeting_masses(prefix, self._rows(model, late, suffix), heads) if suffix else nothing for suffix in suffixes
        ]  # a query that the tokenizer makes nothing of looks at nothing

    def _rows(self, model: PreTrainedModel, begun: LateBegun, suffix: Sequence[int]) -> Mapping[int, Recorded]:
        """A query's rows in the layers that are read."""
        if not facts_of(model).sees_ahead:
            near = cast(Placement, begun.placement)
            placement = Placement(near.keys[: begun.instruction.length], near.query)
            return record_suffix(model, begun.instruction, suffix, placement, self._heads)
        before = len(begun.instruction_ids)
        positions = self.positions(model)
        most = len(suffix) if positions is None else positions - before - len(self._trailing)
        parts: list[Mapping[int, Recorded]] = []
        for start in range(0, len(suffix), most):
            own = suffix[start : start + most]
            text = [*begun.instruction_ids, *own, *self._trailing]
            found = record_texts(model, [text], len(text), 1, self._heads)
            parts.append({layer: one.part(before, before + len(own)) for layer, one in found.items()})
        return {layer: one_after_another([part[layer] for part in parts]) for layer in self._heads}

    def instruct(self, model: PreTrainedModel, ids: Sequence[int], deepest: int, progress: Told | None) -> Prefix:
        """See `DocumentwiseLayout.instruct`. Of an encoder, which has it around every text: nothing, in its shape."""
        if facts_of(model).sees_ahead:
            text = [*ids, *self._trailing] or [0]
            found = record_texts(model, [text], len(text), 1, self._heads)
            return self._kept({layer: one.key for layer, one in found.items()}).part(0, 0)
        if not ids:
            raise InputError(
                f"{self._name} needs something before documents to look at when nothing is relevant, and neither its "
                "template nor its tokenizer puts anything there: pass template='plain'"
            )
        input_ids = torch.tensor([list(ids)], device=model.device)
        return prefill(model, input_ids, deepest, progress=progress, make_room=make_room)

    def lead(self, instruction: Prefix) -> Prefix:
        """See `DocumentwiseLayout.lead`."""
        return instruction if not instruction.values else self._kept(dict(enumerate(instruction.keys)))

    def around(self, prompt: IndependentPrompt) -> int:
        """See `DocumentwiseLayout.around`."""
        return prompt.instruction + len(self._trailing)

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
        """See `DocumentwiseLayout.encode`."""
        if not facts_of(model).sees_ahead:
            states = encode(model, instruction, documents, length, rows, deepest)
            return {key: self._kept(dict(enumerate(whole.keys))).copied() for key, whole in states.items()}
        before = prompt.ids[: prompt.instruction]
        texts = [[*before, *ids, *self._trailing] for ids in documents.values()]
        found = record_texts(model, texts, length + self.around(prompt), rows, self._heads)
        return {
            key: self._kept(
                {layer: one.key[row : row + 1, :, len(before) : len(before) + len(ids)] for layer, one in found.items()}
            ).copied()
            for row, (key, ids) in enumerate(documents.items())
        }

    def _kept(self, keys: Mapping[int, Tensor]) -> Prefix:
        return kept_keys(keys, self._heads, self._all_heads)
