"""BM25, as a baseline and to find candidates: English stop words removed, Snowball stemmer, title and text joined.

bm25s in Lucene's form, k1 1.2, b 0.75.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry, Ranker
from qr_core.evaluation.work import CandidateSet
from qr_core.types import Document


def library() -> Any:
    """The module bm25s. It uses JAX where that is installed, which would take most of a GPU's memory from torch."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import bm25s

    return bm25s


class Bm25:
    """An index over some documents.

    Parameters
    ----------
    documents : sequence of Document
        Word statistics are theirs alone.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        import Stemmer

        bm25s = library()
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for every debug line
        self._tokenize, self._stemmer = bm25s.tokenize, Stemmer.Stemmer("english")
        self._count = len(documents)
        words = self._words([f"{document.title or ''} {document.text}" for document in documents])
        self._index: Any = None
        if any(words):
            self._index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
            self._index.index(words, show_progress=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_stemmer"}  # which cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        import Stemmer

        vars(self).update(state, _stemmer=Stemmer.Stemmer("english"))

    def _words(self, texts: list[str]) -> list[list[str]]:
        found = self._tokenize(texts, stopwords="en", stemmer=self._stemmer, return_ids=False, show_progress=False)
        return [list(words) for words in found]

    def scores(self, query: str) -> list[float]:
        """A score for each document, in their order; 0 without a word in common."""
        return [float(score) for score in self.array(query)]

    def array(self, query: str) -> NDArray[np.float32]:
        """The same as an array."""
        known = [w for w in self._words([query])[0] if w in self._index.vocab_dict] if self._index is not None else []
        return self._index.get_scores(known) if known else np.zeros(self._count, np.float32)


def bm25_ranker(whole: bool = False) -> Ranker:
    """Rank with an index over each group of candidates; it is made again only when they change.

    Parameters
    ----------
    whole : bool
        Word statistics come from the whole collection where it is known, not from the candidates alone.
    """
    indexed: tuple[Document, ...] = ()
    index = Bm25(indexed)
    places: dict[int, int] = {}

    def rank(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        nonlocal indexed, index, places
        documents = sets[0].documents
        wanted = (whole and sets[0].collection) or documents
        if wanted is not indexed:
            indexed, index = wanted, Bm25(wanted)
            places = {id(document): place for place, document in enumerate(wanted)}
        for candidates in sets:
            scores = index.scores(candidates.query)
            yield [scores[places[id(document)]] for document in documents]

    return rank


def bm25_entries(options: EvaluationOptions) -> list[Entry]:
    """The one entry."""
    whole = options.systems.bm25_whole
    about = f"BM25, k1 1.2, b 0.75, statistics from {'the whole collection' if whole else 'the candidates'}"
    return [Entry("bm25", {"model": about}, lambda: bm25_ranker(whole))]
