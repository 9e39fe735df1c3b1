"""Systems that rank pools: attention scorers, BM25 with statistics from the pool alone, and dense encoders.

A system is a function from pools that share their documents to one list of scores for each. Knows nothing of metrics
or files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from qr_core.evaluation.work import Pool
from qr_core.scorer import QRScorer
from qr_core.types import Order

System = Callable[[Sequence[Pool]], Iterable[list[float]]]


def attention_system(scorer: QRScorer, order: Order, windows: int | None = None) -> System:
    """Rank with `scorer`; `order` as in `QRScorer.rank`.

    Parameters
    ----------
    windows : int, optional
        Force so many windows, by a limit on the prompt's length; 1 reads everything in one prompt.
    """

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        if windows is not None:
            total = sum(scorer.prompts.lengths(pools[0].documents))
            longest = max(len(p.ids) for p in scorer.prompts.build([pool.query for pool in pools], []))
            # A little room: windows end at document borders, so an exact share would often need one window more.
            scorer.max_prompt_tokens = None if windows == 1 else int(total / windows * 1.04) + longest
        for ranking in scorer.rank_many([(pool.query, pool.documents) for pool in pools], order=order):
            scores = [0.0] * len(ranking)
            for place, hit in enumerate(ranking):  # scores of different rounds do not compare: places do
                scores[hit.index] = hit.score if ranking.rounds == 1 else float(len(ranking) - place)
            yield scores

    return run


def bm25_system() -> System:
    """BM25 (Lucene's form, k1 1.2, b 0.75), English stop words removed, Snowball stemmer, title and text joined."""
    import bm25s
    import Stemmer

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for every debug line
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> list[list[str]]:
        found = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
        return [list(words) for words in found]

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        documents = pools[0].documents
        texts = tokens([f"{document.title or ''} {document.text}" for document in documents])
        index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        if any(texts):
            index.index(texts, show_progress=False)
        for pool in pools:
            known = [word for word in tokens([pool.query])[0] if word in index.vocab_dict] if any(texts) else []
            yield [float(s) for s in index.get_scores(known)] if known else [0.0] * len(documents)

    return run


def dense_system(model: str) -> System:
    """Cosine similarity of a sentence-transformers model's embeddings, title and text joined."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        texts = [f"{d.title}\n{d.text}" if d.title else d.text for d in pools[0].documents]
        documents = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        for pool in pools:
            query = encoder.encode([pool.query], normalize_embeddings=True, show_progress_bar=False)[0]
            yield [float(score) for score in documents @ query]

    return run
