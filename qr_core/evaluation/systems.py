"""Systems that rank a pool: attention scorers, and BM25 with statistics from the pool alone.

A system is a function from a pool to one score per document. Knows nothing of metrics or files.
"""

from __future__ import annotations

from collections.abc import Callable

from qr_core.evaluation.beir import Pool
from qr_core.scorer import QRScorer
from qr_core.types import Order

System = Callable[[Pool], list[float]]


def attention_system(scorer: QRScorer, order: Order) -> System:
    """Rank with `scorer`; `order` as in `QRScorer.rank`."""

    def run(pool: Pool) -> list[float]:
        scores = [0.0] * len(pool.documents)
        for hit in scorer.rank(pool.query, pool.documents, order=order):
            scores[hit.index] = hit.score
        return scores

    return run


def bm25_system() -> System:
    """BM25 (Lucene's form, k1 1.2, b 0.75), English stop words removed, Snowball stemmer, title and text joined."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> list[list[str]]:
        found = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
        return [list(words) for words in found]

    def run(pool: Pool) -> list[float]:
        texts = tokens([f"{document.title or ''} {document.text}" for document in pool.documents])
        if not any(texts):
            return [0.0] * len(pool.documents)
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        index.index(texts, show_progress=False)
        known = [word for word in tokens([pool.query])[0] if word in index.vocab_dict]
        return [float(s) for s in index.get_scores(known)] if known else [0.0] * len(pool.documents)

    return run
