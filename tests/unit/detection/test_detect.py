"""Head detection: the set that comes out, resuming, what is loaded."""

from __future__ import annotations

import pytest
import torch

from qr_core import HeadSet, InputError, QRScorer, detect_heads
from qr_core.attention.layers import layers_of
from qr_core.detection.measuring import measure
from qr_core.errors import StoppedError
from qr_core.model.loading import ModelSource, load_config
from tests.architectures import FAMILIES
from tests.unit.detection.planted import EXAMPLES, example


def test_the_detected_set_ranks_with_its_model(planted, tmp_path):
    found = detect_heads(planted[0], EXAMPLES, num_heads=1, device="cpu")
    found.heads.save(tmp_path / "heads.json")
    scorer = QRScorer.from_pretrained(planted[0], tmp_path / "heads.json", device="cpu")
    new = example(99)
    assert scorer.rank(new.query, new.documents)[0].index == new.gold[0]
    assert HeadSet.load(tmp_path / "heads.json") == found.heads
    assert found.heads.provenance.examples == 12
    assert len(found.heads.provenance.scores) == 8
    assert "torch" in found.heads.provenance.versions


def test_only_layers_that_may_be_chosen_are_loaded(planted):
    base = QRScorer.from_pretrained(planted[0], "all", device="cpu", dtype="float32")
    found = detect_heads(base, EXAMPLES[:3], max_layer=0)
    assert base.reader.model.loaded_layers == 1
    assert {layer for layer, _ in found.candidates} == {0}
    with pytest.raises(InputError, match="layers 0-1"):
        detect_heads(base, EXAMPLES, max_layer=2)


def test_an_interrupted_run_goes_on_and_gives_the_identical_file(planted, tmp_path, monkeypatch):
    options = {"shuffle": True, "sample": 10, "seed": 4, "device": "cpu"}
    whole = detect_heads(planted[0], EXAMPLES, work=tmp_path / "whole", **options)
    whole.heads.save(tmp_path / "whole.json")

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_heads(planted[0], EXAMPLES, work=tmp_path / "part", progress=stop, **options)
    (tmp_path / "part" / "000001.safetensors").write_bytes(b"half a file")
    read = []
    monkeypatch.setattr(
        "qr_core.detection.measuring.measure", lambda scorer, e: read.append(e.id) or measure(scorer, e)
    )
    again = detect_heads(planted[0], EXAMPLES, work=tmp_path / "part", **options)
    assert len(read) == 7  # 10, less 4 done, plus the damaged one
    again.heads.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    for one, other in zip(whole.measured, again.measured, strict=True):
        assert torch.equal(one.raw, other.raw)
    with pytest.raises(InputError, match="another run"):
        detect_heads(planted[0], EXAMPLES[:5], work=tmp_path / "part", **options)
    # the same numbers serve another criterion
    read.clear()
    detect_heads(planted[0], EXAMPLES, "contrastive", work=tmp_path / "part", **options)
    assert read == []


def test_heads_in_sliding_windows_are_not_judged(save_tiny):
    folder = save_tiny(FAMILIES["gemma2"]())
    found = detect_heads(folder, EXAMPLES[:2], device="cpu", dtype="float32", template="plain")
    windows = [layer.window for layer in layers_of(load_config(ModelSource(str(folder))))]
    assert {layer for layer, _ in found.candidates} == {n for n, window in enumerate(windows) if window is None}
    assert any(windows)


def test_an_example_that_breaks_a_step_is_named(planted, tmp_path, monkeypatch):
    """Whatever is raised; what is measured is kept."""

    class PanicError(BaseException):
        pass

    def failing(scorer, one):
        if one.id == EXAMPLES[2].id:
            raise PanicError("not a char boundary")
        return measure(scorer, one)

    monkeypatch.setattr("qr_core.detection.measuring.measure", failing)
    with pytest.raises(StoppedError, match=f"example {EXAMPLES[2].id}: PanicError: not a char boundary"):
        detect_heads(planted[0], EXAMPLES[:4], work=tmp_path, device="cpu")
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
