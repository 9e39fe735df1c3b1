"""Scorer: rank documents, or prune them, by where the query-focused heads of a language model look.

    query + documents -> survey (windows -> prompt -> prefill -> probe -> calibrate -> score) -> Ranking or Pruned

Each step is a module of its own; this one checks what callers hand in and shapes what they get back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from qr_core.attention.layers import layers_of, windows_of
from qr_core.cache.documents import DocumentCache
from qr_core.cache.reads import SHARED, ReadCache, cache_of, in_this_context
from qr_core.checks import check_one_of, check_whole_number, checked_jobs, checked_query
from qr_core.errors import InputError
from qr_core.explain.explanation import MOST_DOCUMENTS, Explanation, explain
from qr_core.heads.parts import HeadShape
from qr_core.heads.resolve import resolve
from qr_core.heads.sets import HeadSet
from qr_core.mini import EMBEDDED_NAME, embedded_model
from qr_core.model import loading as models
from qr_core.parallel.worker import Worker
from qr_core.prompts.independent import IndependentPromptBuilder
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template, TemplateName
from qr_core.ranking.survey import Context, Progress, Result, survey_each
from qr_core.ranking.units import divide
from qr_core.reading.independent import TOTAL_TOKENS, IndependentReader
from qr_core.reading.reader import Reader, TokenMasses
from qr_core.text import pruning
from qr_core.text.chunking import TextFormat, UnitName
from qr_core.text.pieces import Piece, in_parts, whole_documents
from qr_core.text.pruning import Budget, CallersCount, Candidate, Rendering
from qr_core.types import Document, DocumentLike, Hit, Layout, Order, Pruned, Ranking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


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
        template: Template,
        heads: HeadSet,
        heads_name: str,
        calibrate: bool,
        filter_tokens: bool,
        model_name: str,
        max_prompt_tokens: int | None = None,
        cache: ReadCache | None = SHARED,
        layout: Layout = "joint",
        document_cache: DocumentCache | None = None,
        quantized_cache: Mapping[str, Any] | None = None,
        passage_tokens: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.heads = heads
        self.heads_name = heads_name
        self.filter_tokens = filter_tokens
        self.model_name = model_name
        check_whole_number("max_prompt_tokens", max_prompt_tokens)
        self.max_prompt_tokens = max_prompt_tokens
        check_whole_number("passage_tokens", passage_tokens)
        self.passage_tokens = passage_tokens
        self.cache = cache
        self.layout = layout
        self.document_cache = document_cache
        self.quantized_cache = quantized_cache
        self.reader = self._reader(model, heads, calibrate)
        self._context = models.context_length(model.config)
        self._worker = Worker()

    def _reader(self, model: models.SharedModel, heads: HeadSet, calibrate: bool) -> Reader:
        if self.layout == "joint":
            together = PromptBuilder(self.tokenizer, self.template)
            return Reader(model, together, heads, calibrate, self.model_name, self.quantized_cache)
        if self.quantized_cache is not None:
            raise InputError("a quantised cache is for layout='joint': bound document_cache instead")
        if self.document_cache is None:
            self.document_cache = DocumentCache()
        prompts = IndependentPromptBuilder(self.tokenizer, self.template)
        return IndependentReader(model, prompts, heads, calibrate, self.model_name, self.document_cache)

    def __deepcopy__(self, memo: dict[int, Any]) -> QRScorer:
        """Itself: a scorer is made to be shared, and its weights are not copied."""
        return self

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without those that begin or end a prompt."""
        return pruning.counter(None, self.tokenizer)(text)

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

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        heads: str | Path | HeadSet | None = None,
        *,
        template: TemplateName | None = None,
        layout: Layout | None = None,
        document_cache: DocumentCache | str | Path | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        device_map: str | Mapping[str, str | int] | None = None,
        tp_size: int | None = None,
        dtype: str | torch.dtype = "auto",
        calibrate: bool | None = None,
        filter_tokens: bool = True,
        max_prompt_tokens: int | None = None,
        passage_tokens: int | None = None,
        cache_bytes: int | None = None,
        quantized_cache: Mapping[str, Any] | None = None,
        allow_model_mismatch: bool = False,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
    ) -> QRScorer:
        """Check config, tokenizer, heads and template of a model; its weights load at the first score.

        Parameters
        ----------
        model : str or Path, optional
            Hub id or folder of a decoder model; by default the small one inside this package, which needs no network.
        heads : str, Path or HeadSet, optional
            A published set's name (`qrhead heads` lists them), a head-set file, `"all"` for every head (In-Context
            Re-ranking) outside layers with a sliding window, if there are such, or pairs such as `"13-18,8-11"`
            (layer-head, from 0). By default the model's own set.
        template : str, optional
            `chat`, `reference` or `plain`; by default the head set's.
        layout : str, optional
            `joint`: all documents share one prompt, each seeing those before it. `independent`: each is encoded apart,
            so that cost grows linearly and scores do not depend on order (see `qr_core.reading.independent`). By
            default the head set's; heads found under the other one read less well.
        document_cache : DocumentCache, str or Path, optional
            With the independent layout: where documents' keys and values are kept, or a folder to keep them in
            beside memory. By default 1 GiB of memory, of this scorer alone.
        revision : str, optional
            Branch, tag or commit on the hub.
        device : str or torch.device, optional
            By default CUDA, then MPS, then CPU.
        device_map : str or mapping, optional
            Passed to transformers to spread a model over devices, CPU and disk among them; needs accelerate.
        tp_size : int, optional
            Spread each layer over so many processes, started with torchrun (transformers' tensor parallelism). All of
            them make the same calls in the same order, and all get the results. Not with `device_map`.
        dtype : str or torch.dtype
            `auto` (the checkpoint's; see `qr_core.model.loading.ModelSource`) or a torch dtype.
        calibrate : bool, optional
            Subtract the mass that the content-free query `N/A` gives; by default as the head set says.
        filter_tokens : bool
            Leave out each document's tokens below mean - 2 standard deviations, as the published code does.
        max_prompt_tokens : int, optional
            Longer input is read in windows of so many tokens (see `qr_core.ranking.rounds`); at most the model's
            context, which is also the default, unless the head set names a shorter length. With the independent layout
            only positions are limited by the context (instruction, longest document, query); tokens are by this, by
            default the length that a head set of this layout names, or 131,072.
        passage_tokens : int, optional
            Documents with more tokens are read in parts, cut at paragraphs and sentences, and the best part's score
            counts. By default as the head set says, for its layout.
        cache_bytes : int, optional
            What was read of documents is kept for the next query over them, in memory, on the model's device. By
            default all scorers of the process share one cache of 1 GiB; with a number this one has a cache of its own
            of so many bytes, and with 0 nothing is kept from one call to the next. See `qr_core.cache.reads`.
        quantized_cache : mapping, optional
            Keep what was read of documents in transformers' `QuantizedCache`, made with these arguments:
            `{"backend": "fp8"}`, or `{"backend": "quanto", "nbits": 4}` where that package is installed. Less memory
            between calls and in probes; scores are no longer exact. Joint layout only.
        allow_model_mismatch : bool
            Accept a head set found for another model or revision of the same shape (a quantised copy, a fine-tune).
        trust_remote_code : bool
            Let code from the model's repository run. Off unless you trust that repository.
        allow_pickle : bool
            Read weights that are not safetensors; unpickling can run code from the file.

        Raises
        ------
        ModelLoadError
            When config or tokenizer are missing, broken or not supported.
        HeadSetError
            When no heads are known for the model, or the given ones do not belong to it.
        """
        folder = str(embedded_model() if model is None else model)
        name = EMBEDDED_NAME if model is None else folder
        source = models.ModelSource(
            name=folder,
            revision=revision,
            dtype=str(dtype).removeprefix("torch."),
            device=models.pick_device(device),
            device_map=tuple(device_map.items()) if isinstance(device_map, Mapping) else device_map,
            tp_size=tp_size,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        check_whole_number("tp_size", tp_size)
        if tp_size is not None and device_map is not None:
            raise InputError("pass either device_map or tp_size: both spread the model")
        if layout is not None:
            check_one_of("layout", layout, Layout)
        config = models.load_config(source)
        tokenizer = models.load_tokenizer(source)
        head_set, heads_name = resolve(
            heads,
            name,
            folder,
            revision,
            HeadShape.of(config),
            template,
            has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
            allow_model_mismatch=allow_model_mismatch,
            near=windows_of(layers_of(config)) if heads == "all" else (),
        )
        chosen = head_set.layout if layout is None else layout
        if document_cache is not None and chosen == "joint":
            raise InputError("a document cache is for layout='independent': joint prompts are read as a whole")
        if document_cache is not None and not isinstance(document_cache, DocumentCache):
            document_cache = DocumentCache(folder=document_cache)
        if max_prompt_tokens is None and chosen == head_set.layout:
            max_prompt_tokens = head_set.max_prompt_tokens
        if passage_tokens is None and chosen == head_set.layout:
            passage_tokens = head_set.passage_tokens
        return cls(
            model=models.shared_model(source, config),
            tokenizer=tokenizer,
            template=head_set.prompt_template(tokenizer),
            heads=head_set,
            heads_name=heads_name,
            calibrate=head_set.calibrate if calibrate is None else calibrate,
            filter_tokens=filter_tokens,
            model_name=name,
            max_prompt_tokens=max_prompt_tokens,
            cache=cache_of(cache_bytes),
            layout=chosen,
            document_cache=document_cache,
            quantized_cache=quantized_cache,
            passage_tokens=passage_tokens,
        )

    def with_heads(self, heads: HeadSet, name: str, calibrate: bool | None = None) -> QRScorer:
        """A scorer that reads other heads of the same model, under the same template and limits."""
        return QRScorer(
            model=self.reader.model,
            tokenizer=self.tokenizer,
            template=self.template,
            heads=heads,
            heads_name=name,
            calibrate=self.calibrate if calibrate is None else calibrate,
            filter_tokens=self.filter_tokens,
            model_name=self.model_name,
            max_prompt_tokens=self.max_prompt_tokens,
            cache=self.cache,
            layout=self.layout,
            document_cache=self.document_cache,
            quantized_cache=self.quantized_cache,
            passage_tokens=self.passage_tokens,
        )

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
        unit: UnitName = "sentence",
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
            `text`, `markdown` (headings, lists, tables and code fences stay whole) or `chat` (see `chunking.units`).
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
        count = pruning.counter(tokenizer, self.tokenizer)
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
        unit: UnitName = "sentence",
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
