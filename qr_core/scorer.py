"""Scorer: rank documents, or prune them, by where the query-focused heads of a language model look.

    query + documents -> survey (windows -> prompt -> prefill -> probe -> calibrate -> score) -> Ranking or Pruned

Each step is a module of its own; this one checks what callers hand in and shapes what they get back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qr_core.attention.layers import layers_of, windows_of
from qr_core.cache.documents import DocumentCache
from qr_core.cache.reads import ReadCache, cache_of, in_this_context
from qr_core.checks import check_one_of, check_whole_number, checked_jobs, checked_query
from qr_core.errors import InputError
from qr_core.explain.explanation import MOST_DOCUMENTS, Explanation, explain
from qr_core.heads.parts import HeadShape
from qr_core.heads.resolve import resolve
from qr_core.heads.sets import HeadSet
from qr_core.mini import EMBEDDED_NAME, embedded_model
from qr_core.model import loading as models
from qr_core.options import ScorerOptions
from qr_core.parallel.worker import Worker
from qr_core.prompts.independent import IndependentPromptBuilder
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template
from qr_core.ranking.survey import Context, Progress, Result, survey_each
from qr_core.ranking.units import divide
from qr_core.reading.independent import TOTAL_TOKENS, IndependentReader
from qr_core.reading.reader import Reader, TokenMasses
from qr_core.text import pruning
from qr_core.text.chunking import TextFormat
from qr_core.text.counting import CallersCount, counter
from qr_core.text.pieces import Piece, in_parts, whole_documents
from qr_core.text.pruning import Budget, Candidate, Rendering
from qr_core.types import Document, DocumentLike, Hit, Layout, Order, Pruned, Ranking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

CHANGEABLE = ("calibrate", "filter_tokens", "max_prompt_tokens", "passage_tokens")
"""Options that a scorer of the same model and heads may have otherwise."""


class QRScorer:
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

    def __init__(
        self,
        model: models.SharedModel,
        tokenizer: PreTrainedTokenizerBase,
        heads: HeadSet,
        heads_name: str,
        options: ScorerOptions,
        template: Template | None = None,
    ) -> None:
        """Of a model and heads that fit each other; see `completed` for `options`."""
        self.tokenizer = tokenizer
        self.heads = heads
        self.heads_name = heads_name
        self.options = options
        self.template = heads.prompt_template(tokenizer) if template is None else template
        self.model_name = EMBEDDED_NAME if options.model is None else str(options.model)
        self.cache = cache_of(options.cache_bytes)
        self.document_cache = _document_cache(options)
        self.reader = self._reader(model)
        self._context = models.context_length(model.config)
        self._worker = Worker()

    def _reader(self, model: models.SharedModel) -> Reader:
        about = (self.heads, bool(self.options.calibrate), self.model_name)
        if self.document_cache is None:
            together = PromptBuilder(self.tokenizer, self.template)
            return Reader(model, together, *about, self.options.quantized_cache)
        prompts = IndependentPromptBuilder(self.tokenizer, self.template)
        return IndependentReader(model, prompts, *about, self.document_cache)

    def __deepcopy__(self, memo: dict[int, Any]) -> QRScorer:
        """Itself: a scorer is made to be shared, and its weights are not copied."""
        return self

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without those that begin or end a prompt."""
        return counter(None, self.tokenizer)(text)

    @property
    def prompts(self) -> PromptBuilder:
        """Makes its prompts, and measures documents in tokens."""
        return self.reader.prompts

    @property
    def source(self) -> models.ModelSource:
        """Where its weights come from."""
        return self.reader.model.source

    @property
    def calibrate(self) -> bool:
        """Whether the mass of the content-free query is subtracted."""
        return self.reader.calibrate

    @property
    def layout(self) -> Layout:
        """`joint` or `independent`."""
        return self.options.layout or "joint"

    @property
    def filter_tokens(self) -> bool:
        """Whether each document's lowest tokens are left out."""
        return self.options.filter_tokens

    @property
    def max_prompt_tokens(self) -> int | None:
        """Most tokens of one prompt, where the caller or the head set says."""
        return self.options.max_prompt_tokens

    @property
    def passage_tokens(self) -> int | None:
        """Most tokens of a document that is encoded whole."""
        return self.options.passage_tokens

    @property
    def quantized_cache(self) -> Mapping[str, Any] | None:
        """Arguments of the quantised cache, if there is one."""
        return self.options.quantized_cache

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        heads: str | Path | HeadSet | None = None,
        *,
        options: ScorerOptions | None = None,
        **changes: Any,
    ) -> QRScorer:
        """Check config, tokenizer, heads and template of a model; its weights load at the first score.

        Parameters
        ----------
        model, heads
            See `qr_core.options.ScorerOptions`.
        options : ScorerOptions, optional
            Where everything else comes from.
        changes
            Fields of `ScorerOptions` by name, in place of those of `options`.

        Raises
        ------
        ModelLoadError
            When config or tokenizer are missing, broken or not supported.
        HeadSetError
            When no heads are known for the model, or the given ones do not belong to it.
        InputError
            When options exclude each other, or a value is out of range.
        TypeError
            When there is no option of a name.
        """
        named = {name: value for name, value in (("model", model), ("heads", heads)) if value is not None}
        return cls.from_options((options or ScorerOptions()).changed(**named, **changes))

    @classmethod
    def from_options(cls, options: ScorerOptions) -> QRScorer:
        """`from_pretrained` with one object; errors as there."""
        folder = str(embedded_model() if options.model is None else options.model)
        name = EMBEDDED_NAME if options.model is None else folder
        source = models.ModelSource.of(folder, options)
        for field in ("tp_size", "max_prompt_tokens", "passage_tokens"):
            check_whole_number(field, getattr(options, field))
        check_whole_number("cache_bytes", options.cache_bytes, least=0)
        if options.layout is not None:
            check_one_of("layout", options.layout, Layout)
        config = models.load_config(source)
        tokenizer = models.load_tokenizer(source)
        head_set, heads_name = resolve(
            options.heads,
            name,
            folder,
            options.revision,
            HeadShape.of(config),
            options.template,
            has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
            allow_model_mismatch=options.allow_model_mismatch,
            near=windows_of(layers_of(config)) if options.heads == "all" else (),
        )
        return cls(models.shared_model(source, config), tokenizer, head_set, heads_name, completed(options, head_set))

    def with_heads(self, heads: HeadSet, name: str, calibrate: bool | None = None) -> QRScorer:
        """A scorer that reads other heads of the same model, under the same template and limits."""
        changes = {} if calibrate is None else {"calibrate": calibrate}
        return self._like(heads, name, self.options.changed(**changes))

    def with_options(self, **changes: Any) -> QRScorer:
        """A scorer with the same model and heads and other limits, sharing this one's caches.

        Parameters
        ----------
        changes
            Fields of `ScorerOptions` that do not decide which model and heads are loaded: `calibrate`,
            `filter_tokens`, `max_prompt_tokens`, `passage_tokens`.

        Raises
        ------
        InputError
            When another field is named, or a value is out of range.
        """
        for name, value in changes.items():
            if name not in CHANGEABLE:
                raise InputError(f"{name} cannot be changed: use some of {', '.join(CHANGEABLE)}, or make a new scorer")
            if name.endswith("_tokens") and name != "filter_tokens":
                check_whole_number(name, value)
        return self._like(self.heads, self.heads_name, self.options.changed(**changes))

    def _like(self, heads: HeadSet, name: str, options: ScorerOptions) -> QRScorer:
        options = options.changed(document_cache=self.document_cache)
        other = QRScorer(self.reader.model, self.tokenizer, heads, name, options, self.template)
        other.cache = self.cache
        return other

    @property
    def context(self) -> int | None:
        """Most positions of one prompt; None where the model sets no limit."""
        return self._context

    @property
    def limit(self) -> int | None:
        """Most tokens of one prompt; None where neither the model nor the caller sets a limit."""
        if self.layout == "independent":
            return self.max_prompt_tokens or TOTAL_TOKENS
        return min((n for n in (self._context, self.max_prompt_tokens) if n is not None), default=None)

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
            Mappings have `text` and, if they like, `title` and `id`. They share one prompt, or as many windows as
            they need (see `Hit.round`).
        top_k : int, optional
            Return only the best so many; all by default.
        order : str
            `given` puts the documents into the prompt as they come; `reversed` puts the first one nearest the query,
            as the paper does with retrieved lists, whose first is the most promising. Without effect on the scores of
            the independent layout.
        progress : callable, optional
            Called with the tokens read so far and about how many there will be.

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

        Consecutive jobs with the same documents read them once, and their queries some at a time, with or without a
        cache. Scores are those of `rank`, up to rounding.

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
        """`rank_many`, with each ranking handed out soon after it is made: those read together come together.

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
            # However large, what was read lasts as long as the call.
            cache = ReadCache(behind=self.cache) if len(queries) > 1 else self.cache
            surveys = self._survey(queries, documents, whole, whole, order, cache, progress)
            for query, found in zip(queries, surveys, strict=True):
                yield self._ranking(query, documents, found, top_k)

    def prune(
        self,
        query: str,
        documents: str | Iterable[DocumentLike],
        *,
        max_tokens: int | None = None,
        top_k: int | None = None,
        min_relevance: float | None = None,
        min_keep: int = 0,
        unit: str = "sentence",
        text_format: TextFormat = "text",
        headings: bool = False,
        titles: bool = False,
        ellipsis: str | None = None,
        tokenizer: PreTrainedTokenizerBase | CallersCount | None = None,
        order: Order = "given",
        progress: Progress | None = None,
    ) -> Pruned:
        """Keep the parts of a text, or of documents, that matter for `query`.

        Parameters
        ----------
        query : str
        documents : str, or iterable of str, Document or mapping
            One string is one text. The model is shown passages of about 100 words, unless `unit` is `document`.
        max_tokens : int, optional
            Most tokens of what is kept. Never exceeded; a unit that does not fit is passed over.
        top_k : int, optional
            Only the best so many units; those that do not fit `max_tokens` are not made up for.
        min_relevance : float, optional
            Least relevance of a unit: its share, in [0, 1], of all positive scores of its last pass.
        min_keep : int
            So many of the best units are kept whatever their relevance, if `max_tokens` and `top_k` allow.
        unit : str
            `document` (of one text: its passages, or the sessions of a chat), `paragraph`, `sentence` or `turn`.
        text_format : str
            `text`, `markdown` (headings, lists, tables and code fences stay whole) or `chat` (see `chunking.blocks`).
        headings : bool
            Keep the headings that kept parts of Markdown stand under. A part that does not fit with them is left out.
        titles : bool
            Begin each kept document with its title. A document that does not fit with it is left out.
        ellipsis : str, optional
            Put where something was left out, within the budget.
        tokenizer : tokenizer or function, optional
            What `max_tokens` is counted with: a Hugging Face tokenizer (the generator's), or a function from a text
            to a number. By default the scorer's own.
        order, progress
            As for `rank`.

        Returns
        -------
        Pruned
            Every span is `original[start:end]`; spans are in document order and do not overlap. Nothing is kept, and
            no weights are loaded, when the input is blank.

        Raises
        ------
        InputError, ContextLengthError, NonFiniteError
            As for `rank`, and when nothing says how much to keep.
        """
        budget = Budget(max_tokens, top_k, min_relevance, min_keep)
        rendering = Rendering(ellipsis, headings, titles, text_format == "markdown")
        count = counter(tokenizer, self.tokenizer)
        ranked, texts, windows = self.score_units(
            query, documents, unit=unit, text_format=text_format, order=order, progress=progress
        )
        spans, kept, tokens = pruning.select(texts, ranked, budget, rendering, count)
        total = pruning.whole_tokens(texts, rendering, count)
        scored_by = self.model_name, self.heads_name
        return Pruned(query, tuple(kept), tuple(spans), tokens, total, *scored_by, windows, self.layout)

    def score_units(
        self,
        query: str,
        documents: str | Iterable[DocumentLike],
        *,
        unit: str = "sentence",
        text_format: TextFormat = "text",
        order: Order = "given",
        cache: ReadCache | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[Candidate], list[Document], int]:
        """Every unit of a text or of documents, best first: what `prune` chooses from.

        Parameters
        ----------
        cache : ReadCache, optional
            Keeps what was read, in place of the scorer's own.
        query, documents, unit, text_format, order, progress
            As for `prune`.

        Returns
        -------
        tuple of (list of Candidate, list of Document, int)
            The units, the documents that their indices count (one for a single text), and the number of windows.
        """
        query = checked_query(query)
        check_one_of("order", order, Order)
        divided = divide(documents, unit, text_format)
        cache = self.cache if cache is None else cache
        parts = divided.pieces, divided.units
        found = next(self._survey([query], divided.texts, *parts, order, cache, progress))
        return divided.candidates(found), divided.texts, found.windows

    def explain(
        self, query: str, documents: Iterable[DocumentLike], *, top_k: int = MOST_DOCUMENTS, order: Order = "given"
    ) -> Explanation:
        """Rank `documents` and say which words drew the attention; see `qr_core.explain.explanation`."""
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

    def parts(self, documents: Sequence[Document], pieces: Sequence[Piece] | None = None) -> list[Piece]:
        """What is read as one document each: `pieces` (by default whole documents), or parts of those too long.

        See `passage_tokens` in `from_pretrained`.
        """
        pieces = whole_documents(documents) if pieces is None else list(pieces)
        if self.passage_tokens is None:
            return pieces
        return in_parts(documents, pieces, self.passage_tokens, self.prompts.lengths)

    def token_masses(self, query: str, documents: Sequence[Document], cache: ReadCache | None = None) -> TokenMasses:
        """What every selected head pays every token before the query, all documents in one prompt.

        The step before heads and tokens are summed.

        Parameters
        ----------
        query : str
        documents : sequence of Document
            In prompt order; at least one.
        cache : ReadCache, optional
            Keeps what was read, for further queries over the same documents. Without one nothing is kept.

        Raises
        ------
        InputError, NonFiniteError, ModelLoadError, MemoryLimitError
            As for `Reader.read_many`.
        """
        return self.reader.read(*self.reader.build(query, documents, cache), cache)

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
        pieces = self.parts(documents, pieces)
        best = self.passage_tokens is not None
        context = Context(documents, pieces, units, self.limit, self._context, order, self.filter_tokens, best)
        return survey_each(self.reader, queries, context, cache, progress)

    def _ranking(self, query: str, documents: Sequence[Document], found: Result, top_k: int | None) -> Ranking:
        hits = []
        for place in found.order[:top_k]:
            stood = found.standings[place]
            hits.append(Hit(place, stood.score, stood.relevance, documents[place], stood.round, stood.window))
        return Ranking(
            query,
            tuple(hits),
            self.model_name,
            self.heads_name,
            found.calibrated,
            found.windows,
            found.rounds,
            self.layout,
        )


def completed(options: ScorerOptions, heads: HeadSet) -> ScorerOptions:
    """Options with what the head set says where the caller says nothing.

    Raises
    ------
    InputError
        When a cache does not go with the layout.
    """
    layout = options.layout or heads.layout
    if layout == "joint" and options.document_cache is not None:
        raise InputError("a document cache is for layout='independent': joint prompts are encoded as a whole")
    if layout == "independent" and options.quantized_cache is not None:
        raise InputError("a quantised cache is for layout='joint': bound document_cache instead")
    found: dict[str, Any] = {"layout": layout}
    if options.calibrate is None:
        found["calibrate"] = heads.calibrate
    if layout == heads.layout:  # limits found under another layout say nothing
        for name in ("max_prompt_tokens", "passage_tokens"):
            if getattr(options, name) is None:
                found[name] = getattr(heads, name)
    return options.changed(**found)


def _document_cache(options: ScorerOptions) -> DocumentCache | None:
    """Where documents are kept, in the layout that encodes them one by one."""
    if options.layout != "independent":
        return None
    given = options.document_cache
    return given if isinstance(given, DocumentCache) else DocumentCache(folder=given)
