"""Generation: let a language model answer a question from the parts of a context that were selected for it.

The selected parts come first and the question follows them, as in the paper. The generator is a Hugging Face model in
this process, which may be the scorer's own weights, or any endpoint that speaks the OpenAI chat protocol.

Knows nothing of how parts are selected.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import torch

from qr_core.checks import encodable
from qr_core.errors import ContextLengthError, GenerationError, InputError, missing_extra
from qr_core.model import loading as models
from qr_core.model.loading import ModelSource
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template, chat_template
from qr_core.types import DocumentLike, Pruned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qr_core.scorer import QRScorer
    from qr_core.text.counting import CallersCount

INSTRUCTION = "Answer the question from the text. If the text does not say, say so."
MAX_TOKENS = 2048
MAX_NEW_TOKENS = 256
TIMEOUT_SECONDS = 120.0
RETRIES = 2
PAUSE_SECONDS = 0.5


class Generator(Protocol):
    """Anything that continues a message with an answer."""

    @property
    def name(self) -> str:
        """What answered, for the record."""

    @property
    def tokenizer(self) -> Any:
        """What a token budget is counted with; None for the scorer's."""

    def generate(self, message: str, max_new_tokens: int) -> str:
        """The answer to one user message.

        Raises
        ------
        GenerationError, ContextLengthError
        """


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
    max_tokens: int = MAX_TOKENS,
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
    max_tokens : int
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


class LocalGenerator:
    """A Hugging Face causal model in this process, decoding greedily. Weights load at the first answer.

    A scorer of the same source (name, revision, dtype, device) shares its weights and its lock.

    Parameters
    ----------
    source : ModelSource
        See `QRScorer.source` for a scorer's own.
    name : str, optional
        By default the source's.

    Raises
    ------
    ModelLoadError
        When config or tokenizer are missing or broken.
    """

    def __init__(self, source: ModelSource, name: str | None = None) -> None:
        self.model = models.shared_model(source, models.load_config(source))
        self.name = name or source.name
        self.tokenizer = models.load_tokenizer(source)
        has_chat = bool(getattr(self.tokenizer, "chat_template", None))
        template = chat_template(self.tokenizer) if has_chat else Template("plain", suffix="\nAnswer:")
        self.prompts = PromptBuilder(self.tokenizer, template)
        self._context = models.context_length(self.model.config)

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> LocalGenerator:
        """A generator from a hub id or folder; options are those of `ModelSource`."""
        device = models.pick_device(options.pop("device", None))
        return cls(ModelSource(str(model), device=device, **options))

    def check_fits(self, tokens: int, max_new_tokens: int) -> None:
        """Refuse a prompt that leaves no room for the answer.

        Raises
        ------
        ContextLengthError
        """
        total = tokens + max_new_tokens
        if self._context is not None and total > self._context:
            raise ContextLengthError(
                f"context, question and answer take {total} tokens, {total - self._context} more than the context of "
                f"{self.name} ({self._context}): lower max_tokens"
            )

    def generate(self, message: str, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The model's answer, decoded greedily, without control tokens."""
        ids = self.prompts.wrap(message)
        self.check_fits(len(ids), max_new_tokens)
        with self.model.lock, torch.inference_mode():
            return self.continued(ids, max_new_tokens)

    def continued(self, ids: list[int], max_new_tokens: int) -> str:
        """What the model writes after `ids`. The caller holds the lock."""
        model: Any = self.model.generator()
        input_ids = torch.tensor([ids], device=model.device)
        generated = model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
        )
        return str(self.tokenizer.decode(generated[0, len(ids) :], skip_special_tokens=True)).strip()

    @property
    def stop_ids(self) -> set[int]:
        """The tokens after which the model has said all. The caller holds the lock."""
        found = getattr(self.model.generator().generation_config, "eos_token_id", None)
        return set() if found is None else {found} if isinstance(found, int) else set(found)


class MalformedReplyError(GenerationError):
    """An endpoint's reply is not a chat completion, or holds no text."""


class RefusedRequestError(GenerationError):
    """An endpoint refuses this one request, as a rule because its message is too long; others may pass."""


REFUSED = (400, 413, 422)
"""Statuses that speak of the request, not of the server."""


class EndpointGenerator:
    """Any server that speaks the OpenAI chat protocol (needs the `openai` package).

    Time-outs, 429, server errors and malformed replies are tried again, with growing pauses, before they are reported.

    Parameters
    ----------
    url : str
        Up to and with the version, such as `http://localhost:8000/v1`.
    model : str, optional
        By default the only one the server lists.
    api_key : str, optional
        By default the environment's OPENAI_API_KEY; servers without keys take anything.
    timeout : float
        Seconds to wait for the connection, and for each part of the reply, of one try.
    retries : int
        Further tries.

    Raises
    ------
    InputError
        When `url` is none.
    """

    tokenizer = None

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
    ) -> None:
        try:
            from openai import OpenAI
        except ModuleNotFoundError as error:
            raise InputError(missing_extra(error, "ask")) from error
        if not _is_address(url):
            raise InputError(f"endpoint {url!r} is no http:// or https:// address")
        self.url = url
        self._model = model
        self._retries = retries
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        self._client = OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)

    @property
    def name(self) -> str:
        """The model's name, or the address where it is not known yet."""
        return self._model or self.url

    def generate(self, message: str, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The endpoint's answer at temperature 0."""
        for number in range(self._retries):
            try:
                return self._completed(message, max_new_tokens)
            except MalformedReplyError:  # all else the client has tried again itself, or is not worth it
                time.sleep(PAUSE_SECONDS * 2**number)
        return self._completed(message, max_new_tokens)

    def _completed(self, message: str, max_new_tokens: int) -> str:
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        try:
            if self._model is None:
                self._model = self._only_model()
            reply: Any = self._client.chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": encodable(message)}],
                max_tokens=max_new_tokens,
                temperature=0,
            )
            text = reply.choices[0].message.content
        except InputError:
            raise
        except APITimeoutError as error:
            raise GenerationError(f"{self.url} did not answer in time") from error
        except APIConnectionError as error:
            raise GenerationError(f"{self.url} cannot be reached: {error.__cause__ or error}") from error
        except APIStatusError as error:
            kind = RefusedRequestError if error.status_code in REFUSED else GenerationError
            raise kind(f"{self.url} answered with status {error.status_code}: {error.message[:200]}") from error
        except (OpenAIError, AttributeError, IndexError, RecursionError, TypeError, ValueError) as error:
            raise MalformedReplyError(
                f"the reply of {self.url} is not a chat completion ({type(error).__name__})"
            ) from error
        if not isinstance(text, str):
            raise MalformedReplyError(f"the reply of {self.url} holds no text")
        return text.strip()

    def _only_model(self) -> str:
        listed = [str(model.id) for model in self._client.models.list().data]
        if len(listed) != 1:
            raise InputError(f"{self.url} serves {len(listed)} models ({', '.join(listed[:5])}): name one")
        return listed[0]


def generator_of(name: str, model: str | None = None, timeout: float = TIMEOUT_SECONDS, **options: Any) -> Generator:
    """A generator from what a person names it by: an address, a model's hub id or folder, or `embedded`.

    Parameters
    ----------
    name : str
        `http://` or `https://` begin an address; `embedded` is the small model inside this package.
    model : str, optional
        Which model an address should use.
    options
        Of `LocalGenerator.from_pretrained`; an address has no use for them.

    Raises
    ------
    InputError
        When `model` is given although `name` is a model itself.
    ModelLoadError
        When config or tokenizer are missing or broken.
    """
    if name.startswith(("http://", "https://")):
        return EndpointGenerator(name, model, timeout=timeout)
    if model is not None:
        raise InputError(f"{name} names a model itself: the name of another goes with an address only")
    if name != "embedded":
        return LocalGenerator.from_pretrained(name, **options)
    from qr_core.mini import EMBEDDED_NAME, embedded_model

    generator = LocalGenerator.from_pretrained(embedded_model(), **options)
    generator.name = EMBEDDED_NAME
    return generator


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
