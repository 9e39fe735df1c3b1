"""Stages: what a survey asks of a scorer, for a query over documents that fit one prompt.

Knows nothing of what becomes of the masses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qr_core.cache.reads import ReadCache
from qr_core.prompts.prompt import Asked
from qr_core.ranking.calibration import TokenMasses
from qr_core.reading.protocol import Told
from qr_core.types import Document


class Stages(Protocol):
    """From a query and documents that fit one prompt to calibrated masses."""

    @property
    def calibrate(self) -> bool:
        """Whether masses are calibrated, as a rule."""
        ...

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most."""
        ...

    def prompt(self, query: str, documents: Sequence[Document], cache: ReadCache | None = None) -> Asked:
        """Prompt: text becomes token ids, with the token span of every document and of the query."""
        ...

    def masses(
        self, asked: Sequence[Asked], cache: ReadCache | None = None, progress: Told | None = None
    ) -> list[TokenMasses]:
        """Prefill, query pass, calibrate."""
        ...
