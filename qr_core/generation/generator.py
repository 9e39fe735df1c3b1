"""Generator: what every generator can do, wherever its model runs."""

from __future__ import annotations

from typing import Any, Protocol

MAX_NEW_TOKENS = 256
"""Of an answer, where the caller says nothing."""


class Generator(Protocol):
    """Anything that continues a message with an answer."""

    @property
    def name(self) -> str:
        """What answered, for the record."""

    @property
    def tokenizer(self) -> Any:
        """What a token budget is counted with; None for the scorer's."""

    def generate(self, message: str, max_new_tokens: int) -> str:
        """The answer to one user message.

        Raises
        ------
        GenerationError, ContextLengthError
        """
