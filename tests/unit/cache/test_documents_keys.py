"""Encoded documents of other models, depths or weights are told apart, and never taken for each other."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qr_core import QRScorer
from qr_core.attention.loaded import facts_of
from qr_core.cache.documents import DocumentCache, Keys
from qr_core.cache.folder import entries
from qr_core.model.fingerprint import fingerprint
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.encoded import OPTIONS, scorer_of


def test_keys_tell_everything_apart():
    base = {"kind": "independent", "model": "model", "deepest": 1, "instruction": (1, 2), "regime": None}
    others = [{"kind": "late"}, {"model": "other"}, {"deepest": 2}, {"instruction": (1,)}, {"regime": 9}]
    keys = {Keys(**base | changed, lasting=True).of((5, 6)) for changed in [{}, *others]}
    keys |= {Keys(**base, lasting=True).of(ids) for ids in [(), (5,), (56,), (6, 5)]}
    assert len(keys) == 10
    assert Keys(**base, lasting=True).of((5, 6)) == Keys(**base, lasting=False).of([5, 6])


def test_fingerprints_tell_models_apart_and_know_copies(tmp_path, save_tiny):
    from tests.architectures import FAMILIES

    folder = save_tiny(FAMILIES["llama"]())
    shutil.copytree(folder, tmp_path / "copy")
    other = save_tiny(FAMILIES["llama"](), seed=1)

    def mark(folder, deepest=1, loaded=1, dtype="float32"):
        shared = QRScorer.from_pretrained(folder, "1-1", **OPTIONS | {"dtype": dtype}).reader.model
        return fingerprint(shared.at_depth(loaded), shared.config, deepest)

    here = mark(folder)
    assert here[1]
    assert here == mark(tmp_path / "copy") == mark(folder, loaded=3)
    different = [mark(other), mark(folder, deepest=2, loaded=2), mark(folder, dtype="bfloat16")]
    assert len({here, *different}) == 4
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file(weights | {name: weights[name] * 1.001}, folder / "model.safetensors", {"format": "pt"})
    shared = QRScorer.from_pretrained(folder, "1-1", **OPTIONS).reader.model
    shared.forget()
    assert fingerprint(shared.at_depth(1), shared.config, 1) != here


def test_weights_that_show_no_values_are_known_to_this_process_only(monkeypatch, tmp_path):
    scorer = scorer_of(tmp_path / "cache")
    model = scorer.reader.model.at_depth(2)

    def hidden(*_):
        raise NotImplementedError("meta tensor")

    facts = facts_of(model)
    monkeypatch.setattr(facts, "fingerprints", {})
    monkeypatch.setattr(torch.Tensor, "reshape", hidden)
    first = fingerprint(model, scorer.reader.model.config, 2)
    monkeypatch.undo()
    assert not first[1]
    monkeypatch.setattr(facts, "fingerprints", {2: first})
    scorer.rank(QUERY, DOCUMENTS)
    assert len(scorer.document_cache) == len(DOCUMENTS) + 1
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("heads", ["1-1", "0-3,2-2"])
def test_depths_do_not_mix(tmp_path, heads):
    scorer_of(tmp_path / "cache").rank(QUERY, DOCUMENTS)
    before = len(entries(tmp_path / "cache"))
    other = scorer_of(tmp_path / "cache", heads=heads)
    assert in_order(other.rank(QUERY, DOCUMENTS)) == pytest.approx(
        in_order(scorer_of(DocumentCache(0), heads=heads).rank(QUERY, DOCUMENTS)), abs=1e-6
    )
    assert len(entries(tmp_path / "cache")) == before * (2 if heads == "1-1" else 1)


def test_another_models_entry_is_not_taken(tmp_path, save_tiny):
    """The same shapes, documents and names, other weights; even under the name that is looked for."""
    from tests.architectures import FAMILIES

    folders = [save_tiny(FAMILIES["llama"](), seed=seed) for seed in (0, 1)]
    scorers = [QRScorer.from_pretrained(f, "1-1", document_cache=tmp_path / f.name, **OPTIONS) for f in folders]
    scores = [in_order(scorer.rank(QUERY, DOCUMENTS)) for scorer in scorers]
    names = [{path.stat().st_size: path for path in (tmp_path / f.name).iterdir()} for f in folders]
    assert not {p.name for p in names[0].values()} & {p.name for p in names[1].values()}
    for size, path in names[0].items():
        shutil.copy(path, names[1][size])
    again = QRScorer.from_pretrained(folders[1], "1-1", document_cache=tmp_path / folders[1].name, **OPTIONS)
    assert in_order(again.rank(QUERY, DOCUMENTS)) == pytest.approx(scores[1], abs=1e-6)
