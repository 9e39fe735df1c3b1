"""Training data and a teacher for the tests of the embedded model's training, small and random."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from qr_core.mini import embedded_model
from qr_core.training import train
from tests.unit.training.tiny import write


@pytest.fixture
def training_data(tmp_path):
    """A few lines in each of the four formats."""
    folder = tmp_path / "data"
    folder.mkdir()
    words = [
        "river",
        "stone",
        "lamp",
        "bread",
        "tide",
        "oven",
        "bridge",
        "storm",
        "ship",
        "baker",
        "light",
        "tower",
        "north",
        "wind",
        "rain",
    ]
    rng = random.Random(0)
    sentence = lambda: " ".join(rng.choices(words, k=9)).capitalize() + "."  # noqa: E731
    text = lambda: " ".join(sentence() for _ in range(6))  # noqa: E731
    sources = ("nqg", "squadshifts_new_wiki", "nq_oracle")
    write(
        folder / "qa.jsonl.gz",
        [
            {"source": s, "title": f"t{i % 3}", "passage": text(), "questions": [sentence()]}
            for s in sources
            for i in range(90)
        ],
    )
    passages = lambda n: [{"title": "t", "text": text()} for _ in range(n)]  # noqa: E731
    write(
        folder / "multihop.jsonl.gz",
        [{"question": sentence(), "positives": passages(2), "negatives": passages(4)} for _ in range(50)],
    )
    write(
        folder / "books.jsonl.gz",
        [{"book": f"b{i // 8}", "chapter": i, "text": text() * 5, "events": [sentence()]} for i in range(400)],
    )
    meetings = folder / "qmsum_train"
    meetings.mkdir()
    paragraphs = lambda: [{"idx": f"p{i}", "paragraph_text": text() * (1 + 4 * (i == 2))} for i in range(8)]  # noqa: E731
    write(meetings / "meetings.json.gz", [[{"meeting": f"m{i}", "paragraphs": paragraphs()} for i in range(12)]])
    answers = (["p1"], ["p4", "p2"], ["p0", "p3", "p5", "p6", "p7"])
    write(
        meetings / "queries.json.gz",
        [[{"meeting": f"m{i}", "question": sentence(), "gt_docs": docs} for i in range(12) for docs in answers]],
    )
    return folder


@pytest.fixture(scope="module")
def initial_model(tmp_path_factory):
    """A folder as all-MiniLM-L6-v2's, here tiny and random."""
    folder = tmp_path_factory.mktemp("init")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")  # named as in the published file
    save_file({name.removeprefix("bert."): tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def sources(training_data, initial_model, tmp_path):
    return train.Sources(training_data, initial_model, tmp_path / "cache")
