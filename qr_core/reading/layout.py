"""Layout: what a reader needs to know of how documents stand in a prompt, joint or independent.

    prompts   how queries and documents become tokens
    begin     how the documents of a prompt become one prefix, from what is kept or encoded now
    order     where in the prompt each token of that prefix stands

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from qr_core.attention import memory
from qr_core.attention.chunks import suffixes_at_once
from qr_core.attention.prefix import Prefix
from qr_core.attention.quantized import QuantizedPrefix
from qr_core.attention.query_pass import Placement, query_passes
from qr_core.cache.reads import ReadCache, make_room
from qr_core.model.shared import SharedModel
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel


Heads = Mapping[int, Sequence[int]]
"""For each layer, in ascending order, the heads that are read."""


@dataclass(frozen=True)
class Begun:
    """Documents of a prompt, encoded.

    Attributes
    ----------
    key : hashable
        Names what they were encoded of; equal keys, equal prefixes.
    key_bytes : int
        Memory that the key takes.
    prefix : Prefix or QuantizedPrefix
    placement : Placement or None
        Positions, where they are not those of places in memory.
    back : Tensor or None
        Int64, shape (prefix tokens,): from the order of the prefix to that of the prompt; None where they are the same.
    """

    key: tuple[Hashable, ...]
    key_bytes: int
    prefix: Prefix | QuantizedPrefix
    placement: Placement | None = None
    back: Tensor | None = None

    def turned(self, mass: Tensor) -> Tensor:
        """Mass of shape (heads, prefix tokens), with its tokens in the order of the prompt."""
        return mass if self.back is None else mass[:, self.back]


class PromptLayout(Protocol):
    """One way to lay documents out.

    Attributes
    ----------
    remedy : str
        What to do, besides choosing other heads, when a sliding window is too short; `{window}` stands for it.
    """

    remedy: str

    @property
    def prompts(self) -> PromptBuilder:
        """How queries and documents become tokens."""
        ...

    def build(self, queries: Sequence[str], documents: Sequence[Document], cache: ReadCache | None) -> list[Prompt]:
        """One prompt for each query, all over the same documents."""
        ...

    def check(self, model: PreTrainedModel, deepest: int, name: str) -> None:
        """Refuse a loaded model that cannot do this.

        Raises
        ------
        ModelLoadError
        """
        ...

    def passes(
        self, model: PreTrainedModel, begun: Begun, suffixes: Sequence[Sequence[int]], heads: Heads
    ) -> list[Tensor]:
        """Raw mass of every selected head for each suffix, float32, shape (heads, tokens of the prefix), on the CPU."""
        ...

    def begin(
        self,
        shared: SharedModel,
        prompt: Prompt,
        regime: Hashable,
        deepest: int,
        cache: ReadCache | None,
        progress: Told | None,
    ) -> Begun:
        """The prompt's documents, encoded up to layer `deepest`; the caller holds the model's lock and RoPE regime."""
        ...


def continue_prefix(
    model: PreTrainedModel, begun: Begun, suffixes: Sequence[Sequence[int]], heads: Heads, packs: bool
) -> list[Tensor]:
    """`PromptLayout.passes` of layouts whose queries continue the prefix, in every layer.

    Parameters
    ----------
    packs : bool
        Whether queries may share a pass.
    """
    prefix, most = begun.prefix, 1
    if packs:
        most = suffixes_at_once(model, prefix, sum(map(len, heads.values())), max(map(len, suffixes)))

    def run(at_once: int) -> list[Tensor]:
        masses: list[Tensor] = []
        for start in range(0, len(suffixes), at_once):
            masses += query_passes(model, prefix, suffixes[start : start + at_once], heads, begun.placement)
        return masses

    return memory.in_pieces(run, min(most, len(suffixes)), 1, f"queries over {prefix.length} tokens", make_room)
