"""Layout: what a reader needs to know of how documents stand in a prompt, joint or independent.

    prompts   how queries and documents become tokens
    begin     how the documents of a prompt become one prefix, from what is kept or encoded now
    order     where in the prompt each token of that prefix stands

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from qr_core.attention.prefix import Prefix
from qr_core.attention.quantized import QuantizedPrefix
from qr_core.attention.query_pass import Placement
from qr_core.cache.reads import ReadCache
from qr_core.model.shared import SharedModel
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    def packs(self, model: PreTrainedModel) -> bool:
        """Whether queries may share a pass."""
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
