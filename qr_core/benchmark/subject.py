"""Subject: the model that is measured, with its heads: the caller's own, the embedded one, or one of random weights.

A subject is a description, so that a fresh process can make the same one; `Loaded` is what it describes. Scorers are
made anew for each measurement: none finds what another one read. Their caches have no bound.

Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AutoModel, LlamaConfig, PreTrainedModel

from qr_core.cache.documents import DocumentCache
from qr_core.errors import InputError, QRHeadError
from qr_core.heads.parts import HeadShape
from qr_core.heads.resolve import resolve
from qr_core.heads.sets import HeadSet
from qr_core.mini import EMBEDDED_NAME
from qr_core.model.loading import ModelSource, SharedModel
from qr_core.options import ScorerOptions
from qr_core.prompts.joint import Prompt
from qr_core.prompts.templates import plain_template
from qr_core.scorer import QRScorer
from qr_core.types import Document, Layout

RANDOM, EMBEDDED = "random", "embedded"
HEADS_READ = 16
NO_BOUND = 2**60
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped decoder.

    Attributes
    ----------
    heads, kv_heads, intermediate : int, optional
        By default heads of width 64, half as many key heads, and 11/4 of the hidden size.
    """

    layers: int = 16
    hidden: int = 1024
    heads: int | None = None
    kv_heads: int | None = None
    intermediate: int | None = None
    vocabulary: int = 30_522

    def config(self) -> LlamaConfig:
        """Its config, for prompts of any length.

        Raises
        ------
        InputError
            When the hidden size is not a multiple of 128.
        """
        if self.hidden % 128:
            raise InputError(f"hidden size {self.hidden} is not a multiple of 128")
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or self.hidden * 11 // 4,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads or self.hidden // 64,
            num_key_value_heads=self.kv_heads or self.hidden // 128,
            max_position_embeddings=2**21,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
            initializer_range=1.6 * self.hidden**-0.5,  # attention far from uniform, whatever the size
        )


LLAMA_8B = Shape(32, 4096, 32, 8, 14_336, 128_256)
"""Of Llama 3.1 8B."""


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes
    ----------
    model : str
        `random`, `embedded`, a hub id or a folder.
    heads : str, optional
        As for `QRScorer.from_pretrained`. A published set's heads may be read in a random model of its shape.
    deepest : int, optional
        For a random model without `heads`: the deepest layer that has one. By default just above the middle.
    device, dtype : str
    shape : Shape
        Of a random model.
    max_prompt_tokens : int, optional
        As for `QRScorer.from_pretrained`.
    cross_encoder : str, optional
        Hub id or folder; by default one of MiniLM's shape with random weights.
    """

    model: str = RANDOM
    heads: str | None = None
    deepest: int | None = None
    device: str = "cpu"
    dtype: str = "auto"
    shape: Shape = Shape()
    max_prompt_tokens: int | None = None
    cross_encoder: str | None = None


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
        self._base = _random(subject) if subject.model == RANDOM else _pretrained(subject)
        self.shared = self._base.reader.model
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
        return self._base.reader.build(query, documents)

    def with_deepest(self, deepest: int) -> Loaded:
        """The same model with other heads, up to the layer `deepest`."""
        other = object.__new__(Loaded)
        other.__dict__.update(self.__dict__)
        other._base = self._base.with_heads(spread(self.name, self.shape, deepest), f"up to layer {deepest}")
        return other

    def scorer(self, layout: Layout = "joint") -> QRScorer:
        """A new scorer that has read nothing."""
        base = self._base
        options = base.options.changed(
            layout=layout,
            max_prompt_tokens=base.max_prompt_tokens if layout == "joint" else NO_BOUND,
            cache_bytes=NO_BOUND,
            document_cache=DocumentCache(NO_BOUND) if layout == "independent" else None,
        )
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


def _random(subject: Subject) -> QRScorer:
    config = subject.shape.config()
    shape = HeadShape.of(config)
    dtype = "bfloat16" if subject.dtype == "auto" else subject.dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    if subject.heads is None:
        heads = spread(RANDOM, shape, shape.layers * 9 // 16 if subject.deepest is None else subject.deepest)
    else:
        heads = _given(subject.heads, shape)
    return QRScorer(
        RandomModel(ModelSource(name="random weights", dtype=dtype, device=subject.device), config),
        QRScorer.from_pretrained(device="cpu").tokenizer,
        heads,
        subject.heads or f"{HEADS_READ} heads up to layer {heads.deepest}",
        ScorerOptions(
            model="random weights", layout="joint", calibrate=True, max_prompt_tokens=subject.max_prompt_tokens
        ),
        plain_template(),
    )


def _given(heads: str, shape: HeadShape) -> HeadSet:
    """Pairs, or a set of another model, whose template a random model has no use for."""
    try:
        found = HeadSet.load(heads).heads
    except QRHeadError:
        return resolve(heads, RANDOM, RANDOM, None, shape, "plain", has_chat_template=False)[0]
    return HeadSet(model=RANDOM, config=shape, template="plain", criterion="none", data="none", heads=found)


def _pretrained(subject: Subject) -> QRScorer:
    return QRScorer.from_pretrained(
        None if subject.model in (EMBEDDED, EMBEDDED_NAME) else subject.model,
        subject.heads,
        layout="joint",
        device=subject.device,
        dtype=subject.dtype,
        max_prompt_tokens=subject.max_prompt_tokens,
    )
