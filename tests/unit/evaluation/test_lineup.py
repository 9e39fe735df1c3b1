"""Which systems take part, what each is made from, and those whose weights are missing."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import MistralConfig

from qr_core import Document, InputError, QRScorer
from qr_core.evaluation.lineup import SYSTEMS, entry_of
from qr_core.evaluation.options import EvaluationOptions, SystemOptions
from qr_core.evaluation.systems.attention import attention_ranker
from qr_core.evaluation.systems.entry import Entry, System
from qr_core.evaluation.work import CandidateSet
from tests.architectures import COMMON
from tests.helpers import GOLDEN
from tests.unit.evaluation.sample import TEXTS, TINY, means, scores_of


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
    assert [about("--layout", name)["layout"] for name in ("joint", "independent")] == ["joint", "independent"]


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


def test_segments_side_by_side(run, meetings):
    status, printed, _ = run(
        "eval", "--task", "longcontext", "--data", str(meetings), "--segments", "1,2", "--format", "json",
    )  # fmt: skip
    assert status == 0
    systems = json.loads(printed)["systems"]
    assert list(systems) == ["qr", "bm25", "qr, 1 segment", "qr, 2 segments"]
    assert all(found["R@3"]["mean"] == 1.0 for found in systems.values())
    assert systems["qr, 2 segments"]["R@3"]["queries"] == 2


def test_head_sets_side_by_side(run, folder):
    """The layout of the paper's table: query-focused, random, all and retrieval heads on the same candidates."""
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
        "--systems", "all,random-heads", "--model", "embedded-fast", "--layout", "joint",
    )  # fmt: skip
    assert status == 0, err
    systems = json.loads(out)["systems"]
    assert systems["all"]["head_list"] == ",".join(f"{layer}-{head}" for layer in (2, 3) for head in range(6))
    assert set(systems["random-heads 0"]["heads"].split(",")) == {f"3-{head}" for head in range(6)}


# Missing weights


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
    assert list(missing) == ["qr", "random-heads 0", "dense", "cross-encoder", "rankgpt", "qr, 2 segments"]
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


# A system of one's own


def by_length(options) -> list[Entry]:
    """A system as one would write it: the longest document first, or the shortest."""
    sign = -1 if options.systems.ranker == "shortest" else 1

    def rank(sets):
        for candidates in sets:
            yield [float(sign * len(document.text)) for document in candidates.documents]

    return [Entry("by-length", {"model": "characters", "sign": sign}, lambda: rank)]


@pytest.fixture
def throwaway():
    SYSTEMS.add("by-length", System(by_length, "ranker", "longest or shortest"))
    yield
    SYSTEMS.remove("by-length")


def test_a_system_of_ones_own(evaluated, run, beir, throwaway, tmp_path):
    args = [*beir, "--systems", "by-length,bm25"]
    report = evaluated(*args, "--ranker", "longest", "--out", tmp_path / "out")
    assert list(report["systems"]) == ["by-length", "bm25"]
    assert list(report["differences"]) == ["by-length"]
    longest = sorted(TEXTS, key=lambda key: -len(TEXTS[key][1]))
    ranked = [line.split()[2] for line in (tmp_path / "out" / "by-length.trec").read_text().splitlines()]
    assert ranked[: len(TEXTS)] == longest
    shortest = evaluated(*args, "--ranker", "shortest")
    assert means(shortest)["by-length"] != means(report)["by-length"]
    status, _, err = run(*args)
    assert status == 2
    assert "the system by-length needs --ranker, longest or shortest" in " ".join(err.split())


def test_an_unknown_entry_is_an_error_and_no_other_system():
    options = EvaluationOptions(systems=SystemOptions(systems=("given", "bm25")))
    assert entry_of("bm25", "bm25", options).name == "bm25"
    for kind, name in (("qr", "qr"), ("bm25", "given"), ("given", "nobody")):
        with pytest.raises(InputError, match=f"no system '{name}' of the kind '{kind}' takes part"):
            entry_of(kind, name, options)


def test_a_scorer_keeps_its_own_limits(embedded):
    """Ranking in segments is done by another scorer over the same model, not by changing this one."""
    documents = tuple(Document(f"{name} " * 60, id=name) for name in ("herons", "geese", "ducks", "swans"))
    before = embedded.max_prompt_tokens
    whole, again = (list(attention_ranker(embedded, "given")([CandidateSet("q", "herons", documents)])) for _ in "ab")
    cut = list(attention_ranker(embedded, "given", 2)([CandidateSet("q", "herons", documents)]))
    assert embedded.max_prompt_tokens == before
    assert list(attention_ranker(embedded, "given")([CandidateSet("q", "herons", documents)])) == whole == again
    assert len(cut[0]) == len(whole[0]) == 4


def test_scores_say_the_order_where_the_candidates_order_counts(embedded):
    documents = tuple(Document(f"{name} " * 9, id=name) for name in ("geese", "herons", "swans"))
    asked = [CandidateSet("q", "herons", documents)]
    ((first, second, third),) = attention_ranker(embedded, "given")(asked)
    assert second > max(first, third)
    assert list(attention_ranker(embedded.with_options(retrieval_weight=1.0), "given")(asked)) == [[3.0, 2.0, 1.0]]
