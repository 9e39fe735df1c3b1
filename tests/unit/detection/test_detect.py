"""Head detection: planted heads, criteria, resuming, bad data, what is loaded."""

from __future__ import annotations

import random

import ir_measures
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig

from qr_core import Document, InputError, QRScorer
from qr_core.attention.layers import layers_of
from qr_core.detection.detect import Example, criteria, detect_heads, measure
from qr_core.files.workfolder import WorkFolder
from qr_core.heads.sets import HeadSet
from qr_core.model.loading import ModelSource, load_config
from tests.architectures import COMMON, FAMILIES
from tests.planted import Planted

WORDS = """
copper lantern marmalade orchard violin glacier pepper harbour candle thunder velvet anchor walnut meadow puzzle
saddle turnip wizard basket feather hammer island jacket kettle lemon mirror needle oyster pillow rocket
""".split()  # noqa: SIM905 - easier to read
PLANTED = (1, 2)


def example(number: int, documents: int = 10) -> Example:
    """A question whose words stand in one document only."""
    rng = random.Random(number)
    words = rng.sample(WORDS, 3 * documents)
    texts = [" ".join(words[3 * i : 3 * i + 3]) for i in range(documents)]
    gold = rng.randrange(documents)
    query = " ".join(rng.sample(texts[gold].split(), 3))
    return Example(f"e{number}", query, tuple(Document(text) for text in texts), (gold,))


EXAMPLES = [example(n) for n in range(12)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folders of the model with its planted head whole, and with that head's keys destroyed."""
    folder = tmp_path_factory.mktemp("planted")
    model = Planted()
    model.attend_to_like_words(*PLANTED)
    whole = model.save(folder / "whole")
    model.destroy_keys(*PLANTED)
    return whole, model.save(folder / "destroyed")


@pytest.mark.parametrize("criterion", ["qrscore", "ndcg", "contrastive"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_each_criterion_finds_the_planted_head(planted, criterion, calibrated):
    whole, destroyed = planted
    options = {"calibrated": calibrated, "num_heads": 2, "temperature": 0.01, "device": "cpu"}
    found = detect_heads(whole, EXAMPLES, criterion, **options)
    assert found.heads.heads[0][:2] == PLANTED
    lost = detect_heads(destroyed, EXAMPLES, criterion, **options)
    scores = {(layer, head): score for layer, head, score in lost.heads.provenance.scores}
    others = [score for pair, score in scores.items() if pair != PLANTED]
    usual = sum(others) / len(others)
    assert scores[PLANTED] < (found.heads.heads[0][2] + usual) / 2  # no longer apart from the others
    assert len(found.measured) == 12
    assert found.left_out == {}


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
    monkeypatch.setattr("qr_core.detection.detect.measure", lambda scorer, e: read.append(e.id) or measure(scorer, e))
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


def test_a_work_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use"):
        WorkFolder(tmp_path / "file", {})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(InputError, match="cannot use"):
        WorkFolder(tmp_path, {})


def test_bad_examples_are_named_counted_and_change_nothing(planted):
    first = EXAMPLES[0]
    bad = [
        Example("no gold", first.query, first.documents, ()),
        Example("far gold", first.query, first.documents, (19,)),
        Example("all gold", first.query, first.documents[:2], (0, 1)),
        Example("no query", " ", first.documents, (0,)),
        Example("nothing", first.query, (), (0,)),
        Example("too long", first.query, (Document("word " * 5000), *first.documents), (1,)),
    ]
    clean = detect_heads(planted[0], EXAMPLES[:4], device="cpu")
    found = detect_heads(planted[0], [*bad[:3], *EXAMPLES[:4], *bad[3:]], unreadable={"x": "torn"}, device="cpu")
    assert found.heads.heads == clean.heads.heads
    assert found.heads.provenance.fingerprint == clean.heads.provenance.fingerprint
    assert found.heads.provenance.left_out == 7
    assert set(found.left_out) == {e.id for e in bad} | {"x"}
    assert "tokens longer than 4096" in found.left_out["too long"]
    assert "there are 10" in found.left_out["far gold"]
    with pytest.raises(InputError, match=r"no usable example among 6; 6 left out, the first, no gold, because none"):
        detect_heads(planted[0], bad, device="cpu")
    with pytest.raises(InputError, match="no usable example among 0"):
        detect_heads(planted[0], [], device="cpu")


def test_repeated_ids_stay_apart(planted):
    twice = [EXAMPLES[0], Example("e0", "q", EXAMPLES[0].documents, ())]
    found = detect_heads(planted[0], twice, device="cpu")
    assert list(found.left_out) == ["e0 (2)"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criterion": "best"}, "criterion"), ({"num_heads": 0}, "num_heads"), ({"num_heads": 9}, "only 8 heads"),
        ({"sample": 0}, "sample"), ({"temperature": 0}, "temperature"), ({"max_layer": -1}, "max_layer"),
    ],
)  # fmt: skip
def test_wrong_options(planted, options, words):
    with pytest.raises(InputError, match=words):
        detect_heads(planted[0], EXAMPLES, device="cpu", **options)


def test_shuffling_depends_on_seed_and_example_alone():
    one = example(1)
    assert one.shuffled(0) == one.shuffled(0)
    assert len({one.shuffled(seed).documents for seed in range(8)}) > 4
    for seed in range(5):
        moved = one.shuffled(seed)
        assert [moved.documents[g] for g in moved.gold] == [one.documents[g] for g in one.gold]


def test_heads_in_sliding_windows_are_not_judged(save_tiny):
    folder = save_tiny(FAMILIES["gemma2"]())
    found = detect_heads(folder, EXAMPLES[:2], device="cpu", dtype="float32", template="plain")
    windows = [layer.window for layer in layers_of(load_config(ModelSource(str(folder))))]
    assert {layer for layer, _ in found.candidates} == {n for n, window in enumerate(windows) if window is None}
    assert any(windows)


def test_documents_apart_are_as_long_as_the_positions_they_take(save_tiny):
    """More tokens than a window holds are no reason to leave an example out, more positions are."""
    folder = save_tiny(MistralConfig(**COMMON, head_dim=8, sliding_window=100))
    scorer = QRScorer.from_pretrained(folder, "all", template="plain", device="cpu", layout="independent")
    short, long = Document("The tide turns at six."), Document("Rye bread. " * 100)
    examples = [Example("many", "tide", (short, *[Document("Rye bread.")] * 40), (0,))]
    examples.append(Example("long", "tide", (short, long), (0,)))
    found = detect_heads(scorer, examples, "ndcg", num_heads=1)
    assert len(found.left_out) == 1
    assert "longer than 100" in found.left_out["long"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.permutations(range(12)), min_size=1, max_size=5), st.sets(st.integers(0, 11), min_size=1, max_size=11)
)
def test_ndcg_is_trec_evals(rows, gold):
    found = criteria.ndcg(torch.tensor(rows, dtype=torch.float64), sorted(gold))
    qrels = {"q": {f"d{g}": 1 for g in gold}}
    for value, row in zip(found.tolist(), rows, strict=True):
        run = {"q": {f"d{n}": float(score) for n, score in enumerate(row)}}
        (expected,) = ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run)
        assert value == pytest.approx(expected.value, abs=1e-6)


def test_criteria_by_hand():
    scores = torch.tensor([[0.3, 0.1, 0.2], [0.0, 0.0, 0.4]], dtype=torch.float64)
    assert criteria.gold_mass(scores, [0, 2]).tolist() == pytest.approx([0.25, 0.2])
    assert criteria.ndcg(scores, [1]).tolist() == pytest.approx(
        [0.5, 1 / torch.log2(torch.tensor(4.0)).item() * 0 + 0.5]
    )
    e = torch.exp(scores / 0.1)
    expected = [e[0, 0] / e[0].sum(), e[1, 0] / e[1].sum()]
    assert criteria.contrastive(scores, [0], 0.1).tolist() == pytest.approx([float(x) for x in expected])
    tiny = criteria.contrastive(scores, [2], 1e-6)
    assert tiny.tolist() == pytest.approx([0.0, 1.0])
