"""Joint prompt: a query and all documents in one text, with the token span of every document and of the query.

Spans come from construction, never from searching the text. The whole prompt is tokenised at once, as the model would
see it.

Knows nothing of models, heads or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from qr_core.checks import encodable
from qr_core.errors import InputError
from qr_core.prompts.prompt import Prompt
from qr_core.prompts.templates import Template
from qr_core.prompts.tokens import Text, Tokeniser, Tokens
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Composed(Text):
    """The prompt as one string, and character positions in it.

    Attributes
    ----------
    documents : list of (int, int)
        Number, title and text of each.
    text_starts : list of int
        Where each document's text begins.
    late : int
        Where the late instruction begins.
    """

    documents: list[tuple[int, int]]
    text_starts: list[int]
    late: int


class PromptBuilder:
    """Builds prompts for one tokenizer and template.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer: spans need character offsets.
    template : Template

    Raises
    ------
    ModelLoadError
        When the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        self.template = template
        self.tokens = Tokeniser(tokenizer, template.adds_bos)

    def build(self, queries: Sequence[str], documents: Sequence[Document]) -> list[Prompt]:
        """One prompt per query over the same `documents`, in the order given; all share the tokens before the query.

        Lone surrogates, which no tokenizer accepts, become U+FFFD.

        Raises
        ------
        InputError
            When the tokens before the query differ between queries, because the tokenizer merges them with the query.
        """
        texts = [self.compose(query, documents) for query in queries]
        encoded = [self.tokens.encode(text.string) for text in texts]
        guarded = any(self.tokens.offenders(tokens, text).size for tokens, text in zip(encoded, texts, strict=True))
        if guarded:
            encoded = [self.tokens.encode_guarded(text) for text in texts]
        prompts = [
            replace(self._place(tokens, text), guarded=guarded) for tokens, text in zip(encoded, texts, strict=True)
        ]
        if len({prompt.ids[: prompt.query_start] for prompt in prompts}) > 1:
            raise InputError("this tokenizer makes the documents' tokens depend on the query: it is not supported")
        return prompts

    def wrap(self, data: str) -> list[int]:
        """Ids of the template's prefix, `data` and suffix alone; `data` becomes no control token."""
        return self.wrap_part(data, 0, 0)[0]

    def wrap_part(self, data: str, start: int, end: int) -> tuple[list[int], tuple[int, int]]:
        """As `wrap`, and the half-open token span of `data[start:end]`."""
        string = f"{self.template.prefix}{encodable(data)}{self.template.suffix}"
        body = (len(self.template.prefix), len(self.template.prefix) + len(data))
        text = Text(string, body, [body])
        tokens = self.tokens.encode(string)
        if self.tokens.offenders(tokens, text).size:
            tokens = self.tokens.encode_guarded(text)
        first = int(np.searchsorted(tokens.ends, body[0] + start, side="right"))
        last = int(np.searchsorted(tokens.starts, body[0] + end, side="left"))
        shift = len(self.tokens.leading)
        return [*self.tokens.leading, *tokens.ids.tolist()], (first + shift, max(first, last) + shift)

    def _place(self, tokens: Tokens, text: Composed) -> Prompt:
        """Turn character spans into token spans; a token shared with what follows a document is the document's."""
        spans = []
        free = 0
        for start, end in text.documents:
            first = max(free, int(np.searchsorted(tokens.ends, start, side="right")))
            free = max(first, int(np.searchsorted(tokens.starts, end, side="left")))
            spans.append((first, free))
        query_start = max(free, int(np.searchsorted(tokens.ends, text.late, side="right")))
        shift = len(self.tokens.leading)
        nowhere = np.zeros(shift, dtype=np.int64)
        return Prompt(
            ids=(*self.tokens.leading, *tokens.ids.tolist()),
            document_spans=tuple((start + shift, end + shift) for start, end in spans),
            query_start=query_start + shift,
            starts=np.concatenate([nowhere, tokens.starts]),
            ends=np.concatenate([nowhere, tokens.ends]),
            text_starts=tuple(text.text_starts),
        )

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most: number, title, text and separator."""
        found = []
        for number, document in enumerate(documents, start=1):  # one by one: batches start threads, which forks break
            title = "" if document.title is None else f"{document.title}\n"
            piece = encodable(f"{self.template.separator}[{number}] {title}{document.text}")
            found.append(self.tokens.count(piece) + 1)  # the one that a neighbour might not share here
        return found

    def compose(self, query: str, documents: Sequence[Document]) -> Composed:
        """The prompt as one string, before it is tokenised."""
        template = self.template
        pieces = [template.prefix, template.introduction]
        length = sum(map(len, pieces))
        spans: list[tuple[int, int]] = []
        data: list[tuple[int, int]] = []
        text_starts = []

        def add(piece: str) -> None:
            nonlocal length
            pieces.append(piece)
            length += len(piece)

        for number, document in enumerate(documents, start=1):
            add(template.separator)
            start = length
            add(f"[{number}] ")
            begin = length
            if document.title is not None:
                add(encodable(f"{document.title}\n"))
            text_starts.append(length)
            add(encodable(document.text))
            data.append((begin, length))
            spans.append((start, length))
        add(template.separator)
        late = length
        add(f"{template.late_instruction}{template.separator}{template.query_label} ")
        begin = length
        add(encodable(query))
        data.append((begin, length))
        body = (len(template.prefix), length)
        add(template.suffix)
        return Composed("".join(pieces), body, data, spans, text_starts, late)
