"""Subject: the model of a description, with its heads: the caller's own, the embedded one, or one of random weights.

Scorers are made anew for each measurement: none finds what another one encoded. Their caches have no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import AutoModel, LlamaConfig, PreTrainedModel

from qr_core.attention.loaded import facts_of
from qr_core.benchmark.plan import RANDOM, Subject
from qr_core.cache.documents import DocumentCache
from qr_core.errors import InputError, QRHeadError
from qr_core.heads.parts import HeadShape
from qr_core.heads.resolve import resolve
from qr_core.heads.sets import HeadSet
from qr_core.model.loading import ModelSource
from qr_core.model.shared import SharedModel
from qr_core.options import ScorerOptions
from qr_core.prompts.prompt import Prompt
from qr_core.prompts.templates import NULL_QUERY, plain_template
from qr_core.scorer import QRScorer
from qr_core.types import Document, Layout

HEADS_READ = 16
NO_BOUND = 2**60
DTYPES = ("float32", "bfloat16", "float16")
NOT_RANDOM = ("revision", "device_map", "tp_size")


class RandomModel(SharedModel):
    """A model of random weights, made in memory, with as many layers as are asked for."""

    def _load(self, layers: int, kind: Any) -> PreTrainedModel:  # noqa: ARG002 - always without a head
        torch.manual_seed(0)
        config = cast(LlamaConfig, type(self.config).from_dict(self.config.to_dict()))
        config.num_hidden_layers = layers
        with torch.device(self.source.device):
            made = AutoModel.from_config(config, dtype=getattr(torch, self.source.dtype))
        return cast(PreTrainedModel, made.eval().requires_grad_(False))


class Loaded:
    """The model of a subject. Weights load at first use.

    Raises
    ------
    InputError, HeadSetError, ModelLoadError
        When the subject does not exist, or its heads do not belong to it.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._asked = subject.options.changed(model=_own_name(subject.model))
        self._base = _random(subject, self._asked) if subject.model == RANDOM else _pretrained(self._asked)
        self.shared = self._base.model
        self.shape = HeadShape.of(self.shared.config)
        self.tokenizer = self._base.tokenizer

    @property
    def heads(self) -> HeadSet:
        """The selected heads."""
        return self._base.heads

    @property
    def name(self) -> str:
        """The model's, for people."""
        return self._base.model_name

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.shared.source.device

    @property
    def layout(self) -> Layout:
        """The caller's, by default the head set's."""
        return self._asked.layout or self.heads.layout

    @property
    def sees_ahead(self) -> bool:
        """Whether it is an encoder. Only the late layout can read one; elsewhere nothing needs to load to know."""
        return self.layout == "late" and facts_of(self.partial()).sees_ahead

    def whole(self) -> PreTrainedModel:
        """The model with all its layers, without language-model head."""
        with self.shared.lock:
            return self.shared.at_depth(self.shape.layers - 1)

    def partial(self) -> PreTrainedModel:
        """The model as deep as the selected heads need."""
        with self.shared.lock:
            return self.shared.at_depth(self.heads.deepest)

    def prompts(self, query: str, documents: Sequence[Document]) -> tuple[Prompt, Prompt]:
        """The joint layout's prompt of a query, and that of `N/A`."""
        asked = self._base.reader.build(query, documents, (NULL_QUERY,))
        return asked.query, asked.references[0]

    def with_deepest(self, deepest: int) -> Loaded:
        """The same model with other heads, up to the layer `deepest`."""
        other = object.__new__(Loaded)
        other.__dict__.update(self.__dict__)
        other._base = self._base.with_heads(spread(self.name, self.shape, deepest), f"up to layer {deepest}")
        return other

    def scorer(self, layout: Layout = "joint") -> QRScorer:
        """A new scorer that has encoded nothing."""
        base = self._base
        options = self._asked.changed(layout=layout, cache_bytes=NO_BOUND).completed(base.heads)
        if layout != "joint":
            options = options.changed(max_prompt_tokens=NO_BOUND, document_cache=DocumentCache(NO_BOUND))
        return QRScorer(self.shared, base.tokenizer, base.heads, base.heads_name, options, base.template)


def spread(model: str, shape: HeadShape, deepest: int) -> HeadSet:
    """`HEADS_READ` heads in the upper half of the layers up to `deepest`, which has one for certain.

    Raises
    ------
    InputError
        When the model has no such layer.
    """
    if not 0 <= deepest < shape.layers:
        raise InputError(f"deepest layer {deepest} does not exist: the model has layers 0-{shape.layers - 1}")
    places = {(deepest - i % (deepest // 2 + 1), (i * 5) % shape.heads): None for i in range(HEADS_READ)}
    heads = tuple((layer, head, None) for layer, head in places)
    return HeadSet(model=model, config=shape, template="plain", criterion="none", data="none", heads=heads)


def _own_name(model: str) -> str:
    """What a scorer's options call the model."""
    return "random weights" if model == RANDOM else model


def _random(subject: Subject, asked: ScorerOptions) -> QRScorer:
    config = subject.shape.config()
    shape = HeadShape.of(config)
    for name in NOT_RANDOM:
        if getattr(asked, name) is not None:
            raise InputError(f"{name} is for a model from files: random weights are made in memory, on one device")
    if asked.template not in (None, "plain"):
        raise InputError(f"template {asked.template!r}: random weights have template 'plain'")
    dtype = str(asked.dtype).removeprefix("torch.")
    dtype = "bfloat16" if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    if asked.heads is None:
        heads = spread(RANDOM, shape, shape.layers * 9 // 16 if subject.deepest is None else subject.deepest)
        name = f"{HEADS_READ} heads up to layer {heads.deepest}"
    else:
        heads, name = _given(asked.heads, shape), str(asked.heads)
    source = ModelSource.of("random weights", asked.changed(dtype=dtype))
    tokenizer = QRScorer.from_pretrained(device="cpu").tokenizer
    options = asked.changed(layout="joint").completed(heads)
    return QRScorer(RandomModel(source, config), tokenizer, heads, name, options, plain_template())


def _given(heads: Any, shape: HeadShape) -> HeadSet:
    """Pairs, or a set of another model, whose template a random model has no use for."""
    try:
        found = heads.heads if isinstance(heads, HeadSet) else HeadSet.load(heads).heads
    except QRHeadError:
        return resolve(heads, RANDOM, RANDOM, None, shape, "plain", has_chat_template=False)[0]
    return HeadSet(model=RANDOM, config=shape, template="plain", criterion="none", data="none", heads=found)


def _pretrained(asked: ScorerOptions) -> QRScorer:
    return QRScorer.from_options(asked.changed(layout="joint", document_cache=None, cache_bytes=None))
