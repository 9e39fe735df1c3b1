"""QRHeadRerank behind the retriever tool of a LlamaIndex agent."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import RetrieverTool
from llama_index.postprocessor.qrhead import QRHeadRerank

from tests.integrations.test_llama_index import ANSWER, QUERY, TEXTS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the framework's own


def asks_once(messages, **_):
    """A model that calls the retriever tool, then repeats what it read."""
    read = [message.content for message in messages if message.role == "tool"]
    if read:
        return ChatMessage(role="assistant", content=f"I read: {read[-1]}")
    call = ToolCallBlock(tool_call_id="call-1", tool_name="notes", tool_kwargs={"input": QUERY})
    return ChatMessage(role="assistant", blocks=[call])


def test_retriever_tool_of_an_agent():
    index = VectorStoreIndex.from_documents([Document(text=t) for t in TEXTS], embed_model=MockEmbedding(8))
    tool = RetrieverTool.from_defaults(
        index.as_retriever(similarity_top_k=4),
        name="notes",
        description="Notes on the harbour.",
        node_postprocessors=[QRHeadRerank(top_n=1)],
    )
    agent = FunctionAgent(tools=[tool], llm=MockFunctionCallingLLM(response_generator=asks_once))

    async def main():
        running = agent.run(user_msg=QUERY, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))
        results = [e async for e in running.stream_events() if isinstance(e, ToolCallResult)]
        return results, await running

    (result,), answer = asyncio.run(main())
    assert ANSWER in str(result.tool_output)
    assert TEXTS[3] not in str(result.tool_output)
    assert ANSWER in str(answer)
