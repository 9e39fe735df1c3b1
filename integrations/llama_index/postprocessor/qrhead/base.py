"""A LlamaIndex node postprocessor over the shared scorer: options, conversion, events."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core import instrumentation
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from qr_core import QRScorer

dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]


class QRHeadRerank(BaseNodePostprocessor):
    """Reorder nodes by the attention that query-focused heads pay them, best first.

    Returned nodes are copies; their score is the node's share of the positive attention mass, in [0, 1], which
    depends on the other nodes of the call. The model loads at the first call.
    """

    model: str | None = Field(default=None, description="Hub id or folder; by default the embedded small model.")
    heads: str | None = Field(default=None, description="Head set; by default the model's own.")
    top_n: int | None = Field(default=None, ge=1, description="Keep so many; by default all.")
    order: Literal["given", "reversed"] = Field(
        default="reversed", description="reversed: the first node, the most promising, stands nearest the query."
    )
    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Which metadata is scored as text.")
    device: str | None = Field(default=None, description="By default CUDA, then MPS, then CPU.")
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16.")

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    _scorer: QRScorer | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Name under which the component is serialised."""
        return "QRHeadRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("QRHeadRerank needs a query: pass query_bundle or query_str")
        query = query_bundle.query_str
        name = self.model or "qrhead-mini"
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = self._ranked(query, nodes)
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _ranked(self, query: str, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        if not nodes:
            return []
        if self._scorer is None:
            self._scorer = QRScorer.from_pretrained(self.model, self.heads, device=self.device, dtype=self.dtype)
        texts = [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]
        ranking = self._scorer.rank(query, texts, top_k=self.top_n, order=self.order)
        return [NodeWithScore(node=nodes[hit.index].node.model_copy(deep=True), score=hit.relevance) for hit in ranking]
