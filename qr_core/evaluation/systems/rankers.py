"""Systems that rank pools: attention scorers, and baselines that need no language model.

A system is a function from pools that share their documents to one list of scores for each. Knows nothing of metrics
or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from qr_core.checks import encodable
from qr_core.display.wording import titled
from qr_core.errors import ModelLoadError, reason_of
from qr_core.evaluation.work import Pool
from qr_core.model.loading import pick_device
from qr_core.scorer import QRScorer
from qr_core.types import Document, Order

System = Callable[[Sequence[Pool]], Iterable[list[float]]]


def attention_system(scorer: QRScorer, order: Order, windows: int | None = None) -> System:
    """Rank with `scorer`; `order` as in `QRScorer.rank`.

    Parameters
    ----------
    windows : int, optional
        Force so many windows, by a limit on the prompt's length; 1 reads everything in one prompt.
    """

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        chosen = scorer
        if windows is not None:
            total = sum(scorer.prompts.lengths(pools[0].documents))
            longest = max(len(p.ids) for p in scorer.prompts.build([pool.query for pool in pools], []))
            # A little room: windows end at document borders, so an exact share would often need one window more.
            chosen = scorer.with_options(
                max_prompt_tokens=None if windows == 1 else int(total / windows * 1.04) + longest
            )
        for ranking in chosen.rank_each([(pool.query, pool.documents) for pool in pools], order=order):
            scores = [0.0] * len(ranking)
            for place, hit in enumerate(ranking):  # scores of different rounds do not compare: places do
                scores[hit.index] = hit.score if ranking.rounds == 1 else float(len(ranking) - place)
            yield scores

    return run


def bm25_system(whole: bool = False) -> System:
    """BM25; see `qr_core.evaluation.systems.bm25`.

    Parameters
    ----------
    whole : bool
        Word statistics come from the whole collection where it is known, not from the pool alone.
    """
    from qr_core.evaluation.systems.bm25 import Bm25

    indexed: tuple[Document, ...] = ()
    index = Bm25(indexed)
    places: dict[int, int] = {}

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        nonlocal indexed, index, places
        documents = pools[0].documents
        wanted = (whole and pools[0].collection) or documents
        if wanted is not indexed:
            indexed, index = wanted, Bm25(wanted)
            places = {id(document): place for place, document in enumerate(wanted)}
        for pool in pools:
            scores = index.scores(pool.query)
            yield [scores[places[id(document)]] for document in documents]

    return run


def given_system() -> System:
    """The candidates as they come."""

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        for pool in pools:
            yield [float(place) for place in range(len(pool.documents), 0, -1)]

    return run


def dense_system(model: str, device: str | None = None) -> System:
    """Cosine similarity of a sentence-transformers model's embeddings, title and text joined.

    Texts beyond the model's limit are cut to it. Its weights must be safetensors, and code from its repository does
    not run.

    Raises
    ------
    ModelLoadError
        When its weights cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(
            model, device=pick_device(device), trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except ModelLoadError:
        raise
    except Exception as error:  # OSError, ValueError and what else the libraries below have
        reason = reason_of(error)
        raise ModelLoadError(f"cannot load the encoder {model}: {reason}") from error

    def encoded(texts: Sequence[str]) -> Any:
        return encoder.encode(list(map(encodable, texts)), normalize_embeddings=True, show_progress_bar=False)

    def run(pools: Sequence[Pool]) -> Iterable[list[float]]:
        if not pools[0].documents:
            yield from ([] for _ in pools)
            return
        documents = encoded([titled(d.title, d.text) for d in pools[0].documents])
        for pool in pools:
            yield [float(score) for score in documents @ encoded([pool.query])[0]]

    return run
