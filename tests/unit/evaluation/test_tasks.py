"""Tasks on the command line: which options go with each, which queries are drawn, and what is measured."""

from __future__ import annotations

import json

import pytest

from qr_core import Document
from qr_core.evaluation.tasks import TASKS, Task
from qr_core.evaluation.work import CandidateSet, Expected, Work
from tests.unit.evaluation.sample import QUERIES, TEXTS, TINY, means, timeless, write_beir


def test_shuffling_is_seeded_and_the_same_for_all_systems(evaluated, beir, tmp_path):
    sets = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        args = ["--order", "shuffled", "--seed", str(seed), "--systems", "given,bm25", "--out", tmp_path / name]
        report = evaluated(*beir, *args)
        assert report["order"] == "shuffled"
        sets.append([json.loads(line) for line in (tmp_path / name / "pools.jsonl").read_text().splitlines()])
        given = {}
        for line in (tmp_path / name / "given.trec").read_text().splitlines():
            given.setdefault(line.split()[0], []).append(line.split()[2])
        assert [given[row["query-id"]] for row in sets[-1]] == [row["candidates"] for row in sets[-1]]
    assert sets[0] == sets[1] != sets[2]
    assert all(sorted(row["candidates"]) == sorted(TEXTS) for row in sets[0])
    assert {tuple(row["candidates"]) for row in sets[0]} != {tuple(TEXTS)}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task", "niah", "--lengths", "500.5"], "use whole numbers"),
        (["--task", "niah", "--depths", "nan"], "use numbers from 0 to 1"),
        (["--task", "niah", "--lengths", ","], "no lengths"),
        (["--needles", "x.jsonl"], "--needles goes with --task niah"),
        (["--task", "spans", "--windows", "2"], "--segments does not go with --task spans"),
        (["--task", "spans", "--orders", "2"], "--orders does not go with --task spans"),
        (["--task", "spans", "--order", "shuffled"], "--order does not go with --task spans"),
        (["--task", "spans", "--measures", "RR"], "--measures does not go with --task spans"),
        (["--task", "chess"], "task is 'chess': use one of beir, longcontext, longmemeval, clipper"),
        (["--lengths", "100"], "--lengths goes with --task niah"),
        (
            ["--task", "multihop", "--generator", "embedded"],
            "--generator goes with --task longmemeval, clipper or niah",
        ),
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
    first = json.loads((tmp_path / "out" / "pools.jsonl").read_text().splitlines()[0])
    assert len(first["texts"]) == len(first["candidates"])
    few = evaluated(
        *args, "--limit", "3", "--systems", "given", "--out", tmp_path / "few"
    )  # not every cell has a query
    assert few["queries"] == 3


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


# A task of one's own


def two_questions(request) -> Work:
    """A task as one would write it: a file of lines `question<TAB>word`; documents are the words."""
    rows = [line.split("\t") for line in request.path.read_text().splitlines()]
    words = tuple(Document(word, id=word) for _, word in rows)
    sets = [CandidateSet(f"q{number}", question, words) for number, (question, _) in enumerate(rows)]
    qrels = {f"q{number}": {word: 1} for number, (_, word) in enumerate(rows)}
    expected = {f"q{number}": Expected(question, word) for number, (question, word) in enumerate(rows)}
    return Work(sets, qrels, expected)


@pytest.fixture
def throwaway():
    TASKS.add("throwaway", Task(two_questions, ("RR",), takes=("depth",), refuses=("orders",)))
    yield
    TASKS.remove("throwaway")


def test_a_task_of_ones_own(evaluated, run, throwaway, tmp_path):
    (tmp_path / "words.tsv").write_text("Which herons count?\therons\nWhich geese count?\tgeese\n")
    args = ["eval", "--task", "throwaway", "--data", str(tmp_path / "words.tsv"), "--systems", "bm25,given"]
    report = evaluated(*args, "--depth", "3", "--out", tmp_path / "out")
    assert (report["task"], report["measures"], report["queries"]) == ("throwaway", ["RR"], 2)
    assert means(report, "RR") == {"bm25": 1.0, "given": 0.75}
    assert (tmp_path / "out" / "report.md").read_text().startswith("# throwaway: words.tsv")
    for more, words in (
        (["--orders", "2"], "--orders does not go with --task throwaway"),
        (["--generator", "embedded"], "--generator goes with --task longmemeval, clipper or niah"),
        (["--max-words", "2"], "--max-words goes with --task beir"),
    ):
        status, _, err = run(*args, *more)
        assert status == 2
        assert words in " ".join(err.split())


def test_a_task_without_its_data(run):
    status, _, err = run("eval", "--task", "clipper", "--systems", "bm25")
    assert status == 2
    assert "--task clipper needs --data" in err
