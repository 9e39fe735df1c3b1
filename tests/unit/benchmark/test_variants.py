"""Variants: what is compared, and what each finds done."""

from __future__ import annotations

import pytest

from qr_core import InputError, QRScorer
from qr_core.benchmark.plan import Plan, Subject
from qr_core.benchmark.run import run as measure
from qr_core.benchmark.subject import Loaded
from qr_core.benchmark.task import task_of
from qr_core.benchmark.variants import VARIANTS, Case, Variant, chosen
from qr_core.options import ScorerOptions
from tests.unit.benchmark.small import SMALL, in_layout


def ran(case, name):
    variant = VARIANTS[name]
    return variant.run(case, variant.before(case))


def test_joint_scores_are_those_of_rank_and_differ_from_independent_ones(loaded):
    task = task_of(4)
    case = Case(loaded, task)
    scores = {name: ran(case, name) for name, variant in VARIANTS.items() if variant.queries == 1}
    by_hand = loaded.scorer().rank(task.queries[0], task.documents)
    assert scores["joint"] == [hit.score for hit in sorted(by_hand, key=lambda hit: hit.index)]
    assert scores["joint"] != scores["independent-cold"]
    again = loaded.scorer("independent").rank(task.queries[-1], task.combination)
    warm = [hit.score for hit in sorted(again, key=lambda hit: hit.index)]
    assert scores["independent-warm"] == pytest.approx(warm, abs=1e-6)
    again = loaded.scorer("independent").rank(task.queries[-1], task.documents)
    second = [hit.score for hit in sorted(again, key=lambda hit: hit.index)]
    assert scores["independent-second"] == pytest.approx(second, abs=1e-6)
    assert len(scores["cross-encoder"]) == len(scores["dense"]) == 4
    assert scores["plain"] is None


@pytest.mark.parametrize("name", ["many", "many-warm"])
def test_a_hundred_queries_are_asked_together(loaded, monkeypatch, name):
    asked = []
    monkeypatch.setattr(QRScorer, "rank_many", lambda self, jobs, **_: asked.append(list(jobs)) or [None])
    task = task_of(2, queries=101)
    monkeypatch.setattr(QRScorer, "rank", lambda self, *_: None)  # what `many-warm` finds done
    ran(Case(loaded, task), name)
    assert len(asked[0]) == len({query for query, _ in asked[0]}) == 100
    assert task.queries[0] not in {query for query, _ in asked[0]}
    assert all(documents == task.documents for _, documents in asked[0])


def test_which_variants_find_the_documents_encoded(loaded):
    """Counted in tokens that run through the model's first layer, both rounds alike."""
    counted = []
    hook = loaded.partial().layers[0].register_forward_pre_hook(lambda _, given: counted.append(given[0].shape[:2]))
    case = Case(loaded, task_of(4))
    tokens = {}
    try:
        for name in ("joint", "second", "independent-cold", "independent-second", "independent-warm"):
            for _ in range(2):
                given = VARIANTS[name].before(case)
                counted.clear()
                VARIANTS[name].run(case, given)
                total = sum(batch * length for batch, length in counted)
                assert tokens.setdefault(name, total) == total
    finally:
        hook.remove()
    for name in ("second", "independent-second", "independent-warm"):
        assert 0 < tokens[name] < 200  # queries, and no document
    assert tokens["joint"] > 400
    assert tokens["independent-cold"] > 400


def test_variants_bring_those_they_are_compared_with(loaded):
    independent = Loaded(in_layout("independent"))
    assert chosen(["joint", "plain"], loaded) == ("plain", "joint")
    assert chosen(["many-warm"], loaded) == ("second", "many-warm")
    assert chosen(["many"], independent) == ("many", "many-warm", "independent-cold", "independent-second")
    assert chosen(["all"], loaded) == chosen(["all"], Loaded(in_layout("late"))) == tuple(VARIANTS)
    with pytest.raises(InputError, match="variant is 'fast': use one of plain, published"):
        chosen(["joint", "fast"], loaded)
    with pytest.raises(InputError, match="no variant is named"):
        chosen([], loaded)


def test_an_encoder_has_the_variants_that_it_can_do():
    encoder = Loaded(Subject("embedded", options=ScorerOptions(device="cpu")))
    able = ("many", "many-warm", "cross-encoder", "dense", "late-cold", "late-second", "late-warm")
    assert chosen(["all"], encoder) == chosen(able, encoder) == able
    assert chosen(["many-warm"], encoder) == ("many-warm", "late-second")
    with pytest.raises(InputError, match=r"qrhead-mini is an encoder, .*: it has no variant joint, plain; use some of"):
        chosen(["late-cold", "plain", "joint"], encoder)
    with pytest.raises(InputError, match="of which no depths are compared"):
        measure(encoder.subject, Plan((300,), depths=(2,), repeats=1, memory=False))
    with pytest.raises(InputError, match="layer 99 does not exist"):
        measure(encoder.subject, Plan((300,), depths=(99,), repeats=1, memory=False))


def test_one_more_variant_is_one_entry(run):
    """From Python, and by its name on the command line."""
    twice = Variant(
        "`rank`, two times",
        before=lambda case: case.loaded.scorer(),
        run=lambda case, scorer: [scorer.rank(case.first, case.task.documents)[0].score for _ in range(2)],
    )
    VARIANTS.add("twice", twice)
    try:
        report = measure(SMALL, Plan((300,), ("twice",), repeats=1, memory=False))
        assert list(report["lengths"][0]["variants"]) == ["twice"]
        status, out, _ = run(
            "bench",
            *("--layers", "3", "--deepest", "1", "--hidden", "128", "--device", "cpu", "--lengths", "300"),
            *("--variants", "twice", "--repeats", "1", "--no-memory"),
        )
        assert status == 0
        assert "twice" in out
    finally:
        VARIANTS.remove("twice")
