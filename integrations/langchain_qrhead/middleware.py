"""LangChain agents: long tool messages are pruned for the question before the model reads them.

The model sees the pruned copies; the agent's stored state keeps the originals. Needs the `langchain` package.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, cast

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest, ModelResponse
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from qr_core import InputError
from qr_core.chain import ChainOptions
from qr_core.checks import check_ellipsis
from qr_core.partition import Remembered

REMEMBERED_BYTES = 64 * 2**20
"""Most that pruned texts and originals may take: a growing conversation is not pruned anew before each model call."""


class QRHeadContextMiddleware(AgentMiddleware[Any, Any]):
    """Prune tool messages of more than `max_tokens` tokens for the user's last question.

    Message, `tool_call_id` and everything but the text stay as they are. Only text is touched: plain content, and
    `text` blocks of a list of blocks.

    Parameters
    ----------
    max_tokens : int
        Most tokens of one tool text, by the scorer's tokenizer; shorter ones pass unchanged.
    ellipsis : str, optional
        Put where something was left out.
    options
        Those of `QRHeadCompressor`: model, heads, device, prune_unit, text_format and so on.

    Raises
    ------
    InputError
        When `max_tokens` is not a whole number from 1, or `ellipsis` is too long.
    """

    def __init__(self, max_tokens: int = 1000, ellipsis: str | None = "[...]", **options: Any) -> None:
        super().__init__()
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise InputError(f"max_tokens is {max_tokens!r}: use a whole number from 1")
        check_ellipsis("ellipsis", ellipsis)
        self.max_tokens = max_tokens
        self.ellipsis = ellipsis
        self.options = ChainOptions(**options)
        self._pruned: Remembered[str] = Remembered(REMEMBERED_BYTES, _bytes)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Let the model read pruned copies of long tool messages."""
        return handler(request.override(messages=self._shortened(request.messages)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """`wrap_model_call` on the scorer's own thread."""
        messages = request.messages
        if any(isinstance(message, ToolMessage) for message in messages):
            messages = await self.options.in_scorers_thread(self._shortened, messages)
        return await handler(request.override(messages=messages))

    def _shortened(self, messages: Sequence[AnyMessage]) -> list[AnyMessage]:
        asked = ""
        shortened: list[AnyMessage] = []
        for message in messages:
            if isinstance(message, HumanMessage):
                asked = str(message.text)
            is_tool = isinstance(message, ToolMessage) and asked.strip()
            content = self._content(asked, message.content) if is_tool else message.content
            same = content is message.content
            shortened.append(message if same else message.model_copy(update={"content": content}))
        return shortened

    def _content(self, query: str, content: Any) -> Any:
        if isinstance(content, str):
            return self._text(query, content)
        if not any(isinstance(block, dict) and block.get("type") == "text" for block in content):
            return content
        return [
            {**block, "text": self._text(query, str(block["text"]))}
            if isinstance(block, dict) and block.get("type") == "text" and "text" in block
            else block
            for block in content
        ]

    def _text(self, query: str, text: str) -> str:
        if len(text.encode("utf-8", "replace")) <= self.max_tokens:  # no token is shorter than a byte
            return text
        return self._pruned.get((query, text), lambda: self._kept(query, text))

    def _kept(self, query: str, text: str) -> str:
        scorer = self.options.scorer
        if scorer.count_tokens(text) <= self.max_tokens:
            return text
        return scorer.prune(
            query,
            text,
            max_tokens=self.max_tokens,
            unit=self.options.prune_unit,
            text_format=self.options.text_format,
            ellipsis=self.ellipsis,
        ).text


def _bytes(asked: Hashable, kept: str) -> int:
    return sum(map(sys.getsizeof, (*cast("tuple[str, str]", asked), kept)))
