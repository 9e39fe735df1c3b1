"""Scorer: rank documents by where the query-focused heads of a language model look.

    query + documents -> prompt -> prefill -> probe -> calibrate -> score -> Ranking

Each step is a module of its own; this one only strings them together, once per request, under the model's lock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core import heads as head_sets
from qr_core import layers, models, prompt, rope, scoring
from qr_core.capture import Capture
from qr_core.errors import ContextLengthError, InputError
from qr_core.heads import HeadSet, HeadShape
from qr_core.prefill import Prefix, prefill, probe
from qr_core.prompt import NULL_QUERY, Prompt, PromptBuilder, Template, TemplateName
from qr_core.types import Document, DocumentLike, Hit, Order, Ranking, as_document

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Read:
    """Documents that were read, for further queries over them: token ids and RoPE regime, prefix, `N/A` masses."""

    key: tuple[tuple[int, ...], Hashable]
    prefix: Prefix
    null_mass: Tensor | None  # (heads, prefix tokens)


@dataclass(frozen=True)
class TokenMasses:
    """Attention mass per head and token.

    Attributes
    ----------
    mass : Tensor
        Float32, shape (heads, tokens before the query); heads by layer, then head, each once. The query's mass, minus
        that of `N/A` when `calibrated`.
    document_spans : tuple of (int, int)
        Half-open token positions of each document, in prompt order.
    calibrated : bool
    """

    mass: Tensor
    document_spans: tuple[tuple[int, int], ...]
    calibrated: bool


class QRScorer:
    """Ranks documents with one model, one head set and one template. Make it with `from_pretrained`.

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
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.heads = heads
        self.heads_name = heads_name
        self.calibrate = calibrate
        self.filter_tokens = filter_tokens
        self.model_name = model_name
        self._model = model
        self._prompts = PromptBuilder(tokenizer, template)
        self._context = models.context_length(model.config)
        self._layers = layers.layers_of(model.config)
        layers.check_readable_layers(self._layers, heads.by_layer(), model_name)
        self._executor: ThreadPoolExecutor | None = None
        self._executor_lock = threading.Lock()
        _scorers.add(self)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        heads: str | Path | HeadSet | None = None,
        *,
        template: TemplateName | None = None,
        revision: str | None = None,
        device: str | torch.device | None = None,
        device_map: str | Mapping[str, str | int] | None = None,
        dtype: str | torch.dtype = "auto",
        calibrate: bool | None = None,
        filter_tokens: bool = True,
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
            Re-ranking), or pairs such as `"13-18,8-11"` (layer-head, from 0). By default the model's own set.
        template : str, optional
            `chat`, `reference` or `plain`; by default the head set's.
        revision : str, optional
            Branch, tag or commit on the hub.
        device : str or torch.device, optional
            By default CUDA, then MPS, then CPU.
        device_map : str or mapping, optional
            Passed to transformers to spread a model over devices, CPU and disk among them; needs accelerate.
        dtype : str or torch.dtype
            `auto` (the checkpoint's; see `qr_core.models.ModelSource`) or a torch dtype.
        calibrate : bool, optional
            Subtract the mass that the content-free query `N/A` gives; by default as the head set says.
        filter_tokens : bool
            Leave out each document's tokens below mean - 2 standard deviations, as the published code does.
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
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        config = models.load_config(source)
        tokenizer = models.load_tokenizer(source)
        head_set, heads_name = head_sets.resolve(
            heads,
            name,
            folder,
            revision,
            HeadShape.of(config),
            template,
            has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
            allow_model_mismatch=allow_model_mismatch,
        )
        return cls(
            model=models.shared_model(source, config),
            tokenizer=tokenizer,
            template=_template(head_set, tokenizer),
            heads=head_set,
            heads_name=heads_name,
            calibrate=head_set.calibrate if calibrate is None else calibrate,
            filter_tokens=filter_tokens,
            model_name=name,
        )

    def rank(
        self, query: str, documents: Iterable[DocumentLike], *, top_k: int | None = None, order: Order = "given"
    ) -> Ranking:
        """Rank `documents` by their relevance to `query`.

        Parameters
        ----------
        query : str
        documents : iterable of str, Document or mapping
            Mappings have `text` and, if they like, `title` and `id`. All documents share one prompt.
        top_k : int, optional
            Return only the best so many; all by default.
        order : str
            `given` puts the documents into the prompt as they come; `reversed` puts the first one nearest the query,
            as the paper does with retrieved lists, whose first is the most promising.

        Returns
        -------
        Ranking
            Best first. Without documents it is empty, and no weights are loaded.

        Raises
        ------
        InputError
            When the query is empty or not a string, or a document is not usable.
        ContextLengthError
            When the prompt is longer than the model's context.
        NonFiniteError
            When the model's attention is NaN or infinite.
        """
        return self.rank_many([(query, documents)], top_k=top_k, order=order)[0]

    def rank_many(
        self,
        jobs: Iterable[tuple[str, Iterable[DocumentLike]]],
        *,
        top_k: int | None = None,
        order: Order = "given",
    ) -> list[Ranking]:
        """Rank several (query, documents) jobs; consecutive jobs with the same documents read them once.

        Parameters and errors are those of `rank`. All jobs are checked before the first one runs.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise InputError(f"top_k is {top_k!r}: use a whole number from 1, or None for all documents")
        if order not in ("given", "reversed"):
            raise InputError(f"order is {order!r}: use 'given' or 'reversed'")
        checked = _checked_jobs(jobs)
        rankings = []
        read: Read | None = None
        for query, documents in checked:
            placed = documents[::-1] if order == "reversed" else documents
            scores, calibrated, read = self._score(query, placed, read)
            if order == "reversed":
                scores = scores.flip(0)
            rankings.append(self._ranking(query, documents, scores, calibrated, top_k))
        return rankings

    async def arank(
        self, query: str, documents: Iterable[DocumentLike], *, top_k: int | None = None, order: Order = "given"
    ) -> Ranking:
        """`rank` without blocking the event loop, on this scorer's own thread."""
        call = partial(self.rank, query, documents, top_k=top_k, order=order)
        return await asyncio.get_running_loop().run_in_executor(self._own_executor(), call)

    def token_masses(
        self, query: str, documents: Sequence[Document], read: Read | None = None
    ) -> tuple[TokenMasses, Read]:
        """What every selected head pays every token before the query; the step before heads and tokens are summed.

        Parameters
        ----------
        query : str
        documents : sequence of Document
            In prompt order; at least one.
        read : Read, optional
            From the last call. Used when the documents' tokens are the same.

        Raises
        ------
        ContextLengthError, NonFiniteError, ModelLoadError
            As for `rank`.
        """
        with self._model.lock, torch.inference_mode():
            asked, null = self._prompts.build([query, NULL_QUERY], documents)
            self._check_length(asked, len(documents))
            layers.check_windows(self._layers, self.heads.by_layer(), len(asked.ids), self.model_name)
            model = self._model.at_depth(self.heads.deepest)
            longest = max(len(asked.ids), len(null.ids))
            key = (asked.ids[: asked.query_start], rope.regime(model, longest))
            with rope.held_to(model, longest):
                if read is None or read.key != key:
                    read = Read(key, self._prefill(model, key[0]), None)
                mass = self._probe(model, read.prefix, asked)
                null_mass = read.null_mass
                # The content-free query itself cannot be calibrated by itself: every score would be zero.
                calibrated = self.calibrate and asked.ids != null.ids
                if calibrated and null_mass is None:
                    null_mass = self._probe(model, read.prefix, null)
                    read = Read(key, read.prefix, null_mass)
        if calibrated and null_mass is not None:
            mass = scoring.calibrate(mass, null_mass)
        return TokenMasses(mass, asked.document_spans, calibrated), read

    def _score(self, query: str, documents: Sequence[Document], read: Read | None) -> tuple[Tensor, bool, Read | None]:
        """Score `documents` in prompt order.

        Returns their scores, shape (documents,), whether these are calibrated, and what the next job may reuse.
        """
        if not documents:
            return torch.zeros(0), self.calibrate, read
        found, read = self.token_masses(query, documents, read)
        scores = scoring.score_documents(found.mass.sum(dim=0), found.document_spans, self.filter_tokens)
        return scores, found.calibrated, read

    def _prefill(self, model: PreTrainedModel, ids: Sequence[int]) -> Prefix:
        return prefill(model, torch.tensor([ids], device=model.device), self.heads.deepest)

    def _probe(self, model: PreTrainedModel, prefix: Prefix, asked: Prompt) -> Tensor:
        """Raw mass of every selected head on every prefix token, float32, shape (heads, prefix tokens), on the CPU."""
        suffix = asked.ids[asked.query_start :]
        capture = Capture(
            heads={layer: torch.tensor(chosen) for layer, chosen in self.heads.by_layer().items()},
            row_weights=torch.full((1, len(suffix)), 1 / len(suffix)),
            stop_after=self.heads.deepest,
        )
        masses = probe(model, prefix, torch.tensor([suffix], device=model.device), capture)
        return torch.cat([masses[layer][0].cpu() for layer in sorted(masses)])

    def _check_length(self, asked: Prompt, documents: int) -> None:
        if self._context is not None and len(asked.ids) > self._context:
            raise ContextLengthError(
                f"the prompt has {len(asked.ids)} tokens, {len(asked.ids) - self._context} more than the context of "
                f"{self.model_name} ({self._context}): pass fewer or shorter documents ({documents} were given)"
            )

    def _ranking(
        self, query: str, documents: Sequence[Document], scores: Tensor, calibrated: bool, top_k: int | None
    ) -> Ranking:
        shares = scoring.relevance(scores).tolist()
        values = scores.tolist()
        best_first = sorted(range(len(documents)), key=lambda i: (-values[i], i))[:top_k]
        hits = tuple(Hit(i, values[i], shares[i], documents[i]) for i in best_first)
        return Ranking(query, hits, self.model_name, self.heads_name, calibrated)

    def _own_executor(self) -> ThreadPoolExecutor:
        with self._executor_lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qrhead")
                weakref.finalize(self, self._executor.shutdown, wait=False)
            return self._executor


EMBEDDED_NAME = "qrhead-mini"


def embedded_model() -> Path:
    """Folder of the small model inside this package."""
    with as_file(files("qr_core.mini").joinpath("model")) as folder:
        return folder


def _template(heads: HeadSet, tokenizer: PreTrainedTokenizerBase) -> Template:
    if heads.template == "chat":
        return prompt.chat_template(tokenizer, heads.template_arguments)
    if heads.template_strings is not None:  # a HeadSet with template `reference` has them
        return prompt.reference_template(heads.template_strings.model_dump())
    return prompt.plain_template()


def _checked_query(query: str) -> str:
    if not isinstance(query, str):
        raise InputError(f"the query is of type {type(query).__name__}: pass a str")
    if not query.strip():
        raise InputError("the query is empty: pass a question or a statement to look for")
    return query


def _checked_jobs(jobs: Iterable[tuple[str, Iterable[DocumentLike]]]) -> list[tuple[str, list[Document]]]:
    if isinstance(jobs, str | bytes | Mapping) or not isinstance(jobs, Iterable):
        raise InputError(f"jobs are of type {type(jobs).__name__}: pass a list of (query, documents)")
    checked = []
    for number, job in enumerate(jobs):
        if not isinstance(job, Sequence) or isinstance(job, str | bytes) or len(job) != 2:
            raise InputError(f"job {number} is not a pair of query and documents")
        checked.append((_checked_query(job[0]), _checked_documents(job[1])))
    return checked


def _checked_documents(documents: Iterable[DocumentLike]) -> list[Document]:
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents are of type {type(documents).__name__}: pass a list of documents")
    return [as_document(document, index) for index, document in enumerate(documents)]


_scorers: weakref.WeakSet[QRScorer] = weakref.WeakSet()


def _after_fork() -> None:
    """The parent's worker thread does not exist in a forked child: let each scorer start its own."""
    for scorer in list(_scorers):
        scorer._executor = None
        scorer._executor_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
