"""Answer: the selected parts of a context, the question after them, and what a generator makes of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qr_core.generation.generator import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qr_core.generation.generator import Generator
    from qr_core.scorer import QRScorer
    from qr_core.text.counting import CallersCount
    from qr_core.types import DocumentLike, Pruned

INSTRUCTION = "Answer the question from the text. If the text does not say, say so."
MAX_TOKENS = 2048
"""Of the context, where the caller says nothing."""


@dataclass(frozen=True)
class Answer:
    """An answer and what it was made from."""

    query: str
    text: str
    generator: str
    pruned: Pruned

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"query": self.query, "answer": self.text, "generator": self.generator, "context": self.pruned.to_dict()}


def ask(
    scorer: QRScorer,
    query: str,
    documents: str | Iterable[DocumentLike],
    generator: Generator,
    *,
    max_tokens: int | None = MAX_TOKENS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    tokenizer: CallersCount | None = None,
    **options: Any,
) -> Answer:
    """Prune `documents` for `query`, then let `generator` answer from what is left (QRHead, section 4).

    Parameters
    ----------
    scorer : QRScorer
    query, documents
        As for `QRScorer.prune`.
    generator : Generator
    max_tokens : int or None
        Of the context that the generator reads, counted with `tokenizer`, or the generator's, or the scorer's.
    max_new_tokens : int
        Of the answer.
    options
        Further options of `QRScorer.prune`.

    Raises
    ------
    GenerationError
        When the generator cannot answer.
    InputError, ContextLengthError, NonFiniteError
        As for `QRScorer.prune`.
    """
    pruned = scorer.prune(
        query, documents, max_tokens=max_tokens, tokenizer=tokenizer or generator.tokenizer, **options
    )
    message = f"{INSTRUCTION}\n\n{pruned.text}\n\nQuestion: {query}"
    return Answer(query, generator.generate(message, max_new_tokens), generator.name, pruned)
