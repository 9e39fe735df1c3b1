"""Which head set a caller means, and whether it belongs to the model."""

from __future__ import annotations

import pytest

from qr_core import HeadSet, HeadSetError, QRScorer
from qr_core.heads import HeadShape
from qr_core.heads.resolve import resolve
from tests.helpers import DOCUMENTS, GOLDEN, QUERY
from tests.unit.heads.sets import FIELDS

SHAPE = HeadShape(**FIELDS["config"])
LLAMA_8B = HeadShape(layers=32, heads=32, kv_heads=8, hidden=4096)


def resolved(heads, model="org/model", revision=None, shape=SHAPE, template=None, chat=False, allow=False):
    return resolve(heads, model, model, revision, shape, template, chat, allow)


def test_a_hub_id_gets_its_default():
    found, name = resolved(None, "meta-llama/Llama-3.1-8B-Instruct", shape=LLAMA_8B)
    assert name == "llama-3.1-8b-instruct/nq"
    assert found.default


def test_no_heads_known_says_how_to_get_them():
    with pytest.raises(HeadSetError, match=r"no heads are known for org/model.*heads='all'.*pairs.*file"):
        resolved(None)
    with pytest.raises(HeadSetError, match=r"llama-3\.1-8b-instruct/lme"):  # of this shape: maybe a local copy
        resolved(None, "org/llama-finetune", shape=LLAMA_8B)


def test_another_models_set_is_refused_unless_allowed():
    with pytest.raises(HeadSetError, match="allow_model_mismatch"):
        resolved("llama-3.1-8b-instruct/lme", "org/llama-finetune", shape=LLAMA_8B)
    found, _ = resolved("llama-3.1-8b-instruct/lme", "org/llama-finetune", shape=LLAMA_8B, allow=True)
    assert found.model == "meta-llama/Llama-3.1-8B-Instruct"


def test_another_shape_is_always_refused():
    with pytest.raises(HeadSetError, match=r"32 layers.*6 layers"):
        resolved("llama-3.1-8b-instruct/lme", allow=True)


def test_a_local_folder_is_known_by_its_shape(tmp_path):
    found, _ = resolved("llama-3.1-8b-instruct/lme", str(tmp_path), shape=LLAMA_8B)
    assert found.deepest == 17


def test_another_revision_is_refused_unless_allowed():
    pinned = HeadSet(**FIELDS, revision="abc")
    with pytest.raises(HeadSetError, match="revision abc"):
        resolved(pinned)
    assert resolved(pinned, revision="abc")[0] is pinned
    assert resolved(pinned, allow=True)[0] is pinned


def test_another_template_is_refused():
    with pytest.raises(HeadSetError, match="found under template 'plain'"):
        resolved(HeadSet(**FIELDS), template="chat")


def test_all_heads_and_pairs():
    every, name = resolved("all")
    assert name == "all"
    assert len(every.heads) == 48
    assert every.template == "plain"
    assert resolved("all", chat=True)[0].template == "chat"
    pairs, _ = resolved(" 3-1, 2-7 ")
    assert pairs.by_layer() == {2: [7], 3: [1]}
    with pytest.raises(HeadSetError, match=r"6-0, 1-8.*layers 0-5 and heads 0-7"):
        resolved("6-0,1-8,1-1")
    with pytest.raises(HeadSetError, match="strings that a head set carries"):
        resolved("1-1", template="reference")


@pytest.mark.parametrize("heads", [[(1, 1)], 5, "a\0b", "9" * 5000 + "-1"])
def test_heads_of_no_known_form(heads):
    with pytest.raises(HeadSetError):
        resolved(heads)


def test_the_embedded_model_takes_its_own_sets_only():
    own = QRScorer.from_pretrained(device="cpu").heads
    with pytest.raises(HeadSetError, match="is for other/model, not qrhead-mini"):
        QRScorer.from_pretrained(heads=own.model_copy(update={"model": "other/model"}), device="cpu")
    assert QRScorer.from_pretrained(heads="1-1", device="cpu").model_name == "qrhead-mini"


@pytest.mark.parametrize("heads", ["all", "1-1"])
def test_unnamed_layout_of_an_encoder_is_its_own_sets(heads):
    """Of a decoder it stays the joint one, whatever its own set says."""
    for model, layout, template in (("embedded", "late", "bare"), ("embedded-fast", "joint", "plain")):
        scorer = QRScorer.from_pretrained(model, heads, device="cpu")
        assert (scorer.layout, scorer.heads.layout, scorer.heads.template) == (layout, layout, template)
    assert QRScorer.from_pretrained(heads=heads, layout="joint", device="cpu").layout == "joint"  # as told
    best = QRScorer.from_pretrained(heads="all", device="cpu").rank("Which bridge?", ["Rye bread.", "The bridge."])[0]
    assert best.index == 1


def test_a_head_set_in_the_models_folder_is_its_default(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (GOLDEN / "tiny-llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    HeadSet(**FIELDS).save(folder / "qrhead_heads.json")
    scorer = QRScorer.from_pretrained(folder, device="cpu")
    assert scorer.heads.by_layer() == {2: [7], 3: [1]}
    assert len(scorer.rank(QUERY, DOCUMENTS)) == 3
