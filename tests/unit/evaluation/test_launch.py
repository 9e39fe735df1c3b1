"""The command: what it writes for others, and what it refuses."""

from __future__ import annotations

import json

import pytest

from qr_core.bulk.run import rank_file
from qr_core.evaluation.data import beir
from tests.helpers import GOLDEN
from tests.unit.evaluation.sample import write_beir


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
    sets = [json.loads(line) for line in (out / "pools.jsonl").read_text().splitlines()]
    assert {p["query-id"] for p in sets} == {"q1", "q2"}
    again = beir.read_candidates(out / "bm25.trec")
    assert again["q1"][0] == "a1"
    assert beir.read_candidates(out / "pools.jsonl").keys() == again.keys()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--pool-by-title", "3", "--candidates", "run.trec"], "either --candidates or --candidates-by-title"),
        (["--pool-by-title", "3", "--task", "longcontext"], "--candidates-by-title goes with --task beir"),
        (["--systems", "qr,full-context"], "full-context needs --generator"),
        (["--systems", "cross-encoder"], "--cross-encoder-model"),
        (["--systems", "rankgpt"], "--ranker"),
        (["--systems", "rankgpt", "--ranker", "embedded"], "(qrhead-mini) ranks and prunes, it does not write"),
        (["--judge", "embedded"], "--judge needs --generator"),
        (["--generator", "embedded"], "goes with --task longmemeval"),
        (["--measures", "nDCG@x"], "no measure 'nDCG@x'"),
        (["--measures", ","], "--measures names none"),
        (["--max-layer", "0", "--depth", "2"], "leaves none of the heads"),
        (["--num-heads", "99", "--depth", "2"], "--num-heads 99: qrhead_heads has"),
        (["--baseline", "dense", "--depth", "2"], "none of the systems: qr, bm25"),
        (["--pool-by-title", "3", "--systems", "magic"], "system is 'magic': use one of qr, all"),
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


def test_runs_that_bulk_ranking_and_evaluation_wrote_are_candidates(run, tmp_path):
    """Whatever is in ids: the candidates are those of the run, and its order is theirs."""
    texts = {
        "d 1": (None, "a lamp"),
        "d\u20282": ("T", "an oven"),
        "d\\x{20}3": (None, "a pier"),
        "\ufeffd": (None, "x"),
    }
    queries = {"q 1": "who lit the lamp?", "q\u2028\\2": "where is the oven?"}
    write_beir(tmp_path / "set", texts, queries, {"q 1": {"d 1": 1}, "q\u2028\\2": {"d\u20282": 1}})
    documents = [{"id": key, "title": title, "text": text} for key, (title, text) in texts.items()]
    jobs = [{"id": key, "query": text, "documents": documents} for key, text in queries.items()]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    scorer = {"model": str(GOLDEN / "tiny-llama"), "heads": "2-1", "device": "cpu"}
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "bulk", scorer=scorer, format="trec")
    written = tmp_path / "bulk" / "part-00000.trec"
    for out in (tmp_path / "first", tmp_path / "second"):
        status, _, err = run(
            "eval", "--task", "beir", "--data", str(tmp_path / "set"), "--candidates", str(written),
            "--systems", "bm25", "--out", str(out), "--format", "json",
        )  # fmt: skip
        assert status == 0, err
        sets = [json.loads(line) for line in (out / "pools.jsonl").read_text().splitlines()]
        assert {one["query-id"]: one["candidates"] for one in sets} == beir.read_candidates(written)
        assert {one["query-id"]: set(one["candidates"]) for one in sets} == {key: set(texts) for key in queries}
        written = out / "bm25.trec"
