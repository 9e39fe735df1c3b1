"""Detection and evaluation on a pool of workers, in this process instead of Ray; `make heavy` has Ray itself."""

from __future__ import annotations

import json
import pickle
import shutil
import sys

import pytest

from qr_core import ContextLengthError, Document, InputError, QRScorer, detect_heads
from qr_core.errors import StoppedError
from qr_core.evaluation import pooled
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.systems.attention import attention_ranker
from qr_core.evaluation.systems.entry import Entry
from qr_core.evaluation.work import CandidateSet
from qr_core.parallel.pool import Workers, on_ray
from tests.helpers import GOLDEN
from tests.unit.detection.test_detect import EXAMPLES
from tests.unit.evaluation.sample import QUERIES, TINY, scores_of, timeless, write_beir

MODEL = str(GOLDEN / "tiny-llama")
DETECT = {"template": "plain", "num_heads": 3, "device": "cpu"}
CANDIDATES = {"q1": ["d1", "d2", "d3"], "q2": ["d1", "d2", "d3"], "q3": ["d4", "d6"], "q4": ["d3", "d2", "d5"]}
SYSTEMS = [*TINY, "--systems", "qr,random-heads,given,bm25", "--draws", "1", "--orders", "2"]


def sent(value):
    return pickle.loads(pickle.dumps(value))  # noqa: S301


class Elsewhere:
    """Stands for Ray: everything is pickled on the way, results come last first, and some workers die."""

    def __init__(self) -> None:
        self.items: list = []
        self.lost: set[int] = set()

    def __call__(self, items, make, workers, device=None, read=None):
        self.items = list(items)
        make, function = sent(make), None
        for number in reversed(range(len(items))):
            if number not in self.lost:
                function = function or make()
                yield number, sent(function(sent(items[number])))


@pytest.fixture
def elsewhere(monkeypatch):
    pool = Elsewhere()
    for module in ("detection.measuring", "evaluation.pooled"):
        monkeypatch.setattr(f"qr_core.{module}.on_ray", pool)
    return pool


@pytest.fixture
def beir(tmp_path):
    args = write_beir(tmp_path / "set")
    rows = [{"query-id": query, "candidates": candidates} for query, candidates in CANDIDATES.items()]
    (tmp_path / "set" / "pools.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return args


def test_the_identical_head_set(tmp_path, elsewhere):
    detect_heads(MODEL, EXAMPLES, **DETECT, work=tmp_path / "a").heads.save(tmp_path / "a.json")
    elsewhere.lost = {0, 3}
    with pytest.raises(StoppedError, match=r"2 of 12 examples are not done \(e0, e3\)"):
        detect_heads(MODEL, EXAMPLES, **DETECT, work=tmp_path / "b", engine="ray")
    elsewhere.lost = set()
    steps = []
    found = detect_heads(
        MODEL, EXAMPLES, **DETECT, work=tmp_path / "b", engine="ray", progress=lambda *step: steps.append(step)
    )
    found.heads.save(tmp_path / "b.json")
    assert [example.id for example in elsewhere.items] == ["e0", "e3"]
    assert steps == [(done, 12) for done in range(1, 13)]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_scorer_stays_where_it_is():
    scorer = QRScorer.from_pretrained(MODEL, "2-1", template="plain", device="cpu")
    with pytest.raises(InputError, match="pass the model's name or folder, not a QRScorer"):
        detect_heads(scorer, EXAMPLES, engine="ray")
    with pytest.raises(InputError, match="engine"):
        detect_heads(MODEL, EXAMPLES, **DETECT, engine="spark")


def test_without_ray_one_line_names_the_extra(run, beir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(on_ray([], lambda: str, Workers())) == []
    (tmp_path / "examples.jsonl").write_text('{"query": "Who?", "documents": ["a b c", "d e f"], "gold": [0]}\n')
    detect = ["detect", "--data", str(tmp_path / "examples.jsonl"), "--out", str(tmp_path / "h.json"), *TINY[:2]]
    for args in ([*detect, "--template", "plain", "--device", "cpu"], [*beir, *TINY]):
        status, out, err = run(*args, "--engine", "ray")
        assert (status, out) == (2, "")
        assert "ray is missing: pip install 'qrhead[distributed]'" in err


def test_what_does_not_go_with_ray(run, tmp_path):
    status, _, err = run("detect", "--criterion", "copy-paste", "--out", str(tmp_path / "h.json"), "--engine", "ray")
    assert status == 2
    assert "copy-paste runs in this process" in err
    status, _, err = run("eval", "--task", "spans", "--data", __file__, "--engine", "ray")
    assert status == 2
    assert "--engine ray does not go with --task spans" in err


def test_the_same_evaluation(evaluated, beir, tmp_path, elsewhere):
    local = evaluated(*beir, *SYSTEMS, "--out", tmp_path / "local")
    there = evaluated(*beir, *SYSTEMS, "--out", tmp_path / "pooled", "--engine", "ray")
    names = ["qr", "random-heads 0", "qr, order 1", "qr, order 2"]
    assert [name for _, name, _ in elsewhere.items] == [name for name in names for _ in CANDIDATES]
    assert there.pop("notes")[-1].startswith("attention systems ranked on Ray")
    del local["notes"]
    assert timeless(there) == timeless(local)
    for path in (tmp_path / "local").glob("*.trec"):
        assert (tmp_path / "pooled" / path.name).read_bytes() == path.read_bytes()
    records = [
        json.loads(line) for line in (tmp_path / "pooled" / "work" / "qr" / "records.jsonl").read_text().splitlines()
    ]
    assert all(record["seconds"] > 0 for record in records)
    evaluated(*beir, *SYSTEMS, "--out", tmp_path / "local", "--engine", "ray")  # goes on with what the other kept


def test_queries_over_the_same_documents_stay_together():
    shelf, other = (Document("a"), Document("b")), (Document("a"), Document("b"))
    sets = [CandidateSet(f"q{n}", "who?", shelf if n < 3 else other, collection=shelf) for n in range(5)]
    journal = Journal(None, {})
    journal.add("q1", {"seconds": 1.0})
    items = sent(pooled._waiting(Entry("qr", kind="qr"), sets, journal))
    assert [(kind, name, [candidates.query_id for candidates in group]) for kind, name, group in items] == [
        ("qr", "qr", ["q0", "q2"]), ("qr", "qr", ["q3", "q4"]),
    ]  # fmt: skip
    for *_, group in items:
        assert group[0].documents is group[1].documents
        assert group[0].collection == ()


def test_lost_and_failing_queries_are_named_and_tried_again(evaluated, beir, tmp_path, elsewhere, monkeypatch):
    def failing(scorer, order, segments=None):
        ranker = attention_ranker(scorer, order, segments)

        def rank(sets):
            if sets[0].query == QUERIES["q4"]:
                raise ContextLengthError("long")
            yield from ranker(sets)

        return rank

    args = [*beir, *TINY, "--systems", "qr,bm25", "--engine", "ray", "--out", tmp_path / "out"]
    elsewhere.lost = {0, 1}
    with monkeypatch.context() as patch:
        patch.setattr("qr_core.evaluation.systems.attention.attention_ranker", failing)
        report = evaluated(*args)
    assert report["systems"]["qr"]["failed"] == {
        "q4": "ContextLengthError: long",
        "q1": "its worker died 6 times",
        "q2": "its worker died 6 times",
    }
    assert list(scores_of(tmp_path / "out", "qr")) == ["q3"]
    elsewhere.lost = set()
    assert "failed" not in evaluated(*args)["systems"]["qr"]
    assert len(elsewhere.items) == 3


def test_missing_weights_cost_their_own_rows(evaluated, beir, tmp_path, elsewhere):
    shutil.copytree(MODEL, tmp_path / "model")
    for path in (tmp_path / "model").glob("*.safetensors"):
        path.unlink()
    report = evaluated(
        *beir, "--model", tmp_path / "model", "--heads", "2-1", "--systems", "qr,bm25", "--engine", "ray"
    )
    assert [name for name, row in report["systems"].items() if "missing" in row] == ["qr"]
