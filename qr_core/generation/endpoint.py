"""Endpoint generator: any server that speaks the OpenAI chat protocol. It is not trusted: replies are bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from qr_core.checks import encodable
from qr_core.errors import GenerationError, InputError, missing_extra
from qr_core.generation.generator import MAX_NEW_TOKENS

TIMEOUT_SECONDS = 120.0
RETRIES = 2
PAUSE_SECONDS = 0.5
"""Before the first further try; it doubles with each."""
REPLY_BYTES = 16 * 2**20
"""Most that is read of a reply: about a hundred times the longest answer of any model."""
REFUSED = (400, 413, 422)
"""Statuses that speak of the request, not of the server."""


class MalformedReplyError(GenerationError):
    """An endpoint's reply is not a chat completion, or holds no text."""


class RefusedReplyError(GenerationError):
    """An endpoint's reply is too large, or compressed, so that it might become too large."""


class RefusedRequestError(GenerationError):
    """An endpoint refuses this one request, as a rule because its message is too long; others may pass."""


class EndpointGenerator:
    """Any server that speaks the OpenAI chat protocol (needs the `openai` package).

    Redirects are not followed: the key and the text are for the address that was named.

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
            from openai import DefaultHttpxClient, OpenAI
        except ModuleNotFoundError as error:
            raise InputError(missing_extra(error, "ask")) from error
        if not _is_address(url):
            raise InputError(f"endpoint {url!r} is no http:// or https:// address")
        self.url = url
        self._model = model
        self._retries = retries
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        bounded = DefaultHttpxClient(follow_redirects=False, event_hooks={"response": [_bound]})
        plain = {"Accept-Encoding": "identity"}
        self._client = OpenAI(
            base_url=url, api_key=key, timeout=timeout, max_retries=retries, http_client=bounded, default_headers=plain
        )

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
            if isinstance(error.__cause__, RefusedReplyError):
                raise GenerationError(f"{self.url}: {error.__cause__}") from error
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


def _bound(response: Any) -> None:
    """Let no more than `REPLY_BYTES` of a response be read: a hook of the HTTP client, before it reads the body."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RefusedReplyError("the reply is compressed, though that was not asked for")
    stream = response.stream
    # httpx or httpx2, whichever the installed openai is made for
    base: Any = next(kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream")

    class Bounded(base):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            taken = 0
            for part in stream:
                taken += len(part)
                if taken > REPLY_BYTES:
                    raise RefusedReplyError(f"the reply is larger than {REPLY_BYTES} bytes")
                yield part

        def close(self) -> None:
            stream.close()

    response.stream = Bounded()


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False
