"""Cross-encoder: a trained reranker's cost, for scale: the caller's, or one of MiniLM's shape with random weights.

Knows nothing of attention heads: pairs of texts go in, one score each comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, PreTrainedTokenizerBase

from qr_core.benchmark.subject import Subject
from qr_core.errors import ModelLoadError
from qr_core.types import Document

BATCH = 32
LONGEST = 512
"""Tokens of a pair; the rest is cut, as cross-encoders do."""


def cross_encoder(
    subject: Subject, tokenizer: PreTrainedTokenizerBase
) -> Callable[[str, Sequence[Document]], list[float]]:
    """A function that scores documents for a query; the model is loaded when this is called.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of a cross-encoder with random weights.

    Raises
    ------
    ModelLoadError
        When the caller's cross-encoder cannot be loaded.
    """
    name = subject.cross_encoder
    if name is None:
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id or 0,
        )
        model: Any = AutoModelForSequenceClassification.from_config(config)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(f"cannot load the cross-encoder {name}: {str(error).splitlines()[0]}") from error
    model = model.to(subject.device).eval()

    @torch.inference_mode()
    def score(query: str, documents: Sequence[Document]) -> list[float]:
        texts = sorted(range(len(documents)), key=lambda number: len(documents[number].text))
        scores = [0.0] * len(documents)
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            pairs = tokenizer(
                [query] * len(batch),
                [documents[number].text for number in batch],
                padding=len(batch) > 1,
                truncation="only_second",
                max_length=LONGEST,
                return_tensors="pt",
            ).to(subject.device)
            for number, logit in zip(batch, model(**pairs).logits[:, 0].float().tolist(), strict=True):
                scores[number] = logit
        return scores

    return score
