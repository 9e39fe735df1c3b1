"""The command line as people and programs call it."""

from __future__ import annotations

import io
import json

import pytest
from transformers import AutoTokenizer

from qr_core import HeadSet, generation
from qr_core.cli import common as cli_common
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


def test_an_unknown_option_is_status_2(run):
    assert run("rank", "--quary", "q")[0] == 2


def test_heads(run):
    status, out, _ = run("heads")
    assert status == 0
    assert "llama-3.1-8b-instruct/lme" in out
    status, out, _ = run("heads", "list", "--format", "json")
    assert len(json.loads(out)["head_sets"]) == 8
    status, out, _ = run("heads", "show", "qwen2.5-7b-instruct/nq")
    assert json.loads(out)["heads"][0][:2] == [16, 19]
    status, _, err = run("heads", "show", "absent")
    assert status == 2
    assert "no head set 'absent'" in err


def test_version(run):
    from qr_core import __version__

    assert run("--version")[1] == f"qrhead {__version__}\n"


def test_demo_finds_the_right_articles(run):
    status, out, _ = run("demo")
    assert status == 0
    blocks = out.split("Question: ")[1:]
    assert len(blocks) >= 5
    first = [next(line for line in block.splitlines() if line.strip().startswith("1 ")) for block in blocks]
    assert [line.split()[3] for line in first] == ["kb-02", "kb-04", "kb-06", "kb-03", "kb-17", "kb-13"]
    assert "qrhead-mini" in out
    pruned = out.split("House manual, ")[1:]
    assert len(pruned) == 2
    for block in pruned:
        total, kept = (int(block.split()[place]) for place in (0, 4))
        assert 0 < kept <= 130 < total
        assert "[...]" in block


MANUAL = (
    "# Boiler\n\nTurn the red tap to start the boiler. "
    + "The cellar is cold. " * 40
    + "\n\n## Glass\n\nTo the church."
)


def test_prune_prints_the_kept_text_alone(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "How do I start the boiler?", "--file", str(path), "--max-tokens", "12"]
    status, out, err = run("prune", *options)
    assert status == 0
    assert "Turn the red tap" in out
    assert "kept " in err
    status, printed, _ = run("prune", *options, "--format", "json")
    answer = json.loads(printed)
    assert answer["text"] + "\n" == out
    assert answer["kept_tokens"] <= 12 < answer["total_tokens"]
    assert all(MANUAL[s["start"] : s["end"]] in answer["text"] for s in answer["spans"])


def test_prune_reads_standard_input_and_chats(run):
    chat = "Anna: The key is lost.\nBen: The key hangs in the boat house.\nAnna: Good.\n"
    status, out, _ = run(
        "prune", "--query", "Where does the key hang?", "--file", "-", "--unit", "turn", "--top-k", "1",
        stdin=chat.encode(),
    )  # fmt: skip
    assert status == 0
    assert out.strip() in chat.splitlines()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "nothing says how much to keep"),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--max-tokens", "5", "--tokenizer", "/nowhere"], "model folder /nowhere does not exist"),
        (["--max-tokens", "5", "--file", "/nowhere.txt"], "cannot read /nowhere.txt"),
    ],
)
def test_prune_refuses_bad_options(run, args, words):
    status, _, err = run("prune", "--query", "q", "--file", "-", *args, stdin=b"text")
    assert status == 2
    assert words in err


def test_ask_answers_from_the_kept_text(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "Where does glass go?", "--file", str(path), "--max-tokens", "15", "--max-new-tokens", "4"]
    status, _, err = run("ask", *options)
    assert status == 0
    assert "too small to do so sensibly" in err
    status, printed, _ = run("ask", *options, "--generator", str(GOLDEN / "tiny-llama"), "--format", "json")
    assert status == 0
    answer = json.loads(printed)
    assert answer["context"]["kept_tokens"] <= 15
    assert isinstance(answer["answer"], str)
    status, _, err = run("ask", *options, "--generator", "http://127.0.0.1:9/v1", "--generator-model", "m")
    assert status == 2
    assert "cannot be reached" in err


def test_prune_options_reach_the_pruner(run, tmp_path):
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    options = ["--query", "How do I start the boiler?", "--file", str(path), "--format", "json"]

    def pruned(*more):
        status, out, err = run("prune", *options, *more)
        assert status == 0, err
        return json.loads(out)

    assert pruned("--max-tokens", "20", "--headings")["text"].startswith("# Boiler\n\nTurn the red tap")
    sentence = MANUAL.index("The cellar is cold.")
    under = next(s for s in pruned("--top-k", "50", "--headings")["spans"] if s["start"] == sentence)
    assert not under["heading"]
    as_text = pruned("--max-tokens", "20", "--headings", "--input-format", "text")
    assert not any(span["heading"] for span in as_text["spans"])
    assert "(...)" in pruned("--max-tokens", "20", "--ellipsis", "(...)")["text"]
    assert pruned("--min-relevance", "1")["spans"] == []
    assert len(pruned("--min-relevance", "1", "--min-keep", "2")["spans"]) == 2
    assert len(pruned("--top-k", "3")["spans"]) == 3
    assert pruned("--top-k", "1", "--max-prompt-tokens", "120")["windows"] > 1
    counted = pruned("--max-tokens", "30", "--tokenizer", str(GOLDEN / "tiny-llama"))
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama")
    assert counted["kept_tokens"] == len(tokenizer(counted["text"], add_special_tokens=False)["input_ids"]) <= 30


def test_a_progress_bar_appears_for_long_input_only():
    from rich.console import Console

    shown = {}
    for total in (100, 50_000):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=100)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cli_common, "err", console)
            with cli_common.reading() as progress:
                progress(total // 2, total)
        shown[total] = screen.getvalue()
    assert "25,000 of about 50,000 tokens" in shown[50_000]
    assert "tokens" not in shown[100]


def test_ask_shares_the_scorers_weights(run, tmp_path, monkeypatch):
    made = []
    original = generation.ask
    monkeypatch.setattr(
        generation, "ask", lambda scorer, *a, **k: made.append((scorer, a[2])) or original(scorer, *a, **k)
    )
    path = tmp_path / "manual.md"
    path.write_text(MANUAL)
    model = str(GOLDEN / "tiny-llama")
    status, _, err = run(
        "ask", "--query", "q", "--file", str(path), "--max-tokens", "15", "--max-new-tokens", "2", "--model", model,
        "--heads", "1-1", "--template", "plain", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    ((scorer, generator),) = made
    assert generator.model is scorer.reader.model


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
    status, _, err = run("heads", "mask-test", "llama-3.2-1b-instruct/nq", *tiny)
    assert status == 2
    assert "another shape" in err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-heads", "99"], "only 48 heads"), (["--max-layer", "6"], "layers 0-5"),
        (["--temperature", "0"], "temperature"), (["--depth", "3"], "go with a BEIR folder"),
        (["--out", "/nowhere/x.json"], "folder that exists"), (["--like", "nobody/none"], "no head set"),
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
