"""Tiny training data of the four kinds, and a tiny encoder in a folder as all-MiniLM-L6-v2's."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from qr_core.mini import embedded_model
from tests.unit.training.tiny import write

WORDS = ["river", "stone", "lamp", "bread", "tide", "oven", "bridge", "storm", "ship", "baker", "light", "tower"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    sentence = lambda: " ".join(rng.choices(WORDS, k=7)).capitalize() + "."  # noqa: E731
    rows = lambda source, n: [  # noqa: E731
        {"source": source, "title": f"t{i % 3}", "passage": sentence(), "questions": [sentence()]} for i in range(n)
    ]
    write(folder / "qa.jsonl.gz", [*rows("nqg", 60), *rows("faq", 30)])
    write(folder / "qa2.jsonl.gz", rows("manuals", 30))
    some = lambda n: [{"title": "t", "text": sentence()} for _ in range(n)]  # noqa: E731
    pairs = lambda source, n: [  # noqa: E731
        {"source": source, "question": sentence(), "positives": some(1), "negatives": some(6)} for _ in range(n)
    ]
    write(folder / "pairs2.jsonl.gz", [*pairs("claims", 12), *pairs("mtrag", 3)])
    write(folder / "multihop.jsonl.gz", pairs("hops", 12))
    return folder


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
