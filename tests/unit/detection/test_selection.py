"""Trade-offs from a detection's numbers, head maps and comparisons, and examples from files."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import torch

from qr_core import HeadSet, HeadSetError, InputError
from qr_core.detection import selection
from qr_core.detection.criteria import TEMPERATURE
from qr_core.detection.detect import Detection
from qr_core.detection.measuring import Measured
from qr_core.evaluation.data.examples import read_examples
from qr_core.heads.maps import compare, save_png, score_grid, terminal_map
from qr_core.heads.sets import Provenance

SHAPE = {"layers": 3, "heads": 4, "kv_heads": 4, "hidden": 16}
CANDIDATES = tuple((layer, head) for layer in range(3) for head in range(4))
GOOD = {5: 0.5, 6: 0.4, 9: 1.0}  # rows of heads that lean towards the gold document, and by how much


def detection(examples: int = 40, num_heads: int = 2) -> Detection:
    """Heads of noise, but for three that see the gold document; the best of them lies in the deepest layer."""
    torch.manual_seed(0)
    measured = []
    for n in range(examples):
        scores = torch.randn(12, 8) * 0.1
        gold = n % 8
        for row, lean in GOOD.items():
            scores[row, gold] += lean
        measured.append(Measured(str(n), (gold,), scores, scores, scores))
    provenance = Provenance(examples=examples, fingerprint="x", calibrated=True)
    heads = HeadSet(
        model="m", config=SHAPE, template="plain", criterion="qrscore", data="made up",
        heads=[(2, 1, 1.0), (1, 1, 0.5)][:num_heads], provenance=provenance,
    )  # fmt: skip
    return Detection(heads, CANDIDATES, measured, {})


def test_depth_trade_off():
    rows = selection.depth_trade_off(detection())
    assert [row.deepest for row in rows] == [0, 1, 2]
    assert [row.share for row in rows] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rows[0].ndcg.mean < 0.6 < 0.9 < rows[1].ndcg.mean <= rows[2].ndcg.mean
    assert rows == selection.depth_trade_off(detection())  # the same seed
    assert selection.depth_trade_off(detection(1)) == []


def test_more_examples_select_better_heads():
    rows = selection.examples_curve(detection(40))
    assert [row.examples for row in rows] == [4, 8, 16, 32]
    assert rows[-1].overlap.mean == 1.0
    assert all(row.ndcg.mean > 0.9 for row in rows)
    noise = detection(40)
    for one in noise.measured:
        one.raw[:] = one.calibrated[:] = one.filtered[:] = torch.rand(12, 8)
    assert selection.examples_curve(noise)[0].overlap.mean < 0.8
    assert selection.examples_curve(noise)[0].overlap.deviation > 0


def test_split_halves():
    spread, chance = selection.split_half_overlap(detection())
    assert spread.mean == 1.0
    assert chance == pytest.approx(2 / 12)
    assert selection.split_half_overlap(detection(1)) is None
    one, other = selection.halves(7, random.Random(0))
    assert sorted(one + other) == list(range(7))
    assert abs(len(one) - len(other)) == 1


def test_the_rule_of_a_detection():
    assert selection.Rule.of(detection()) == selection.Rule("qrscore", True, TEMPERATURE, 2)


FIRST = HeadSet(model="m", config=SHAPE, template="plain", criterion="c", data="d", heads=[(0, 1, None), (2, 3, None)])


def with_scores(order):
    scores = [(layer, head, 1.0 - place / 12) for place, (layer, head) in enumerate(order)]
    provenance = Provenance(examples=1, fingerprint="x", scores=scores)
    return FIRST.model_copy(update={"heads": tuple(scores[:2]), "provenance": provenance})


def test_two_sets_compared():
    forward, backward = with_scores(CANDIDATES), with_scores(CANDIDATES[::-1])
    same = compare(forward, forward)
    assert (same.of_first, same.of_second, same.by_chance) == (1.0, 1.0, pytest.approx(2 / 12))
    assert same.rank_correlation == pytest.approx(1.0)
    other = compare(forward, backward)
    assert (other.shared, other.rank_correlation) == ((), pytest.approx(-1.0))
    assert compare(FIRST, forward).rank_correlation is None
    assert compare(FIRST, forward).shared == ((0, 1),)
    with pytest.raises(HeadSetError, match="different shapes"):
        compare(FIRST, FIRST.model_copy(update={"config": FIRST.config.model_copy(update={"layers": 9})}))


def test_maps(tmp_path):
    grid = score_grid(with_scores(CANDIDATES))
    assert grid.shape == (3, 4)
    assert grid[0, 0] == 1.0
    lines = terminal_map(with_scores(CANDIDATES)).plain.splitlines()
    assert lines[1].startswith("2 ")
    assert lines[3].startswith("0 █*█*")
    assert "·" in lines[1]
    assert terminal_map(FIRST).plain.count("*") == 2 + 1  # and the legend's
    save_png(FIRST, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="cannot write"):
        save_png(FIRST, tmp_path / "absent" / "map.png")


def write(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_examples_from_json_lines(tmp_path):
    rows = [
        {"id": "a", "query": "q", "documents": ["x", {"text": "y", "title": "t"}], "gold": [1]},
        {"question": "q", "positives": ["good", "better"], "negatives": ["bad"]},
        {"query": "q", "pos": ["good"], "neg": [f"bad {n}" for n in range(9)]},
        {"id": "no query", "documents": ["x"], "gold": [0]},
        {"id": "no gold", "query": "q", "documents": ["x"]},
        {"id": "odd gold", "query": "q", "documents": ["x"], "gold": [True]},
        {"id": "no negatives", "query": "q", "pos": ["x"]},
        {"id": "odd document", "query": "q", "documents": [3], "gold": [0]},
    ]
    for name in ("e.jsonl", "e.jsonl.gz"):
        examples, problems = read_examples(write(tmp_path / name, rows))
        assert [e.id for e in examples] == ["a", "line 2", "line 3"]
        assert examples[0].gold == (1,)
        assert examples[0].documents[1].title == "t"
        assert {examples[1].documents[g].text for g in examples[1].gold} == {"good", "better"}
        assert {examples[2].documents[g].text for g in examples[2].gold} == {"good"}
        assert set(problems) == {"no query", "no gold", "odd gold", "no negatives", "odd document"}
        assert problems["no gold"] == "'gold' is no list of positions in 'documents'"
    assert read_examples(tmp_path / "e.jsonl")[0] == read_examples(tmp_path / "e.jsonl.gz")[0]
    (tmp_path / "torn.jsonl").write_text('{"query": ')
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        read_examples(tmp_path / "torn.jsonl")


def test_positives_do_not_all_stand_first(tmp_path):
    rows = [{"query": f"q{n}", "pos": ["good"], "neg": [f"bad {i}" for i in range(9)]} for n in range(30)]
    examples, _ = read_examples(write(tmp_path / "e.jsonl", rows))
    assert len({example.gold for example in examples}) > 5


def test_examples_from_the_published_codes_json(tmp_path):
    paragraphs = [{"idx": "p1", "title": "T", "paragraph_text": "one"}, {"idx": "p2", "paragraph_text": "two"}]
    rows = [
        {"idx": "a", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p2"]},
        {"idx": "b", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p9"]},
        {"idx": "c", "question": "q", "paragraphs": paragraphs, "gt_docs": []},
        {"idx": "d", "question": "q", "paragraphs": [], "gt_docs": ["p1"]},
        {"idx": "a", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p1"]},
    ]
    (tmp_path / "e.json").write_text(json.dumps(rows))
    examples, problems = read_examples(tmp_path / "e.json")
    assert [(e.id, e.gold) for e in examples] == [("a", (1,))]
    assert set(problems) == {"b", "c", "d", "a (entry 4)"}
    assert "'p9' is not in its context" in problems["b"]


def test_examples_from_a_beir_folder(tmp_path):
    write(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(3)])
    write(tmp_path / "queries.jsonl", [{"_id": key, "text": "q"} for key in ("a", "b", "c", "d")])
    (tmp_path / "qrels").mkdir()
    judged = ["a\td1\t2", "a\td0\t0", "b\td2\t1", "c\td1\t1", "d\td1\t1", "e\td1\t1"]
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    run = write(
        tmp_path / "run.jsonl",
        [
            {"query-id": "a", "candidates": ["d0", "d1", "d2"]},
            {"query-id": "b", "candidates": ["d0", "d1"]},
            {"query-id": "c", "candidates": ["d9"]},
            {"query-id": "e", "candidates": ["d1"]},
        ],
    )
    examples, problems = read_examples(tmp_path, run)
    assert [(e.id, e.gold) for e in examples] == [("a", (1,)), ("b", ())]  # b is left out when heads are detected
    assert set(problems) == {"c", "d", "e"}
    assert "'d9' is not in the corpus" in problems["c"]
    assert len(read_examples(tmp_path, run, 2)[0][0].documents) == 2
    with pytest.raises(InputError, match="pass a run"):
        read_examples(tmp_path)
    with pytest.raises(InputError, match="go with a BEIR folder"):
        read_examples(run, run)
