"""A LlamaIndex node postprocessor over the shared scorer: conversion and events.

Options, ranking and pruning are those of `qr_core.chain`.
"""

from __future__ import annotations

from typing import Any

from llama_index.core import instrumentation
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from qr_core import InputError
from qr_core.chain import ChainOptions, Kept

dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]


class QRHeadRerank(ChainOptions, BaseNodePostprocessor):
    """Reorder nodes by the attention that query-focused heads pay to them, best first, and prune them if asked to.

    Returned nodes are copies; their score is the node's share of the positive attention mass, in [0, 1], which
    depends on the other nodes of the call. Nodes are scored on their content with `metadata_mode`; only their own text
    is pruned, and `qrhead_spans` (characters of that text), `qrhead_kept_tokens` and `qrhead_total_tokens` are put
    into metadata that stays out of prompts. With `keep_retrieval_score`, the score from before stands there as
    `retrieval_score`. The model loads at the first call.
    """

    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Which metadata is scored as text.")

    @classmethod
    def class_name(cls) -> str:
        """Name under which the component is serialised."""
        return "QRHeadRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("QRHeadRerank needs a query: pass query_bundle or query_str")
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model_name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model_name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        ranked: list[NodeWithScore] = []
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                ranked = self._ranked(query_bundle.query_str, nodes)
                event.on_end(payload={EventPayload.NODES: ranked})
        finally:  # a start event never stays alone
            dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes or query_bundle is None:  # nothing to load a model for
            return self._postprocess_nodes(nodes, query_bundle)
        return await self.in_scorers_thread(self._postprocess_nodes, nodes, query_bundle)

    def _ranked(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        scored = [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]
        plain = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        return [self._copy(nodes[kept.index], kept) for kept in self.select(query, scored, plain)]

    def _copy(self, given: NodeWithScore, kept: Kept) -> NodeWithScore:
        node = given.node.model_copy(deep=True)
        added = kept.pruning()
        if self.keep_retrieval_score and given.score is not None:
            added["retrieval_score"] = float(given.score)
        node.metadata.update(added)
        for excluded in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
            excluded.extend(key for key in added if key not in excluded)
        if kept.text is not None:
            node.set_content(kept.text)
        return NodeWithScore(node=node, score=kept.relevance)
