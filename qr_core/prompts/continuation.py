"""Continuation: the prompt of a further query over documents that were tokenised before.

Tokenising is local: what a query changes lies near the query, and between it and the last document stands the late
instruction, always the same. So the end of the documents is tokenised again, with the new query, and joined to the old
tokens where both agree: over the last of the documents' tokens and all of the late instruction. Where they do not
agree, or a text spells a control token, there is no continuation, and the prompt must be built whole.

Knows nothing of models or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.types import Document

AGREEING = 64
"""Tokens before the query's part that must come out the same again."""
OVERLAP = 2 * AGREEING
"""Tokens before the query's part that are tokenised again; the first ones may differ, for want of what stood before."""


def continued(builder: PromptBuilder, known: Prompt, query: str, documents: Sequence[Document]) -> Prompt | None:
    """The prompt for `query`, equal to the one that `builder` makes of it and `documents`.

    Parameters
    ----------
    known : Prompt
        The builder's for another query over the same documents.

    Returns
    -------
    Prompt or None
        None when only a whole build can tell.
    """
    again = known.query_start - OVERLAP
    if known.guarded or again < 1:
        return None
    text = builder.compose(query, documents)
    at = int(known.starts[again])
    tail = builder.tokens.encode(text.string[at:]).moved(at)

    first = int(np.searchsorted(known.starts, known.starts[known.query_start - AGREEING], side="left"))
    stop = int(np.searchsorted(known.ends, text.late + len(builder.template.late_instruction), side="right"))
    begin = int(np.searchsorted(tail.starts, known.starts[first], side="left"))
    end = begin + stop - first
    if tuple(tail.ids[begin:end]) != known.ids[first:stop] or not (
        np.array_equal(tail.starts[begin:end], known.starts[first:stop])
        and np.array_equal(tail.ends[begin:end], known.ends[first:stop])
    ):
        return None
    if builder.tokens.offenders(tail, text).size:
        return None
    return replace(
        known,
        ids=(*known.ids[:stop], *tail.ids[end:].tolist()),
        starts=np.concatenate([known.starts[:stop], tail.starts[end:]]),
        ends=np.concatenate([known.ends[:stop], tail.ends[end:]]),
    )


@dataclass(frozen=True)
class KnownPrompts:
    """Prompts over some documents, to be continued with other queries.

    Attributes
    ----------
    known : dict of str to Prompt
        By query; any of them can be continued.
    """

    known: dict[str, Prompt]

    @property
    def bytes(self) -> int:
        """Memory that ids and offsets take."""
        return sum(_bytes(prompt) for prompt in self.known.values())

    def ask(self, builder: PromptBuilder, query: str, documents: Sequence[Document]) -> Prompt | None:
        """The prompt for `query`; None when only a whole build can tell."""
        if query in self.known:
            return self.known[query]
        return continued(builder, next(iter(self.known.values())), query, documents)


def _bytes(prompt: Prompt) -> int:
    arrays: tuple[NDArray[np.int64], ...] = (prompt.starts, prompt.ends)
    ids = 36 * len(prompt.ids)  # a pointer and an int each
    return ids + sum(array.nbytes for array in arrays) + 72 * len(prompt.document_spans)
