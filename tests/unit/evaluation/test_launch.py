"""The command: what it writes for others, and what it refuses."""

from __future__ import annotations

import json

import pytest

from qr_core.evaluation.data import beir
from tests.helpers import GOLDEN


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
        (["--judge", "embedded"], "--judge needs --generator"),
        (["--generator", "embedded"], "goes with --task longmemeval"),
        (["--measures", "nDCG@x"], "no measure 'nDCG@x'"),
        (["--measures", ","], "--measures names none"),
        (["--max-layer", "0", "--depth", "2"], "leaves none of the heads"),
        (["--num-heads", "99", "--depth", "2"], "has 6 heads"),
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
