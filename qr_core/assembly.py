"""Assembly: a scorer's parts (model, heads, template, layout, calibration, limits, caches), put together.

Knows nothing of rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qr_core.cache.documents import SHARED_DOCUMENTS, DocumentCache
from qr_core.cache.reads import ReadCache, cache_of
from qr_core.heads.resolve import resolve_for
from qr_core.heads.sets import HeadSet
from qr_core.mini import named_model
from qr_core.model.loading import ModelSource, context_length, load_config, load_tokenizer
from qr_core.model.shared import SharedModel, shared_model
from qr_core.options import ScorerOptions
from qr_core.parallel.worker import Worker
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template
from qr_core.ranking.calibration import CALIBRATIONS
from qr_core.reading.make import layout_for, prompt_limit
from qr_core.reading.reader import AttentionReader
from qr_core.text.counting import counter
from qr_core.text.pieces import Piece, in_parts, whole_documents
from qr_core.types import Document, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

A = TypeVar("A", bound="Assembly")

PROMPTS_PART = 8
"""Of a scorer's own cache, where each document is encoded on its own, documents take all but one part in so many."""
CHANGEABLE = ("calibrate", "calibration", "filter_tokens", "max_prompt_tokens", "passage_tokens", "retrieval_weight")
"""Options that a scorer of the same model and heads may have otherwise."""


class Assembly:
    """What `QRScorer` is made of."""

    def __init__(
        self,
        model: SharedModel,
        tokenizer: PreTrainedTokenizerBase,
        heads: HeadSet,
        heads_name: str,
        options: ScorerOptions,
        template: Template | None = None,
    ) -> None:
        """Of a model and heads that fit each other; `options` as `ScorerOptions.completed` left them."""
        self.model = model
        self.tokenizer = tokenizer
        self.heads = heads
        self.heads_name = heads_name
        self.options = options
        self.template = heads.prompt_template(tokenizer) if template is None else template
        self.model_name = named_model(options.model).name
        self.layout: Layout = options.layout or "joint"
        self.calibration = CALIBRATIONS[(options.calibration or "null-query") if options.calibrate else "none"]
        self.cache, self.document_cache = _caches(options)
        layout = layout_for(
            model.config, tokenizer, self.template, heads, options, self.document_cache, self.model_name
        )
        self.reader = AttentionReader(model, layout, heads, self.model_name)
        self._context = context_length(model.config)
        self._worker = Worker()

    def __deepcopy__(self: A, memo: dict[int, Any]) -> A:
        """Itself: a scorer is made to be shared, and its weights are not copied."""
        return self

    @classmethod
    def from_pretrained(
        cls: type[A],
        model: str | Path | None = None,
        heads: str | Path | HeadSet | None = None,
        *,
        options: ScorerOptions | None = None,
        **changes: Any,
    ) -> A:
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
    def from_options(cls: type[A], options: ScorerOptions) -> A:
        """`from_pretrained` with one object; errors as there."""
        options.check()
        chosen = named_model(options.model)
        source = ModelSource.of(chosen.place, options)
        config, tokenizer = load_config(source), load_tokenizer(source)
        heads, heads_name = resolve_for(options, chosen.name, chosen.place, config, tokenizer)
        return cls(shared_model(source, config), tokenizer, heads, heads_name, options.completed(heads))

    def with_heads(self: A, heads: HeadSet, name: str, calibrate: bool | None = None) -> A:
        """A scorer that reads other heads of the same model, under the same template and limits."""
        changes = {} if calibrate is None else {"calibrate": calibrate}
        return self._like(heads, name, self.options.changed(**changes))

    def with_options(self: A, **changes: Any) -> A:
        """A scorer of the same model and heads with other limits, sharing this one's caches.

        Parameters
        ----------
        changes
            `calibrate`, `calibration`, `filter_tokens`, `max_prompt_tokens`, `passage_tokens`, `retrieval_weight`: see
            `ScorerOptions`.

        Raises
        ------
        InputError
            When another field is named, or a value is out of range.
        """
        options = self.options.changed(**changes)
        options.check(*changes, known=CHANGEABLE)
        return self._like(self.heads, self.heads_name, options)

    def _like(self: A, heads: HeadSet, name: str, options: ScorerOptions) -> A:
        options = options.changed(document_cache=self.document_cache)
        other = type(self)(self.model, self.tokenizer, heads, name, options, self.template)
        other.cache = self.cache
        return other

    @property
    def prompts(self) -> PromptBuilder:
        """Makes its prompts, and measures documents in tokens."""
        return self.reader.prompts

    @property
    def source(self) -> ModelSource:
        """Where its weights come from."""
        return self.model.source

    @property
    def calibrate(self) -> bool:
        """Whether what any query would be paid is taken away."""
        return bool(self.calibration.references)

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
    def context(self) -> int | None:
        """Most positions of one prompt; None where the model sets no limit."""
        return self._context

    @property
    def limit(self) -> int | None:
        """Most tokens of one prompt; None where neither the model nor the caller sets a limit."""
        return prompt_limit(self.layout, self._context, self.max_prompt_tokens)

    def lengths(self, documents: Sequence[Document]) -> list[int]:
        """How many tokens each document takes in a prompt, at most."""
        return self.reader.lengths(documents)

    def parts(self, documents: Sequence[Document], pieces: Sequence[Piece] | None = None) -> list[Piece]:
        """What is encoded as one document each: `pieces` (by default whole documents), or parts of those too long.

        See `passage_tokens` in `ScorerOptions`.
        """
        pieces = whole_documents(documents) if pieces is None else list(pieces)
        if self.passage_tokens is None:
            return pieces
        return in_parts(documents, pieces, self.passage_tokens, self.lengths)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without those that begin or end a prompt."""
        return counter(None, self.tokenizer)(text)


def _caches(options: ScorerOptions) -> tuple[ReadCache | None, DocumentCache | None]:
    """Where prompts are kept, and where documents are, in the layout that encodes them one by one."""
    given, most = options.document_cache, options.cache_bytes
    if options.layout not in ("independent", "late"):
        return cache_of(most), None
    if isinstance(given, DocumentCache):
        return cache_of(most), given
    if most is None:
        return cache_of(None), SHARED_DOCUMENTS if given is None else DocumentCache(folder=given)
    prompts = most // PROMPTS_PART  # what N/A is paid, which is little beside documents
    return cache_of(prompts), DocumentCache(most - prompts, folder=given)
