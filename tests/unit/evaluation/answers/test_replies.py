"""`qrhead eval` with answers: LongMemEval and CLIPPER in their official formats, generators and judges that fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import GOLDEN
from tests.stub_endpoint import completion, serving
from tests.unit.evaluation.answers.memories import COLOURS, MEMORIES, accuracies, judges, numbered, reads
from tests.unit.evaluation.sample import timeless

TINY = ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1", "--device", "cpu"]


@pytest.fixture
def memories(tmp_path):
    (tmp_path / "memories.json").write_text(json.dumps(MEMORIES))
    return ["eval", "--task", "longmemeval", "--data", str(tmp_path / "memories.json"), "--timeout", "5"]


CHAPTERS = [
    f"Chapter {n}. The {thing} is {colour}."
    for n, (thing, colour) in enumerate(zip(["sea", "sky", "sun"], COLOURS, strict=False))
]


CLAIMS = [
    {"idx": f"c{n}", "book": "b", "question": f"The {thing} is {colour}.", "question_false": f"The {thing} is gold.",
     "gt_docs": [str(n)], "kind": "single"}
    for n, (thing, colour) in enumerate(zip(["sea", "sky", "sun"], COLOURS, strict=False))
]  # fmt: skip


@pytest.fixture
def claims(tmp_path):
    paragraphs = [{"idx": str(n), "title": f"Chapter {n}", "paragraph_text": text} for n, text in enumerate(CHAPTERS)]
    (tmp_path / "books.json").write_text(json.dumps([{"book": "b", "paragraphs": paragraphs}]))
    (tmp_path / "claims.json").write_text(json.dumps(CLAIMS))
    return ["eval", "--task", "clipper", "--data", str(tmp_path)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("qr_core.generation.endpoint.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)


@pytest.fixture
def judge_stub():
    with serving() as server:
        yield server


def test_answers_from_what_each_system_ranks_first(evaluated, memories, stub, judge_stub, tmp_path):
    stub.script, judge_stub.script = [(200, reads, 0)], [(200, judges, 0)]
    args = [*memories, *TINY, "--generator", stub.url, "--judge", judge_stub.url, "--top-k", "1"]
    report = evaluated(*args, "--systems", "qr,bm25,given,full-context", "--out", tmp_path / "out")
    found = accuracies(report)
    assert found["bm25"] == found["full-context"] == 1.0
    assert found["given"] == 3 / 8  # the first session answers two questions, and one has no answer
    row = report["systems"]["bm25"]
    assert row["R@5"]["queries"] == 7
    assert row["answers"]["questions"] == 8
    assert {kind: value["queries"] for kind, value in row["answers"]["kinds"].items()} == {
        "single-session-user": 4,
        "temporal-reasoning": 4,
    }
    assert (row["answers"]["failed"], row["answers"]["failures"], row["answers"]["untried"]) == (0, {}, 0)
    assert report["differences"]["given"]["accuracy"]["mean"] == -5 / 8
    assert list(report["differences"]["full-context"]) == ["accuracy"]
    assert "median_seconds" not in report["systems"]["full-context"]
    assert len(stub.seen) == len(judge_stub.seen) == 4 * 8
    everything = [message for message in stub.messages if message.count("Session of") == 6]
    assert len(everything) == 8
    assert all(message.count("Session of") in (1, 6) for message in stub.messages)
    assert report["answering"]["generator"] == stub.url
    assert "{reply}" in report["answering"]["judge"]["prompt"]
    assert "## Answers" in (tmp_path / "out" / "report.md").read_text()
    again = evaluated(*args, "--systems", "qr,bm25,given,full-context", "--out", tmp_path / "out")
    assert again == report
    assert len(stub.seen) == len(judge_stub.seen) == 4 * 8


def test_a_judge_that_fails_costs_no_reply(evaluated, memories, stub, judge_stub, tmp_path):
    """Malformed, late and busy are tried again; what lasts is reported, and the next run asks the judge alone."""
    stub.script = [(200, reads, 0)]
    mumbles = (200, lambda m: completion("Perhaps.") if numbered(m) == 2 else judges(m), 0)
    judge_stub.script = [(429, {"error": "busy"}, 0), (200, {"choices": []}, 0), (200, judges, 1.5), mumbles]
    args = [*memories, "--generator", stub.url, "--judge", judge_stub.url, "--judge-model", "m", "--timeout", "0.8"]
    args += ["--systems", "bm25", "--top-k", "1"]
    first = evaluated(*args, "--out", tmp_path / "out")["systems"]["bm25"]
    assert first["answers"]["failures"].keys() == {"m2"}
    assert "said neither yes nor no in 3 tries, but 'Perhaps.'" in first["answers"]["failures"]["m2"]
    assert (first["accuracy"]["queries"], first["answers"]["failed"]) == (7, 1)
    assert "bm25: answering failed for 1 query;" in (tmp_path / "out" / "report.md").read_text()
    asked, judged = len(stub.seen), len(judge_stub.seen)
    assert (asked, judged) == (8, 3 + 8 + 2)
    judge_stub.script = [(200, judges, 0)]
    whole = evaluated(*args, "--out", tmp_path / "out")
    assert (len(stub.seen), len(judge_stub.seen)) == (asked, judged + 1)
    assert accuracies(whole) == {"bm25": 1.0}
    uninterrupted = evaluated(*args, "--out", tmp_path / "other")
    assert timeless(whole) == timeless(uninterrupted)


def test_replies_are_judged_again_when_the_right_answer_changes(evaluated, run, memories, stub, judge_stub, tmp_path):
    stub.script, judge_stub.script = [(200, reads, 0)], [(200, judges, 0)]
    args = [
        *memories,
        "--generator",
        stub.url,
        "--judge",
        judge_stub.url,
        "--systems",
        "bm25",
        "--out",
        tmp_path / "out",
    ]
    assert accuracies(evaluated(*args)) == {"bm25": 1.0}
    (tmp_path / "memories.json").write_text(json.dumps([MEMORIES[0] | {"answer": "grey"}, *MEMORIES[1:]]))
    assert accuracies(evaluated(*args)) == {"bm25": 7 / 8}
    assert (len(stub.seen), len(judge_stub.seen)) == (8, 9)
    (tmp_path / "memories.json").write_text(json.dumps([MEMORIES[0] | {"question_date": "2040"}, *MEMORIES[1:]]))
    for change, words in (([], "(questions differ)"), (["--top-k", "2"], "(questions, top_k differ)")):
        status, _, err = run(*map(str, args), *change)
        assert status == 2
        assert words in " ".join(err.split())


def test_a_dead_endpoint_is_given_up_and_tried_by_the_next_run(evaluated, memories, stub, tmp_path):
    with serving() as gone:
        pass
    systems = ["--systems", "rankgpt,bm25", "--ranker", gone.url, "--ranker-model", "m"]
    args = [*memories, "--generator", gone.url, "--generator-model", "m", "--out", tmp_path / "out"]
    report = evaluated(*args, *systems)
    row = report["systems"]["rankgpt"]
    assert (len(row["failed"]), row["untried"], row["R@5"]["mean"]) == (5, 3, None)
    assert all("cannot be reached" in reason for reason in row["failed"].values())
    answers = report["systems"]["bm25"]["answers"]
    assert (len(answers["failures"]), answers["untried"], answers["failed"]) == (5, 3, 8)
    assert report["systems"]["bm25"]["R@5"]["queries"] == 7
    text = (tmp_path / "out" / "report.md").read_text()
    assert "ranking failed for 5 queries and 3 more were not tried; the next run tries them again" in text
    assert "answering failed for 5 queries and 3 more were not tried" in text
    port = int(gone.url.split(":")[2].split("/")[0])
    with serving(port) as back:
        back.script = [(200, reads, 0)]
        report = evaluated(*args, "--systems", "bm25")
        assert len(back.seen) == 8
    assert "replies are not judged: pass --judge to tell which are right" in report["notes"]
    row = report["systems"]["bm25"]
    assert row["answers"]["failures"] == {}
    assert row["accuracy"]["mean"] is None  # nobody judged
    assert row["answers"]["failed"] == 8


def test_an_endpoint_that_refuses_long_messages_is_asked_on(evaluated, memories, stub):
    """Six refusals in a row speak of six messages, not of the server."""
    stub.script = [(400, {"error": {"message": "too long"}}, 0)] * 6 + [(200, reads, 0)]
    report = evaluated(*memories, "--systems", "full-context", "--generator", stub.url)
    answers = report["systems"]["full-context"]["answers"]
    assert (len(answers["failures"]), answers["untried"]) == (6, 0)
    assert "status 400" in answers["failures"]["m0"]
    assert answers["failed"] == 8  # and two have no verdict, because nobody judges


def test_an_embedded_model_answers_and_judges(evaluated, memories, tmp_path):
    """Mechanics only: it says neither yes nor no, which is reported, and its replies are kept."""
    args = [*memories, "--generator", "embedded-fast", "--judge", "embedded-fast", "--systems", "qr"]
    report = evaluated(*args, "--limit", "1", "--top-k", "1", "--max-new-tokens", "3", "--out", tmp_path / "out")
    assert report["answering"]["generator"] == report["answering"]["judge"]["model"] == "qrhead-mini-fast"
    for name, row in report["systems"].items():
        judged = row["accuracy"]["queries"]
        assert judged + len(row["answers"]["failures"]) == row["answers"]["questions"] == 1
        kept = (tmp_path / "out" / "work" / f"{name}.answers" / "records.jsonl").read_text().splitlines()
        assert len(kept) == 1


# Claims


def test_a_pair_of_claims_counts_only_when_both_are_right(evaluated, claims, stub, tmp_path):
    def says(message):
        claim = message.rsplit("Claim: ", 1)[1]
        text = message.rsplit("Question: ", 1)[0]
        return completion("**True**" if claim in text or claim == CLAIMS[1]["question_false"] else "False.")

    stub.script = [(200, says, 0)]
    args = [*claims, *TINY, "--generator", stub.url, "--systems", "qr,bm25,full-context", "--top-k", "3"]
    report = evaluated(*args, "--out", tmp_path / "out")
    for row in report["systems"].values():
        assert row["accuracy"]["mean"] == 2 / 3  # five of six are right
        assert row["accuracy"]["queries"] == 3
        assert row["answers"]["questions"] == 6
    assert report["systems"]["bm25"]["R@3"]["queries"] == 3
    assert "rankings are measured on true claims only" in report["notes"]
    stub.says("True")
    assert set(accuracies(evaluated(*args)).values()) == {0.0}
    stub.says("I cannot tell")
    row = evaluated(*args, "--limit", "1")["systems"]["bm25"]
    assert (row["accuracy"]["mean"], row["answers"]["unparsed"], row["answers"]["questions"]) == (0.0, 2, 2)


def test_claims_with_an_embedded_model(evaluated, claims):
    args = [*claims, "--generator", "embedded-fast", "--max-new-tokens", "2", "--systems", "qr,bm25,full-context"]
    report = evaluated(*args)
    for row in report["systems"].values():
        assert row["answers"]["questions"] == 6
        assert row["accuracy"]["queries"] == 3


# A kill


def test_a_killed_run_goes_on(evaluated, memories, stub, judge_stub, tmp_path):
    """SIGKILL while the generator is asked for the fourth time; the ranking and three replies are kept."""

    def orders(message):
        found = re.findall(r"(?m)^\[(\d+)\].*door", message)
        return completion(" > ".join(f"[{n}]" for n in [*found, "1", "2"]))

    judge_stub.script = [(200, judges, 0)]
    args = [*memories, "--systems", "rankgpt,bm25", "--ranker", judge_stub.url, "--generator", stub.url, "--top-k", "1",
            "--timeout", "60"]  # fmt: skip
    with serving() as ranker:
        ranker.script = [(200, orders, 0)]
        args[args.index(judge_stub.url)] = ranker.url
        args += ["--judge", judge_stub.url]
        stub.script = [(200, reads, 0)] * 3 + [(200, reads, 30)]
        command = [
            sys.executable,
            "-c",
            "from qr_core.cli.main import main; main()",
            *args,
            "--out",
            str(tmp_path / "out"),
        ]
        child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(stub.seen) < 4 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        assert child.communicate()[1] == b""
        assert child.returncode == -signal.SIGKILL
        assert (len(ranker.seen), len(stub.seen), len(judge_stub.seen)) == (8, 4, 0)
        assert not (tmp_path / "out" / "metrics.json").exists()
        stub.script = [(200, reads, 0)]
        resumed = evaluated(*args, "--out", tmp_path / "out")
        assert len(ranker.seen) == 8
        assert len(stub.seen) == 4 + 5 + 8
        assert resumed["systems"]["rankgpt"]["replies"]["windows"] == 8
        assert accuracies(resumed) == {"rankgpt": 1.0, "bm25": 1.0}
        assert timeless(resumed) == timeless(evaluated(*args, "--out", tmp_path / "whole"))
