"""`qrhead bench`: what is compared, what is reported, and what it refuses. No test asserts a time."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from qr_core import InputError, ModelLoadError, QRHeadError, QRScorer
from qr_core.benchmark import memory, plot, report, timing
from qr_core.benchmark.encoders import cross_encoder
from qr_core.benchmark.run import Plan, run
from qr_core.benchmark.sides import SIDES, prompt_tokens, sides_of
from qr_core.benchmark.subject import Loaded, Shape, Subject, spread
from qr_core.benchmark.task import NEW_SHARE, task_of, task_of_tokens
from qr_core.cli.bench import bench as command

QUICK = SIDES[:4] + SIDES[5:7]
"""Without those that run a hundred queries or another model."""
SMALL = Subject(shape=Shape(layers=3, hidden=128), deepest=1, dtype="float32")


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Loaded(SMALL)


@pytest.fixture(scope="module")
def found(loaded) -> dict:
    """A report with every sweep, without memory."""
    plan = Plan((500, 750), QUICK, depths=(0, 2), documents=(2, 4), repeats=1, memory=False)
    return run(SMALL, plan)


def test_every_side_is_measured_and_scores_agree(found):
    assert all(entry["tokens"] <= asked for entry, asked in zip(found["lengths"], (500, 750), strict=True))
    for entry in found["lengths"]:
        assert list(entry["sides"]) == list(QUICK)
        for side in entry["sides"].values():
            assert len(side["wall"]) == len(side["cpu"]) == 1
            assert side["seconds"]["min"] <= side["seconds"]["median"] <= side["seconds"]["p95"]
            assert side["seconds"]["p95"] <= side["seconds"]["max"]
        assert entry["sides"]["plain"]["of_plain"] == 1
        assert entry["agreement"]["largest_difference_joint_published"] < 1e-5
        assert entry["agreement"]["rank_correlation_joint_published"] == pytest.approx(1)
        assert set(entry["ratios"]) >= {"joint / plain", "published / joint", "second / joint"}
    assert [entry["deepest"] for entry in found["depths"]] == [0, 2]
    assert [entry["documents"] for entry in found["documents"]] == [2, 4]
    assert set(found["length_exponents"]) >= {"plain", "joint"}
    assert set(found["document_exponents"]) == {"independent-cold", "independent-warm"}


def test_joint_scores_are_those_of_rank_and_differ_from_independent_ones(loaded):
    task = task_of(4)
    every = sides_of(loaded, task)
    scores = {name: side.run(side.prepare()) for name, side in every.items() if name != "many"}
    by_hand = loaded.scorer().rank(task.queries[0], task.documents)
    assert scores["joint"] == [hit.score for hit in sorted(by_hand, key=lambda hit: hit.index)]
    assert scores["joint"] != scores["independent-cold"]
    again = loaded.scorer("independent").rank(task.queries[-1], task.combination)
    warm = [hit.score for hit in sorted(again, key=lambda hit: hit.index)]
    assert scores["independent-warm"] == pytest.approx(warm, abs=1e-6)
    assert len(scores["cross-encoder"]) == len(scores["dense"]) == 4
    assert scores["plain"] is None


def test_a_hundred_queries_are_read_together(loaded, monkeypatch):
    asked = []
    monkeypatch.setattr(QRScorer, "rank_many", lambda self, jobs, **_: asked.append(list(jobs)))
    task = task_of(2, queries=101)
    side = sides_of(loaded, task)["many"]
    side.run(side.prepare())
    assert len(asked[0]) == len({query for query, _ in asked[0]}) == 100
    assert all(documents == task.documents for _, documents in asked[0])


def test_second_and_warm_sides_find_what_was_read_and_the_others_do_not(loaded, monkeypatch):
    """Counted in tokens of documents that run through the model."""
    ran = []
    import qr_core.reading.independent
    import qr_core.reading.reader

    for module in (qr_core.reading.reader, qr_core.reading.independent):
        real = module.prefill

        def counted(model, ids, *args, real=real, **options):
            ran.append(ids.numel())
            return real(model, ids, *args, **options)

        monkeypatch.setattr(module, "prefill", counted)
    every = sides_of(loaded, task_of(4))
    tokens = {}
    for name in ("joint", "second", "independent-cold", "independent-warm"):
        for _ in range(2):  # the second round as the first one
            given = every[name].prepare()
            ran.clear()
            every[name].run(given)
            assert tokens.setdefault(name, sum(ran)) == sum(ran)
    assert tokens["second"] == tokens["independent-warm"] == 0
    assert tokens["joint"] > 400
    assert tokens["independent-cold"] > 400


def test_tasks(loaded):
    task = task_of(20, queries=3)
    assert task == task_of(20, queries=3)
    assert len(set(task.queries)) == 3
    shared = set(task.documents) & set(task.combination)
    assert len(task.combination) == len(task.documents) == 20
    assert len(shared) == 20 - round(20 * NEW_SHARE)
    assert all(len(document.text.split()) >= 100 for document in task.documents)
    sized = task_of_tokens(900, lambda task: prompt_tokens(loaded, task))
    assert prompt_tokens(loaded, sized) <= 900 < prompt_tokens(loaded, task_of(len(sized.documents) + 1))


def test_ratios_and_exponents():
    assert timing.ratio([2, 20, 200], [1, 10, 50]) == 2
    sizes = [10, 100, 1000]
    assert timing.exponent(sizes, [0.5 * n**1.7 for n in sizes]) == pytest.approx(1.7)
    assert timing.exponent([10], [1.0]) is None


def test_memory_grows_with_what_a_side_keeps():
    """In this process, without a fresh one: keys and values of a second query were there before."""
    plain = memory.peak_of(SMALL, task_of(40), "plain")
    second = memory.peak_of(SMALL, task_of(40), "second")
    kept = 40 * 100 * 2 * 2 * 64 * 4  # tokens, layers, keys and values, width, bytes
    assert plain > 0
    assert second > kept / 2


def test_peak_memory_of_a_fresh_process():
    found = memory.peak_memory(SMALL, task_of(2), ["joint"])
    assert found["joint"] >= 0


def test_a_process_that_ends_early_is_an_error():
    with pytest.raises(QRHeadError, match="ended early"):
        memory.peak_memory(SMALL, task_of(2), ["no such side"])


def test_tables_and_plot(found):
    text = report.markdown(found)
    for words in ("independent-warm", "joint / plain", "0.380 or less", "by depth", "time grows with size"):
        assert words in text
    assert plot.png(found).startswith(b"\x89PNG")
    alone = {**found, "lengths": found["lengths"][:1], "depths": [], "documents": []}
    assert plot.png(alone).startswith(b"\x89PNG")


def test_a_missing_matplotlib_names_the_command(monkeypatch, run, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, err = run("bench", "--out", str(tmp_path / "out"))
    assert status == 2
    assert "pip install 'qrhead[eval]'" in err
    assert not (tmp_path / "out").exists()


def test_command(run, tmp_path):
    """The embedded model, and the files it leaves."""
    options = ["--model", "embedded", "--lengths", "300", "--sides", "plain,joint", "--repeats", "1", "--no-memory"]
    status, out, err = run("bench", *options, "--device", "cpu", "--format", "json", "--out", str(tmp_path / "out"))
    assert status == 0
    printed = json.loads(out)
    assert printed["conditions"]["model"] == "qrhead-mini"
    assert list(printed["lengths"][0]["sides"]) == ["plain", "joint"]
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == printed
    assert "joint / plain" in (tmp_path / "out" / "bench.md").read_text()
    assert (tmp_path / "out" / "bench.png").stat().st_size > 1000
    assert "round 1 of 1: plain" in err
    assert command.__doc__ is not None
    assert all(name in command.__doc__ for name in SIDES)


def test_table_on_the_terminal(run):
    options = ["--layers", "3", "--deepest", "1", "--hidden", "128", "--lengths", "300", "--sides", "joint,second"]
    status, out, _ = run("bench", *options, "--repeats", "1", "--no-memory", "--device", "cpu", "--dtype", "float32")
    assert status == 0
    assert "random weights: 3 layers" in out
    assert "second / joint" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--layers", "4", "--deepest", "4"], "layer 4 does not exist"),
        (["--hidden", "200"], "multiple of 128"),
        (["--dtype", "int8"], "dtype 'int8'"),
        (["--lengths", "many"], "--lengths 'many'"),
        (["--lengths", "20"], "at least 256 tokens"),
        (["--documents", "0"], "at least one document"),
        (["--depths", "3,16"], "layer 16 does not exist"),
        (["--sides", "joint,fast"], "no side 'fast'"),
        (["--heads", "40-1"], "outside the model"),
        (["--heads", "llama-3.1-8b-instruct/nq"], "outside the model"),
        (["--model", "no/such/folder/"], "no/such/folder"),
    ],
)
def test_bad_options(run, args, words):
    status, _, err = run("bench", "--device", "cpu", *args)
    assert status == 2
    assert words in err


def test_a_cross_encoder_that_is_not_there():
    with pytest.raises(ModelLoadError, match="cannot load the cross-encoder no/such/folder"):
        cross_encoder(Subject(cross_encoder="no/such/folder"), Loaded(SMALL).tokenizer, torch.float32)


def test_heads_of_a_random_model():
    shape = Loaded(SMALL).shape
    assert spread("m", shape, 2).deepest == 2
    with pytest.raises(InputError, match="layer 3 does not exist"):
        spread("m", shape, 3)
    named = Loaded(Subject(heads="0-1,2-0", shape=SMALL.shape, dtype="float32"))
    assert named.heads.by_layer() == {0: [1], 2: [0]}
    assert named.with_deepest(1).heads.deepest == 1
    assert np.isclose(SMALL.shape.config().initializer_range, 0.1414, atol=1e-3)
