"""Encoders, for scale: a cross-encoder, the caller's or one of MiniLM's shape, and a dense encoder of that shape.

Random weights take the time of trained ones. Both have the device and the type of the measured model, and, with random
weights, its tokenizer. Texts go in, one score each comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    PreTrainedTokenizerBase,
)

from qr_core.benchmark.subject import Loaded
from qr_core.errors import ModelLoadError, reason_of
from qr_core.types import Document

Score = Callable[[str, Sequence[Document]], list[float]]
BATCH = 32
LONGEST = 512
"""Tokens of a text or pair; the rest is cut, as such encoders do."""


def cross_encoder(loaded: Loaded) -> Score:
    """A function that scores documents for a query, pair by pair; the model is loaded when this is called.

    Raises
    ------
    ModelLoadError
        When the caller's cross-encoder cannot be loaded.
    """
    name, tokenizer, device = loaded.subject.cross_encoder, loaded.tokenizer, loaded.device
    if name is None:
        model: Any = AutoModelForSequenceClassification.from_config(_shape(tokenizer))
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(f"cannot load the cross-encoder {name}: {reason_of(error)}") from error
    model = model.to(device, loaded.partial().dtype).eval()

    @torch.inference_mode()
    def score(query: str, documents: Sequence[Document]) -> list[float]:
        texts = [document.text for document in documents]
        scores = [0.0] * len(documents)
        for batch in _batches(texts):
            pairs = _encoded(tokenizer, device, [query] * len(batch), [texts[number] for number in batch])
            for number, logit in zip(batch, model(**pairs).logits[:, 0].float().tolist(), strict=True):
                scores[number] = logit
        return scores

    return score


def dense(loaded: Loaded) -> Score:
    """A function that scores documents by the cosine of mean states, random weights; nothing is kept between calls."""
    tokenizer, device = loaded.tokenizer, loaded.device
    model: Any = AutoModel.from_config(_shape(tokenizer)).to(device, loaded.partial().dtype).eval()

    @torch.inference_mode()
    def score(query: str, documents: Sequence[Document]) -> list[float]:
        texts = [query, *(document.text for document in documents)]
        means = torch.empty(len(texts), model.config.hidden_size)
        for batch in _batches(texts):
            given = _encoded(tokenizer, device, [texts[number] for number in batch])
            states, mask = model(**given).last_hidden_state.float(), given["attention_mask"][..., None]
            means[batch] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).cpu()
        return [float(value) for value in cosine_similarity(means[:1], means[1:])]

    return score


def _shape(tokenizer: PreTrainedTokenizerBase) -> BertConfig:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        pad_token_id=tokenizer.pad_token_id or 0,
    )
    config.num_labels = 1
    return config


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts of like length."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


def _encoded(tokenizer: PreTrainedTokenizerBase, device: str, *texts: list[str]) -> Any:
    several = len(texts[0]) > 1
    cut = "only_second" if len(texts) == 2 else True
    given = tokenizer(*texts, padding=several, truncation=cut, max_length=LONGEST, return_tensors="pt")
    return given.to(device)
