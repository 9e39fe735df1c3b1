"""`qrhead detect` and `qrhead heads mask-test`: from examples to a head set that ranks."""

from __future__ import annotations

import json
import os

import pytest

from qr_core import HeadSet
from tests.helpers import GOLDEN


def detect_options(tmp_path, *more):
    rows = [
        {"query": f"Where is room {n}?", "documents": [f"Room {i} is here." for i in range(6)], "gold": [n % 6]}
        for n in range(8)
    ]
    rows.append({"query": "Nothing?", "documents": ["a", "b"], "gold": []})
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny = ["--model", str(GOLDEN / "tiny-llama"), "--device", "cpu", "--template", "plain"]
    return ["detect", "--data", str(path), "--out", str(tmp_path / "heads.json"), *tiny, *more]


def test_detect_writes_a_set_that_ranks(run, tmp_path):
    status, out, err = run(*detect_options(tmp_path, "--num-heads", "3", "--shuffle"))
    assert status == 0, err
    assert "left out 1 examples, used 8" in err
    assert "line 9" in err
    assert "deepest layer" in out
    assert "two halves of the examples agree" in out
    found = HeadSet.load(tmp_path / "heads.json")
    assert len(found.heads) == 3
    assert found.provenance.left_out == 1
    assert found.provenance.shuffled
    for ending in (".png", ".depth.png"):
        assert (tmp_path / f"heads{ending}").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "heads.report.json").read_text())
    assert [row["deepest"] for row in report["depth"]] == list(range(6))
    assert [row["examples"] for row in report["examples"]] == [4]
    (tmp_path / "docs.txt").write_text("Room 1\nRoom 2\n")
    status, out, _ = run(
        "rank", "--query", "Which room?", "--docs", str(tmp_path / "docs.txt"), "--model", str(GOLDEN / "tiny-llama"),
        "--heads", str(tmp_path / "heads.json"), "--device", "cpu", "--format", "json",
    )  # fmt: skip
    assert status == 0
    assert len(json.loads(out)["hits"]) == 2
    status, out, _ = run("heads", "map", str(tmp_path / "heads.json"))
    assert "heads 0 to 7 across" in out
    status, out, _ = run("heads", "compare", str(tmp_path / "heads.json"), str(tmp_path / "heads.json"))
    assert "100% of the first" in out
    assert "rank correlation over all judged heads: 1.00" in out


def test_detect_retrieval_heads_and_ablate_them(run, tmp_path):
    tiny = [
        "--model",
        str(GOLDEN / "tiny-llama"),
        "--device",
        "cpu",
        "--needle-tokens",
        "120",
        "--needle-depths",
        "0.5",
    ]
    path = str(tmp_path / "copy.json")
    status, out, err = run("detect", "--criterion", "copy-paste", "--out", path, "--num-heads", "2", *tiny)
    assert status == 0, err
    assert HeadSet.load(path).criterion == "copy-paste"
    assert (tmp_path / "copy.png").exists()
    status, out, err = run("heads", "mask-test", path, *tiny, "--draws", "2", "--format", "json")
    assert status == 0, err
    found = json.loads(out)
    assert found["needles"] == 4
    assert [len(rows) for rows in found["ablated"].values()] == [1, 1, 2]
    assert found["silenced"] == found["ablated"]
    for command in (["heads", "mask-test", path], ["detect", "--criterion", "copy-paste", "--out", path]):
        status, _, err = run(*command, "--device", "cpu")
        assert status == 2
        assert "the embedded model (qrhead-mini) ranks and prunes, it does not write" in err
    status, _, err = run("heads", "mask-test", "llama-3.2-1b-instruct/nq", *tiny)
    assert status == 2
    assert "another shape" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-heads", "99"], "only 48 heads"), (["--max-layer", "6"], "layers 0-5"),
        (["--temperature", "0"], "temperature"), (["--depth", "3"], "go with a BEIR folder"),
        (["--out", "/nowhere/x.json"], "name a folder that exists"), (["--like", "nobody/none"], "no head set"),
        (["--criterion", "copy-paste"], "not --data"), (["--data", "/nowhere.jsonl"], "cannot read"),
    ],
)  # fmt: skip
def test_detect_refuses_bad_options(run, tmp_path, more, words):
    status, _, err = run(*detect_options(tmp_path, *more))
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_detect_without_examples(run, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    status, _, err = run(*detect_options(tmp_path, "--data", str(tmp_path / "none.jsonl")))
    assert status == 2
    assert "no usable example among 0" in err


def test_detect_from_a_file_whose_name_is_not_utf8(run, tmp_path):
    """The set is written, and can be read; the one that was there is not lost before."""
    args = detect_options(tmp_path, "--num-heads", "3")
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/ex\xffamples.jsonl")
    try:
        os.rename(tmp_path / "examples.jsonl", strange)
    except OSError:
        pytest.skip("this file system takes no such name")
    status, _, err = run(*[strange if arg.endswith("examples.jsonl") else arg for arg in args])
    assert status == 0, err
    assert HeadSet.load(tmp_path / "heads.json").data == "ex\ufffdamples.jsonl"


@pytest.mark.parametrize("name", ["heads.png", "heads.work", "taken", "taken.json/heads.json"])
def test_where_no_set_can_be_written_is_said_before_the_work(run, tmp_path, monkeypatch, name):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken.json").write_text("{}")
    monkeypatch.setattr("qr_core.detection.detect.measure_all", None)  # would be a TypeError
    status, _, err = run(*detect_options(tmp_path, "--out", str(tmp_path / name)))
    assert status == 2
    assert err.startswith(("qrhead: cannot write", "qrhead: --out"))
    assert err.count("\n") == 1
