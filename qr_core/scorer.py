"""Scorer: rank documents, or prune them, by where the query-focused heads of a language model look.

    query + documents -> survey of segments, each: prompt -> prefill -> query pass -> calibrate -> aggregate
                      -> Ranking or Pruned

Each stage is a module of its own; this one puts them in a row, checks what callers hand in and shapes what they get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from qr_core.assembly import Assembly
from qr_core.cache.reads import ReadCache
from qr_core.checks import check_one_of, check_whole_number, checked_jobs, checked_query
from qr_core.explain.explanation import MOST_DOCUMENTS, Explanation, explain
from qr_core.options import PruneOptions
from qr_core.partition import in_this_context
from qr_core.prompts.prompt import Asked
from qr_core.ranking.calibration import TokenMasses
from qr_core.ranking.fusion import joined
from qr_core.ranking.survey import Progress, Result, SurveyInput, survey_each
from qr_core.ranking.units import divide
from qr_core.reading.protocol import Told
from qr_core.text import pruning
from qr_core.text.counting import counter
from qr_core.text.pieces import Piece, whole_documents
from qr_core.types import Document, DocumentLike, Hit, Order, Pruned, Ranking

T = TypeVar("T")


class QRScorer(Assembly):
    """Ranks and prunes documents with one model, one head set and one template. Make it with `from_pretrained`.

    Safe to share between threads and tasks: requests take turns. Weights load at the first request that needs them.

    Examples
    --------
    >>> from qr_core import QRScorer
    >>> scorer = QRScorer.from_pretrained()
    >>> ranking = scorer.rank(
    ...     "How long does a refund take?",
    ...     ["Our office is closed on public holidays.", "Refunds reach your card within five working days."],
    ... )
    >>> ranking[0].index
    1
    """

    # The stages, for what fits one prompt. A survey calls them for every segment and aggregates what they give.

    def prompt(self, query: str, documents: Sequence[Document], cache: ReadCache | None = None) -> Asked:
        """Prompt: text becomes token ids, with the token span of every document and of the query."""
        return self.reader.build(query, documents, self.calibration.references, cache)

    def masses(
        self, asked: Sequence[Asked], cache: ReadCache | None = None, progress: Told | None = None
    ) -> list[TokenMasses]:
        """Prefill, query pass, calibrate: what every selected head pays every token before the query.

        Divided by its document's length where the head set says so (`HeadSet.length_exponent`).

        Raises
        ------
        InputError, NonFiniteError, ModelLoadError, MemoryLimitError
            As for `Reader.read_many`.
        """
        found = (self.calibration(reading) for reading in self.reader.read_many(asked, cache, progress))
        return [masses.by_length(self.heads.length_exponent) for masses in found]

    def token_masses(self, query: str, documents: Sequence[Document], cache: ReadCache | None = None) -> TokenMasses:
        """`masses` of one query over documents in one prompt; there is at least one document."""
        return self.masses([self.prompt(query, documents, cache)], cache)[0]

    def _survey(
        self,
        queries: Sequence[str],
        documents: Sequence[Document],
        pieces: Sequence[Piece],
        units: Sequence[Piece],
        order: Order,
        cache: ReadCache | None,
        progress: Progress | None,
    ) -> Iterator[Result]:
        given = SurveyInput(
            documents,
            self.parts(documents, pieces),
            units,
            self.limit,
            self._context,
            order,
            self.filter_tokens,
            self.passage_tokens is not None,
            self.model_name,
        )
        return survey_each(self, queries, given, cache, progress)

    # What callers want.

    def rank(
        self,
        query: str,
        documents: Iterable[DocumentLike],
        *,
        top_k: int | None = None,
        order: Order = "given",
        progress: Progress | None = None,
    ) -> Ranking:
        """Rank `documents` by their relevance to `query`.

        Parameters
        ----------
        query : str
        documents : iterable of str, Document or mapping
            Mappings have `text` and, if they like, `title` and `id`. They share one prompt, or as many segments as
            they need (see `Hit.round`). With a `retrieval_weight` their order counts: the most promising comes first.
        top_k : int, optional
            Return at most this many of the best; all by default.
        order : str
            `given` puts the documents into the prompt as they come; `reversed` puts the first one nearest the query,
            as the paper does with retrieved lists, whose first is the most promising. Without effect on the scores of
            the independent and the late layout.
        progress : callable, optional
            Called with the tokens encoded so far and about how many there will be.

        Returns
        -------
        Ranking
            Best first. Without documents it is empty, and no weights are loaded.

        Raises
        ------
        InputError
            When the query is empty or not a string, or a document is not usable.
        ContextLengthError
            When the query alone is too long for the model.
        NonFiniteError
            When the model's attention is NaN or infinite.
        """
        return self.rank_many([(query, documents)], top_k=top_k, order=order, progress=progress)[0]

    def rank_many(
        self,
        jobs: Iterable[tuple[str, Iterable[DocumentLike]]],
        *,
        top_k: int | None = None,
        order: Order = "given",
        progress: Progress | None = None,
    ) -> list[Ranking]:
        """Rank several (query, documents) jobs.

        The documents of consecutive jobs with the same ones are encoded once, and several queries share a pass over
        them, with or without a cache. Scores are those of `rank`, up to rounding.

        Parameters and errors are those of `rank`. All jobs are checked before the first one runs.
        """
        return list(self.rank_each(jobs, top_k=top_k, order=order, progress=progress))

    def rank_each(
        self,
        jobs: Iterable[tuple[str, Iterable[DocumentLike]]],
        *,
        top_k: int | None = None,
        order: Order = "given",
        progress: Progress | None = None,
    ) -> Iterator[Ranking]:
        """`rank_many`, with each ranking handed out soon after it is made: those that share a pass come together.

        The cache partition is the one in which this is called, wherever the rankings are taken.
        """
        check_whole_number("top_k", top_k)
        check_one_of("order", order, Order)
        return in_this_context(self._rank_each(checked_jobs(jobs), top_k, order, progress))

    def _rank_each(
        self, jobs: list[tuple[str, list[Document]]], top_k: int | None, order: Order, progress: Progress | None
    ) -> Iterator[Ranking]:
        for documents, group in groupby(jobs, lambda job: job[1]):
            queries = [query for query, _ in group]
            whole = whole_documents(documents)
            # However large, what was encoded lasts as long as the call.
            cache = ReadCache(behind=self.cache) if len(queries) > 1 else self.cache
            surveys = self._survey(queries, documents, whole, whole, order, cache, progress)
            for query, found in zip(queries, surveys, strict=True):
                yield self._ranking(query, documents, found, top_k)

    def _ranking(self, query: str, documents: Sequence[Document], found: Result, top_k: int | None) -> Ranking:
        weight = self.options.retrieval_weight
        order, relevances = joined(found.order, [own.relevance for own in found.scores], weight)
        hits = []
        for place in order[:top_k]:
            own = found.scores[place]
            hits.append(Hit(place, own.score, relevances[place], documents[place], own.round, own.segment))
        about = found.calibrated, found.segments, found.rounds, self.layout, weight
        return Ranking(query, tuple(hits), self.model_name, self.heads_name, *about)

    def prune(
        self,
        query: str,
        documents: str | Iterable[DocumentLike],
        *,
        options: PruneOptions | None = None,
        progress: Progress | None = None,
        **changes: Any,
    ) -> Pruned:
        """Keep the parts of a text, or of documents, that matter for `query`.

        Parameters
        ----------
        query : str
        documents : str, or iterable of str, Document or mapping
            One string is one text. The model is shown passages of about 100 words, unless `unit` is `document`.
        options : PruneOptions, optional
            How much to keep, and in what parts.
        progress
            As for `rank`.
        changes
            Fields of `qr_core.options.PruneOptions` by name: `max_tokens`, `unit`, ...

        Returns
        -------
        Pruned
            Every span is `original[start:end]`; spans are in document order and do not overlap. Nothing is kept, and
            no weights are loaded, when the input is blank.

        Raises
        ------
        InputError, ContextLengthError, NonFiniteError
            As for `rank`, and when nothing says how much to keep.
        TypeError
            When there is no option of a name.
        """
        how = (options or PruneOptions()).changed(**changes)
        budget = pruning.Budget(how.max_tokens, how.top_k, how.min_relevance, how.min_keep)
        rendering = pruning.Rendering(how.ellipsis, how.headings, how.titles, how.text_format == "markdown")
        count = counter(how.tokenizer, self.tokenizer)
        ranked, texts, segments = self.score_units(
            query, documents, unit=how.unit, text_format=how.text_format, order=how.order, progress=progress
        )
        spans, kept, tokens = pruning.select(texts, ranked, budget, rendering, count)
        total = pruning.whole_tokens(texts, rendering, count)
        about = tokens, total, self.model_name, self.heads_name, segments, self.layout
        return Pruned(query, tuple(kept), tuple(spans), *about)

    def score_units(
        self,
        query: str,
        documents: str | Iterable[DocumentLike],
        *,
        unit: str = "sentence",
        text_format: Any = "text",
        order: Order = "given",
        cache: ReadCache | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[pruning.Candidate], list[Document], int]:
        """Every unit of a text or of documents, best first: what `prune` chooses from.

        Parameters
        ----------
        cache : ReadCache, optional
            Keeps what was encoded, in place of the scorer's own.
        query, documents, unit, text_format, order, progress
            As for `prune`.

        Returns
        -------
        tuple of (list of Candidate, list of Document, int)
            The units, the documents that their indices count (one for a single text), and the number of segments.
        """
        query = checked_query(query)
        check_one_of("order", order, Order)
        divided = divide(documents, unit, text_format)
        cache = self.cache if cache is None else cache
        parts = divided.pieces, divided.units
        found = next(self._survey([query], divided.texts, *parts, order, cache, progress))
        return divided.candidates(found), divided.texts, found.segments

    def explain(
        self, query: str, documents: Iterable[DocumentLike], *, top_k: int = MOST_DOCUMENTS, order: Order = "given"
    ) -> Explanation:
        """Rank `documents` and say which words drew the attention; see `qr_core.explain`."""
        return explain(self, query, documents, top_k=top_k, order=order)

    async def arank(
        self, query: str, documents: Iterable[DocumentLike], *, top_k: int | None = None, order: Order = "given"
    ) -> Ranking:
        """`rank` without blocking the event loop, on this scorer's own thread."""
        return await self.run_async(self.rank, query, documents, top_k=top_k, order=order)

    async def aprune(self, query: str, documents: str | Iterable[DocumentLike], **options: Any) -> Pruned:
        """`prune` without blocking the event loop, on this scorer's own thread."""
        return await self.run_async(self.prune, query, documents, **options)

    async def run_async(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run `function` on this scorer's own thread, so that waiters do not fill the event loop's executor."""
        return await self._worker.run(function, *args, **options)
