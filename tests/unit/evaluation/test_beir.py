"""Data sets, pools, baselines, metrics, and the command that joins them."""

from __future__ import annotations

import gzip
import json
import pickle

import pytest
from transformers import MistralConfig

from qr_core import Document, InputError, QRScorer
from qr_core.evaluation import metrics
from qr_core.evaluation.data import beir, longcontext, spans
from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.evaluation.systems.rankers import bm25_system
from qr_core.evaluation.work import Pool
from qr_core.text.pruning import Candidate
from tests.architectures import COMMON
from tests.helpers import GOLDEN

CORPUS = [
    {"_id": "a1", "title": "Harbour", "text": "The lighthouse was first lit in 1871."},
    {"_id": "a2", "title": "Harbour", "text": "Ships wait outside at low tide."},
    {"_id": "a3", "title": "Harbour", "text": "The pier is closed in storms."},
    {"_id": "b1", "title": "Bakery", "text": "The oven is lit at five."},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, CORPUS)).encode()))
    queries = [{"_id": "q1", "text": "When was the lighthouse lit?"}, {"_id": "q2", "text": "When is the oven lit?"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta1\t1\nq2\tb1\t1\n")
    (tmp_path / "run.trec").write_text("q1 Q0 a2 1 3.0 x\nq1 Q0 a1 2 2.0 x\nq2 Q0 b1 1 9.0 x\nq2 Q0 a3 2 1.0 x\n")
    return tmp_path


def test_pools_from_a_run(folder):
    data = beir.read_beir(folder)
    pools = beir.pools_from_candidates(data, beir.read_candidates(folder / "run.trec"), None)
    assert [[d.id for d in pool.documents] for pool in pools] == [["a2", "a1"], ["b1", "a3"]]
    assert pools[0].documents[1] == Document("The lighthouse was first lit in 1871.", "Harbour", "a1")
    assert [
        len(p.documents) for p in beir.pools_from_candidates(data, beir.read_candidates(folder / "run.trec"), 1)
    ] == [1, 1]


def test_pools_by_title_are_seeded_and_leave_small_titles_out(folder):
    data = beir.read_beir(folder)
    pools, left_out = beir.pools_by_title(data, 3, seed=1)
    assert left_out == 1
    assert sorted(d.id for d in pools[0].documents) == ["a1", "a2", "a3"]
    again, _ = beir.pools_by_title(data, 3, seed=1)
    assert again == pools


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("queries.jsonl", '{"_id": "q1"}', "line 1: 'text' is missing"),
        ("qrels/test.tsv", "head\nq1 a1 1\n", "line 2: expected query-id"),
        ("qrels/test.tsv", "head\nq1\ta1\t--1\n", "line 2: expected query-id"),
        ("qrels/test.tsv", "head\n", "holds no judgements"),
        ("run.trec", "q1 a1 1\n", "line 1: expected 'query Q0"),
        ("run.trec", "q1 Q0 zz 1 1.0 x\nq2 Q0 b1 1 1.0 x\n", "candidate zz of query q1"),
        ("run.trec", "q1 Q0 a1 1 1.0 x\n", "query q2 has no candidates"),
    ],
)
def test_malformed_data_is_named(folder, name, content, words):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=words):
        beir.pools_from_candidates(beir.read_beir(folder), beir.read_candidates(folder / "run.trec"), None)


def test_a_folder_without_data(tmp_path):
    with pytest.raises(InputError, match=r"neither corpus\.jsonl nor"):
        beir.read_beir(tmp_path)


def test_metrics_have_linear_gain_and_count_judged_documents_outside_the_pool():
    values = metrics.per_query({"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1, "b": 3, "outside": 2}}, ["nDCG@10", "R@5"])
    ideal = 3 + 2 / 1.584962500721156 + 1 / 2
    assert values["nDCG@10"]["q"] == pytest.approx((1 + 3 / 1.584962500721156) / ideal)
    assert values["R@5"]["q"] == pytest.approx(2 / 3)


def test_intervals_hold_the_mean():
    found = metrics.summary({str(i): i / 10 for i in range(11)})
    assert found["mean"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"]
    assert metrics.summary({})["mean"] is None


def test_bm25_ranks_the_pool():
    documents = tuple(Document(row["text"], row["title"], row["_id"]) for row in CORPUS)
    bm25 = bm25_system()
    first, second = bm25([Pool("q", "lighthouse", documents), Pool("q", "zebra", documents)])
    assert max(range(4), key=first.__getitem__) == 0
    assert second == [0.0] * 4
    assert list(bm25([Pool("q", "x", (Document(""), Document("")))])) == [[0.0, 0.0]]


def test_bm25_goes_to_other_processes():
    index = Bm25([Document(row["text"], row["title"]) for row in CORPUS])
    copied = pickle.loads(pickle.dumps(index))  # noqa: S301 - made here
    assert copied.scores("the lighthouses") == index.scores("the lighthouses")
    assert max(index.scores("the lighthouses")) > 0


def test_the_command_writes_what_others_need(run, folder, tmp_path):
    out = tmp_path / "out"
    status, printed, _ = run(
        "eval", "--task", "beir", "--data", str(folder), "--candidates", str(folder / "run.trec"),
        "--systems", "qr,all,bm25", "--order", "shuffled", "--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1",
        "--device", "cpu", "--out", str(out), "--format", "json",
    )  # fmt: skip
    assert status == 0
    report = json.loads(printed)
    assert json.loads((out / "metrics.json").read_text()) == report
    assert report["systems"]["bm25"]["nDCG@10"]["mean"] == 1.0
    assert report["systems"]["qr"]["heads"] == "2-1"
    assert report["systems"]["all"]["heads"] == "all"
    pools = [json.loads(line) for line in (out / "pools.jsonl").read_text().splitlines()]
    assert {p["query-id"] for p in pools} == {"q1", "q2"}
    again = beir.read_candidates(out / "bm25.trec")
    assert again["q1"][0] == "a1"
    assert beir.read_candidates(out / "pools.jsonl").keys() == again.keys()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--pool-by-title", "3", "--candidates", "run.trec"], "either --candidates or --pool-by-title"),
        (["--pool-by-title", "3", "--task", "longcontext"], "go with --task beir"),
        (["--systems", "qr,full-context"], "full-context only answers"),
        (["--systems", "cross-encoder"], "--cross-encoder-model"),
        (["--systems", "rankgpt"], "--ranker"),
        (["--judge", "embedded"], "--judge needs --generator"),
        (["--generator", "embedded"], "goes with --task longmemeval"),
        (["--measures", "nDCG@x"], "no measure 'nDCG@x'"),
        (["--measures", ","], "--measures names none"),
        (["--max-layer", "0", "--depth", "2"], "leaves none of the heads"),
        (["--num-heads", "99", "--depth", "2"], "has 6 heads"),
        (["--baseline", "dense", "--depth", "2"], "none of the systems: qr, bm25"),
        (["--pool-by-title", "3", "--systems", "magic"], "no system 'magic'"),
        (["--pool-by-title", "3", "--systems", ","], "--systems names none"),
        (["--pool-by-title", "50"], "no query with candidates"),
        (["--pool-by-title", "3", "--out", __file__], "is a file"),
        (["--pool-by-title", "3", "--limit", "0"], "--limit"),
    ],
)
def test_the_command_refuses_bad_options(run, folder, args, words):
    status, _, err = run("eval", "--data", str(folder), *args)
    assert status == 2
    assert words in err


MEETINGS = [
    {"meeting": "m1", "paragraphs": [{"idx": str(i), "title": "", "paragraph_text": t} for i, t in enumerate(TEXTS)]}
    for TEXTS in (["The lighthouse was lit in 1871. " * 9, "Ships wait outside. " * 12, "The pier is closed. " * 12],)
]
QUESTIONS = [
    {"idx": 7, "meeting": "m1", "question": "When was the lighthouse lit?", "gt_docs": ["0"]},
    {"idx": 8, "meeting": "m1", "question": "What is closed?", "gt_docs": ["2"]},
]


@pytest.fixture
def meetings(tmp_path):
    (tmp_path / "meetings.json.gz").write_bytes(gzip.compress(json.dumps(MEETINGS).encode()))
    (tmp_path / "queries.json").write_text(json.dumps(QUESTIONS))
    return tmp_path


def test_long_contexts_from_a_folder_and_from_one_file(meetings):
    pools, qrels = longcontext.read_long_contexts(meetings)
    assert qrels == {"7": {"0": 1}, "8": {"2": 1}}
    assert pools[0].documents is pools[1].documents
    flat = [question | {"paragraphs": MEETINGS[0]["paragraphs"]} for question in QUESTIONS]
    (meetings / "flat.json").write_text(json.dumps(flat))
    again, judged = longcontext.read_long_contexts(meetings / "flat.json")
    assert judged == qrels
    assert [(p.query, p.documents) for p in again] == [(p.query, p.documents) for p in pools]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meeting": "m9"}, "entry 1: there is no meeting 'm9'"),
        ({"gt_docs": []}, "entry 1: expected a 'question' and a list 'gt_docs'"),
        ({"gt_docs": ["12"]}, "entry 1: gold paragraph '12' is not in its context"),
        ({"idx": 7}, "entry 1: idx '7' stands twice"),
    ],
)
def test_malformed_long_contexts_are_named(meetings, change, words):
    (meetings / "queries.json").write_text(json.dumps([QUESTIONS[0], QUESTIONS[1] | change]))
    with pytest.raises(InputError, match=words):
        longcontext.read_long_contexts(meetings)


def test_windows_side_by_side(run, meetings):
    status, printed, _ = run(
        "eval", "--task", "longcontext", "--data", str(meetings), "--windows", "1,2", "--format", "json",
    )  # fmt: skip
    assert status == 0
    systems = json.loads(printed)["systems"]
    assert list(systems) == ["qr", "bm25", "qr, 1 window", "qr, 2 windows"]
    assert all(found["R@3"]["mean"] == 1.0 for found in systems.values())
    assert systems["qr, 2 windows"]["R@3"]["queries"] == 2


SPANS = {
    "corpora": [{"corpus_id": "c", "text": "The lighthouse was lit in 1871. Ships wait. " + "Bread is baked. " * 90}],
    "questions": [
        {
            "corpus_id": "c",
            "question": "When was the lighthouse lit?",
            "references": [{"start_index": 0, "end_index": 31}],
        }
    ],
}


def test_kept_characters_are_counted_exactly(tmp_path):
    (tmp_path / "spans.json").write_text(json.dumps(SPANS))
    (corpus,) = spans.read_spans(tmp_path)
    gold = corpus.questions[0][1]
    ranked = [Candidate(0, 0, 31, 2.0, 0.5), Candidate(0, 32, 43, 1.0, 0.5)]
    assert spans.measure(corpus, gold, ranked, 31) == {"recall": 1.0, "precision": 1.0, "IoU": 1.0}
    found = spans.measure(corpus, ((10, 31),), ranked, 500)
    assert found == pytest.approx({"recall": 1.0, "precision": 21 / 42, "IoU": 21 / 42})
    assert spans.measure(corpus, gold, ranked[1:], 500)["recall"] == 0.0


def test_spans_on_the_command_line(run, tmp_path):
    (tmp_path / "spans.json").write_text(json.dumps(SPANS))
    status, printed, _ = run(
        "eval", "--task", "spans", "--data", str(tmp_path), "--format", "json", "--out", str(tmp_path / "out")
    )
    assert status == 0
    systems = json.loads(printed)["systems"]
    assert systems["bm25"]["recall@500"]["mean"] == 1.0
    assert systems["qr"]["recall@500"]["mean"] == 1.0
    status, _, err = run("eval", "--task", "spans", "--data", str(tmp_path), "--systems", "dense")
    assert status == 2
    assert "--dense-model" in err


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"start_index": 5, "end_index": 5}, "has no span inside its text"),
        ({"start_index": 0, "end_index": 10**6}, "has no span inside its text"),
        ({"start": 0}, "does not hold corpora and questions"),
    ],
)
def test_malformed_spans_are_named(tmp_path, reference, words):
    question = SPANS["questions"][0] | {"references": [reference]}
    (tmp_path / "spans.json").write_text(json.dumps(SPANS | {"questions": [question]}))
    with pytest.raises(InputError, match=words):
        spans.read_spans(tmp_path)


def test_head_sets_side_by_side(run, folder):
    """The layout of the paper's table: query-focused, random, all and copying heads on the same candidates."""
    status, out, err = run(
        "eval", "--data", str(folder), "--candidates", str(folder / "run.trec"), "--format", "json", "--draws", "2",
        "--systems", "qr,random-heads,all,retrieval-heads", "--retrieval-heads", str(folder / "copy.json"),
    )  # fmt: skip
    assert status == 2
    assert "copy.json" in err
    own = QRScorer.from_pretrained().heads
    own.model_copy(update={"heads": ((0, 0, None), (0, 1, None))}).save(folder / "copy.json")
    status, out, err = run(
        "eval", "--data", str(folder), "--candidates", str(folder / "run.trec"), "--format", "json", "--draws", "2",
        "--systems", "qr,random-heads,all,retrieval-heads", "--retrieval-heads", str(folder / "copy.json"),
    )  # fmt: skip
    assert status == 0, err
    systems = json.loads(out)["systems"]
    assert list(systems) == ["qr", "random-heads 0", "random-heads 1", "all", "retrieval-heads"]
    chosen = {f"{layer}-{head}" for layer, head, _ in own.heads}
    for draw in ("random-heads 0", "random-heads 1"):
        drawn = systems[draw]["heads"].split(",")
        assert len(drawn) == len(chosen)
        assert not set(drawn) & chosen
    assert systems["random-heads 0"]["heads"] != systems["random-heads 1"]["heads"]
    status, _, err = run("eval", "--data", str(folder), "--systems", "retrieval-heads")
    assert status == 2
    assert "needs --retrieval-heads" in err


def test_heads_with_a_sliding_window_stand_in_where_there_are_no_others(run, folder, save_tiny):
    tiny = save_tiny(MistralConfig(**COMMON, head_dim=8, sliding_window=4000))
    status, out, err = run(
        "eval", "--data", str(folder), "--candidates", str(folder / "run.trec"), "--format", "json", "--draws", "1",
        "--systems", "all,random-heads", "--model", str(tiny), "--heads", "2-1,3-3", "--template", "plain",
    )  # fmt: skip
    assert status == 0, err
    systems = json.loads(out)["systems"]
    assert len(systems["all"]["head_list"].split(",")) == 32
    assert len(systems["random-heads 0"]["heads"].split(",")) == 2


def test_heads_with_a_sliding_window_do_not_stand_for_others(run, folder):
    """They would not see the whole of a long prompt: every head, and heads drawn at random, are those that do."""
    status, out, err = run(
        "eval", "--data", str(folder), "--candidates", str(folder / "run.trec"), "--format", "json", "--draws", "1",
        "--systems", "all,random-heads", "--layout", "joint",
    )  # fmt: skip
    assert status == 0, err
    systems = json.loads(out)["systems"]
    assert systems["all"]["head_list"] == ",".join(f"{layer}-{head}" for layer in (2, 3) for head in range(6))
    assert set(systems["random-heads 0"]["heads"].split(",")) == {f"3-{head}" for head in range(6)}
