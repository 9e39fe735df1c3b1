"""Protocol: what a reader is to all that uses one, whatever engine runs the model.

Knows nothing of how attention is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from qr_core.cache.reads import ReadCache
from qr_core.heads.sets import HeadSet
from qr_core.prompts.prompt import Asked, Prompt
from qr_core.types import Document

Told = Callable[[int], None]
"""Called with how many tokens were encoded, or found as they are."""


@dataclass(frozen=True)
class Reading:
    """Attention mass per head and token, before anything is subtracted.

    Attributes
    ----------
    raw : Tensor
        Float32, shape (heads, tokens before the query); heads by layer, then head, each once. What the query pays.
    references : tuple of Tensor
        Same shape each: what each content-free query pays. Empty where there is none.
    prompt : Prompt
        Says where documents and their parts stand.
    """

    raw: Tensor
    references: tuple[Tensor, ...]
    prompt: Prompt


class Reader(Protocol):
    """Says what the selected heads of one model pay documents that fit one prompt."""

    @property
    def name(self) -> str:
        """The model's, for errors."""
        ...

    @property
    def heads(self) -> HeadSet:
        """The heads that are read."""
        ...

    @property
    def windows(self) -> Mapping[int, int]:
        """How far back each layer looks that has a sliding window."""
        ...

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most."""
        ...

    def build(
        self,
        query: str,
        documents: Sequence[Document],
        references: Sequence[str] = (),
        cache: ReadCache | None = None,
    ) -> Asked:
        """The prompts of a query, and of content-free ones, over `documents`, in prompt order.

        Parameters
        ----------
        references : sequence of str
            Left out where one of them makes the very prompt of the query.
        cache : ReadCache, optional
            Keeps the documents' tokens for further queries.
        """
        ...

    def read_many(
        self, asked: Sequence[Asked], cache: ReadCache | None = None, progress: Told | None = None
    ) -> list[Reading]:
        """What every selected head pays every token before the query, in the order of `asked`.

        Queries over the same documents share a pass over them where memory allows and it changes no more than rounding.

        Parameters
        ----------
        asked : sequence of Asked
            From `build`.
        cache : ReadCache, optional
            What was encoded is looked up there, and left there.
        progress : callable, optional
            Told how many tokens of the documents were encoded, or found.

        Raises
        ------
        InputError
            When a selected head's layer has a sliding window shorter than the prompt.
        ModelLoadError
            When weights cannot be loaded, or attention cannot be read.
        NonFiniteError
            When the model's attention is NaN or infinite.
        MemoryLimitError
            When memory is short, in small pieces too.
        """
        ...
