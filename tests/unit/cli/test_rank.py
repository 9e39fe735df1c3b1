"""`qrhead rank`: documents in, a ranking out, and bad input as one line."""

from __future__ import annotations

import json

import pytest

from tests.helpers import GOLDEN

TINY = ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1,3-4", "--template", "plain", "--device", "cpu"]


def test_rank_as_json(run, tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": "a lighthouse", "id": "l", "title": "T"}\n{"text": "an oven"}\n')
    status, out, _ = run("rank", "--query", "which lamp?", "--docs", str(path), "--format", "json", *TINY)
    assert status == 0
    answer = json.loads(out)
    assert answer["query"] == "which lamp?"
    assert sorted(hit["index"] for hit in answer["hits"]) == [0, 1]
    assert {(hit["id"], hit["title"]) for hit in answer["hits"]} == {("l", "T"), (None, None)}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_rank_table_shows_no_control_characters(run):
    documents = b'{"text": "evil \\u001b[31m text [bold]", "id": "\\u001b]0;x\\u0007"}'
    status, out, _ = run("rank", "--query", "q", "--docs", "-", *TINY, stdin=documents)
    assert status == 0
    assert "\x1b" not in out
    assert "[bold]" in out


def test_rank_reads_lines_from_standard_input_and_takes_top_k(run):
    status, out, _ = run(
        "rank", "--query", "q", "--docs", "-", "--top-k", "1", "--format", "json", *TINY, stdin=b"one\ntwo\n"
    )
    assert status == 0
    assert len(json.loads(out)["hits"]) == 1


def test_the_order_of_the_documents_may_count(run):
    asked = ["rank", "--query", "q", "--docs", "-", "--format", "json", "--retrieval-weight"]
    status, out, _ = run(*asked, "1", *TINY, stdin=b"one\ntwo\nthree\n")
    assert status == 0
    assert [hit["index"] for hit in json.loads(out)["hits"]] == [0, 1, 2]
    status, out, err = run(*asked, "1.5", *TINY, stdin=b"one\n")
    assert (status, out) == (2, "")
    assert "Invalid value for '--retrieval-weight'" in err


def test_rank_a_folder_names_what_it_left_out(run, tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.bin").write_bytes(b"\xff\x00")
    status, out, err = run("rank", "--query", "q", "--dir", str(tmp_path), "--format", "json", *TINY)
    assert status == 0
    assert [hit["id"] for hit in json.loads(out)["hits"]] == ["a.txt"]
    assert "left out 1 files that are not UTF-8 text: b.bin" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--query", "q"], "either --docs or --dir"),
        (["--query", "q", "--docs", "absent.jsonl"], "cannot read absent.jsonl"),
        (["--query", " ", "--docs", "-"], "the query is empty"),
        (["--query", "q", "--docs", "-", "--top-k", "0"], "top_k is 0"),
        (["--query", "q", "--docs", "-", "--model", "/absent"], "model folder /absent does not exist"),
        (["--query", "q", "--docs", "-", "--heads", "absent.json"], "no head set 'absent.json'"),
        (["--query", "q", "--docs", "-", "--heads", "99-0"], "heads outside the model: 99-0"),
        (["--query", "q", "--docs", "-", "--heads", "qwen2.5-7b-instruct/nq"], "is for Qwen/Qwen2.5-7B-Instruct"),
        (["--query", "q", "--docs", "-", "--template", "chat", "--heads", "1-1"], "no chat template"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, args, words):
    status, out, err = run("rank", *args, stdin=b"a document\n")
    assert status == 2
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1
