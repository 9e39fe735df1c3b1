"""Prompt: token ids and where things stand in them; and a query's prompt with those of its content-free queries.

Knows nothing of how prompts are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prompt:
    """Token ids and where things stand in them; positions count from 0, ends are exclusive.

    Attributes
    ----------
    ids : tuple of int
    document_spans : tuple of (int, int)
        For each document, in prompt order, its number, title and text. Never empty, never overlapping.
    query_start : int
        First token of the late instruction. From here to the end are the query's tokens (QRHead, section 3).
    starts, ends : NDArray
        Int64, shape (tokens,): the characters of each token in the prompt's string.
    text_starts : tuple of int
        For each document, where its text (after number and title) begins in the prompt's string.
    guarded : bool
        Whether it was tokenised with control tokens switched off, because a caller's text spelled one.
    """

    ids: tuple[int, ...]
    document_spans: tuple[tuple[int, int], ...]
    query_start: int
    starts: NDArray[np.int64] = field(repr=False, compare=False)
    ends: NDArray[np.int64] = field(repr=False, compare=False)
    text_starts: tuple[int, ...] = field(repr=False, compare=False)
    guarded: bool = field(default=False, repr=False, compare=False)

    @property
    def before(self) -> tuple[int, ...]:
        """Token ids before the query's."""
        return self.ids[: self.query_start]

    @property
    def suffix(self) -> tuple[int, ...]:
        """The query's token ids: late instruction, query and what the template puts behind."""
        return self.ids[self.query_start :]

    @property
    def reach(self) -> int:
        """How many positions the prompt takes: one for each token."""
        return len(self.ids)

    def overflow(self, limit: int | None, context: int | None) -> int:
        """How many tokens it is over `limit`, or positions over `context`; 0 when it fits both."""
        over = [0] if limit is None else [0, len(self.ids) - limit]
        return max(over if context is None else [*over, self.reach - context])

    def part_spans(self, document: int, parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Token spans of parts of one document's text.

        Parameters
        ----------
        document : int
            Its place in the prompt.
        parts : sequence of (start, end)
            Half-open character positions in its text, ascending, without overlap.

        Returns
        -------
        list of (int, int)
            A token that two parts share is the first one's; a part without a token of its own has an empty span.
        """
        base = self.text_starts[document]
        free, last = self.document_spans[document]
        spans = []
        for start, end in parts:
            first = max(free, int(np.searchsorted(self.ends[:last], base + start, side="right")))
            free = max(first, int(np.searchsorted(self.starts[:last], base + end, side="left")))
            spans.append((first, free))
        return spans


@dataclass(frozen=True)
class Asked:
    """What is asked of the same documents: a query, and the content-free queries that its calibration needs.

    Attributes
    ----------
    query : Prompt
    references : tuple of Prompt
        They share the tokens before the query. None where nothing is calibrated, or the query is itself one of them.
    """

    query: Prompt
    references: tuple[Prompt, ...] = ()

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All of them."""
        return (self.query, *self.references)

    @property
    def tokens(self) -> int:
        """Token ids of the longest."""
        return max(len(prompt.ids) for prompt in self.prompts)

    @property
    def reach(self) -> int:
        """Positions of the longest."""
        return max(prompt.reach for prompt in self.prompts)

    def overflow(self, limit: int | None, context: int | None) -> int:
        """How many tokens the longest is over `limit`, or positions over `context`."""
        return max(prompt.overflow(limit, context) for prompt in self.prompts)
