"""Independent prompt: instruction, documents and query tokenised on their own, each document as if it were alone.

A document's tokens depend on nothing but its own title and text, so that its keys and values can be kept and used again
beside any others. It carries no number and stands at the positions that follow the instruction, as all others do; the
query stands at those that follow the longest document.

    positions   0 ........ i ............... i + longest ........... reach
                instruction  document 1 ..     query
                             document 2 ......
                             document 3 .

Documents are aligned at their start: aligned at their end, a document's positions would depend on the longest one.

Knows nothing of models, heads or scores. Parallel context windows (arXiv 2212.10947) and BlockRank (arXiv 2510.05396)
lay prompts out like this.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qr_core.checks import encodable
from qr_core.partition import Remembered
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.prompts.templates import Template
from qr_core.prompts.tokens import Tokens, joined
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


KNOWN_BYTES = 32 * 2**20
KNOWN_CHARACTERS = 2000
"""Documents whose tokens are remembered: what they take at most, none with more characters than that."""


@dataclass(frozen=True)
class IndependentPrompt(Prompt):
    """A prompt whose documents do not see each other; ids are those of instruction, documents and query in a row.

    A document without a token of its own has an empty span in `document_spans`.

    Attributes
    ----------
    instruction : int
        Tokens of template prefix and introduction.
    parts : tuple of (int, int)
        Token span of each document and the separator after it, one after the other up to `query_start`.
    behind : int or None
        Where every text is encoded alone, in a frame: how many tokens stand behind each. Positions are those of one
        document then, and a query may be encoded in several parts.
    """

    instruction: int = 0
    parts: tuple[tuple[int, int], ...] = ()
    behind: int | None = None

    def part(self, number: int) -> tuple[int, ...]:
        """Token ids of a document and the separator after it."""
        start, end = self.parts[number]
        return self.ids[start:end]

    @property
    def query_position(self) -> int:
        """Where the query begins: after the longest document."""
        return self.instruction + max((end - start for start, end in self.parts), default=0)

    @property
    def reach(self) -> int:
        """How many positions the prompt takes."""
        if self.behind is not None:
            return self.query_position + self.behind
        return self.query_position + len(self.ids) - self.query_start

    def positions(self) -> NDArray[np.int64]:
        """Position of every token, shape (tokens,)."""
        query = len(self.ids) - self.query_start
        starts = [0, *(self.instruction for _ in self.parts), self.query_position]
        lengths = [self.instruction, *(end - start for start, end in self.parts), query]
        return np.concatenate([s + np.arange(n) for s, n in zip(starts, lengths, strict=True)])


class IndependentPromptBuilder(PromptBuilder):
    """Builds independent prompts for one tokenizer and template; parameters and errors are those of `PromptBuilder`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        super().__init__(tokenizer, template)
        self._first = f"{template.prefix}{template.introduction}{template.separator}"
        self._first_tokens = self.tokens.encode(self._first)
        self._known: Remembered[Tokens] = Remembered(KNOWN_BYTES, _bytes)

    def build(self, queries: Sequence[str], documents: Sequence[Document]) -> list[Prompt]:
        """One prompt per query over the same `documents`, in the order given; all share the tokens before the query.

        Lone surrogates, which no tokenizer accepts, become U+FFFD.
        """
        instruction = len(self.tokens.leading) + len(self._first_tokens.ids)
        nowhere = np.zeros(len(self.tokens.leading), dtype=np.int64)
        runs = [Tokens(np.asarray(self.tokens.leading, dtype=np.int64), nowhere, nowhere), self._first_tokens]
        spans, parts, text_starts = [], [], []
        free, place = instruction, len(self._first)
        for document in documents:
            before = _heading(document)
            piece, tokens = self._document(document)
            own = len(piece) - len(self.template.separator)
            end = free + len(tokens.ids)
            spans.append((free, free + int(np.searchsorted(tokens.starts, own, side="left"))))
            parts.append((free, end))
            text_starts.append(place + len(before))
            runs.append(tokens.moved(place))
            free, place = end, place + len(piece)
        prompts: list[Prompt] = []
        for query in queries:
            all_tokens = joined([*runs, self._query(query).moved(place)])
            prompts.append(
                IndependentPrompt(
                    ids=tuple(all_tokens.ids.tolist()),
                    document_spans=tuple(spans),
                    query_start=free,
                    starts=all_tokens.starts,
                    ends=all_tokens.ends,
                    text_starts=tuple(text_starts),
                    instruction=instruction,
                    parts=tuple(parts),
                )
            )
        return prompts

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt: title, text and separator."""
        return [len(self._document(document)[1].ids) for document in documents]

    def _document(self, document: Document) -> tuple[str, Tokens]:
        """A document and its separator, as text and as tokens."""
        piece = f"{_heading(document)}{encodable(document.text)}{self.template.separator}"
        if len(piece) > KNOWN_CHARACTERS:
            return piece, self.tokens.encode_data(piece)
        return piece, self._known.get(piece, lambda: self.tokens.encode_data(piece))

    def _query(self, query: str) -> Tokens:
        """Late instruction, query and the template's suffix; only the suffix may hold control tokens."""
        suffix = self.template.suffix
        alone = self.tokens.encode(suffix)
        controls = np.flatnonzero(np.isin(alone.ids, list(self.tokens.control_ids)))
        cut = int(alone.starts[controls[0]]) if controls.size else len(suffix)  # text before it continues the query
        ask = f"{self.template.late_instruction}{self.template.separator}{self.template.query_label}"
        body = f"{ask} {encodable(query)}{suffix[:cut]}"
        return joined([self.tokens.encode_data(body), self.tokens.encode(suffix[cut:]).moved(len(body))])


def _bytes(piece: Hashable, tokens: Tokens) -> int:
    return sys.getsizeof(piece) + tokens.ids.nbytes + tokens.starts.nbytes + tokens.ends.nbytes


def _heading(document: Document) -> str:
    return "" if document.title is None else encodable(f"{document.title}\n")
