"""Metrics and paired comparisons against numbers worked out by hand; runs read back from their files."""

from __future__ import annotations

from itertools import pairwise
from math import log2

import ir_measures
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qr_core import InputError
from qr_core.evaluation import metrics
from qr_core.files.trec import word, write_qrels, write_run

# Equal scores go by id, descending, so the list is b a c e d; grades in that order 0 (not judged), 3, 1, 2, 0.
RUN = {"q": {"a": 2.0, "b": 2.0, "c": 1.0, "d": 0.5, "e": 0.5}, "r": {"x": 3.0, "y": 2.0, "z": 1.0}}
QRELS = {"q": {"a": 3, "c": 1, "d": 0, "e": 2, "outside": 2}, "r": {"x": 1, "y": 1}, "not asked": {"x": 1}}
BY_HAND = {
    "nDCG@10": (3 / log2(3) + 1 / 2 + 2 / log2(5)) / (3 + 2 / log2(3) + 2 / 2 + 1 / log2(5)),
    "nDCG@2": (3 / log2(3)) / (3 + 2 / log2(3)),
    "R@5": 3 / 4,
    "R(rel=2)@5": 2 / 3,
    "R(rel=2)@2": 1 / 3,
    "P@2": 1 / 2,
    "RR": 1 / 2,
    "Success@1": 0.0,
    "AP": (1 / 2 + 2 / 3 + 3 / 4) / 4,
    "All@5": 0.0,
}


def test_metrics_are_those_worked_out_by_hand():
    names = metrics.parse(", ".join(BY_HAND))
    assert list(names) == list(BY_HAND)
    found = metrics.per_query(RUN, QRELS, names)
    assert {name: values["q"] for name, values in found.items()} == pytest.approx(BY_HAND)
    assert {name: set(values) for name, values in found.items()} == {name: {"q", "r"} for name in names}
    both = metrics.per_query(RUN, QRELS, ["All@1", "All@2", "R@2"])
    assert [both[name]["r"] for name in both] == [0.0, 1.0, 1.0]


def test_exponential_gain_changes_ndcg_alone():
    names = [*BY_HAND, "nDCG@3"]
    found = metrics.per_query(RUN, QRELS, names, exponential_gain=True)
    ideal = 7 + 3 / log2(3) + 3 / 2 + 1 / log2(5)
    assert found["nDCG@10"]["q"] == pytest.approx((7 / log2(3) + 1 / 2 + 3 / log2(5)) / ideal)
    linear = metrics.per_query(RUN, QRELS, names)
    assert all(found[name] == linear[name] for name in names if not name.startswith("nDCG"))
    with pytest.raises(InputError, match="a grade is 31: exponential gain takes grades up to 30"):
        metrics.per_query({"q": {"a": 1.0}}, {"q": {"a": 31}}, ["nDCG@10"], exponential_gain=True)


def test_one_measure_under_two_names():
    found = metrics.per_query(RUN, QRELS, ["R@5", "R(rel=1)@5", "All@5"])
    assert found["R@5"] == found["R(rel=1)@5"] == {"q": 0.75, "r": 1.0}


def test_nothing_to_measure():
    assert metrics.per_query({}, QRELS, ["R@5"]) == {"R@5": {}}
    assert metrics.per_query({"q": {}}, QRELS, ["R@5", "nDCG@10"]) == {"R@5": {"q": 0.0}, "nDCG@10": {"q": 0.0}}


@pytest.mark.parametrize(
    "name",
    ["R", "R@0", "R@-1", "R@True", "R@1.5", "R(rel=0)@5", "R(rel='x')@5", f"R(rel={10**20})@5", "All@0", "ERR@5",
     "R(", "R@[5]", "\0", "__import__('os')", "Accuracy", "IPrec@7"],
)  # fmt: skip
def test_what_trec_eval_does_not_compute_is_refused(name):
    with pytest.raises(InputError, match="no measure"):
        metrics.parse(f"nDCG@10,{name}")


ODD = st.text(max_size=5) | st.text(st.sampled_from(" \t\n\r\\x{20}_%\0\x85\u2028\u3000\ud800ab"), max_size=5)
SCORES = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324])


@given(st.lists(ODD, unique=True, min_size=1, max_size=8))
@example(["a b", "a_b", r"a\x{20}b", r"a\\x{20}b", "", "\\", "\\\\"])
def test_ids_stay_different_words(keys):
    words = [word(key) for key in keys]
    assert len(set(words)) == len(keys)
    assert all(one.split() == [one] and one.encode() and "\0" not in one for one in words)
    plain = ["doc-1", "https://a.b/c%20d?e=f#g", "MED-10", "é"]
    assert list(map(word, plain)) == plain


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_run_file_read_back_has_the_same_metrics(tmp_path, data):
    """Whoever reads the two files with any tool that takes them finds the values of the report."""
    queries = data.draw(st.lists(ODD, unique=True, min_size=1, max_size=3))
    documents = data.draw(st.lists(ODD, unique=True, min_size=1, max_size=8))
    grades = st.dictionaries(st.sampled_from(documents), st.integers(0, 3), min_size=1)
    run = {query: {key: data.draw(SCORES) for key in data.draw(st.permutations(documents))} for query in queries}
    qrels = {query: data.draw(grades) for query in queries}
    names = ["nDCG@3", "R@2", "R(rel=2)@2", "RR"]
    found = metrics.per_query(run, qrels, names)
    write_run(tmp_path / "a.trec", "a", run)
    write_qrels(tmp_path / "qrels.txt", qrels)
    again = ir_measures.iter_calc(
        map(ir_measures.parse_measure, names),
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt"))),
        list(ir_measures.read_trec_run(str(tmp_path / "a.trec"))),
    )
    read = {(str(value.measure), value.query_id): value.value for value in again}
    assert read == {(name, word(query)): value for name, row in found.items() for query, value in row.items()}
    lines = (tmp_path / "a.trec").read_text().split("\n")[:-1]
    for before, after in pairwise(line.split() for line in lines):
        if before[0] == after[0]:
            assert int(after[3]) == int(before[3]) + 1
            assert float(before[4]) >= float(after[4])


def test_metrics_have_linear_gain_and_count_judged_documents_that_are_no_candidates():
    values = metrics.per_query({"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1, "b": 3, "outside": 2}}, ["nDCG@10", "R@5"])
    ideal = 3 + 2 / 1.584962500721156 + 1 / 2
    assert values["nDCG@10"]["q"] == pytest.approx((1 + 3 / 1.584962500721156) / ideal)
    assert values["R@5"]["q"] == pytest.approx(2 / 3)


def test_intervals_hold_the_mean():
    found = metrics.summary({str(i): i / 10 for i in range(11)})
    assert found["mean"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"]
    assert metrics.summary({})["mean"] is None


# Comparisons


def test_equal_differences_have_no_spread_and_a_small_p():
    ours, baseline = {str(n): n / 64 + 0.25 for n in range(20)}, {str(n): n / 64 for n in range(20)}
    found = metrics.difference(ours, baseline)
    assert (found["mean"], found["low"], found["high"], found["queries"]) == (0.25, 0.25, 0.25, 20)
    assert found["p"] == pytest.approx(2 / 10_000)  # as small as 9,999 changes can tell
    five = metrics.difference({k: ours[k] for k in "01234"}, baseline)
    assert five["p"] == 2 / 2**5  # every change of signs was tried


def test_equal_systems_do_not_differ():
    values = {str(n): n / 7 for n in range(8)}
    found = metrics.difference(values, values)
    assert (found["mean"], found["low"], found["high"], found["p"]) == (0.0, 0.0, 0.0, 1.0)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.integers(0, 30).map(str), st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_a_comparison_reads_the_same_from_both_sides(pairs):
    ours, theirs = ({key: pair[side] for key, pair in pairs.items()} for side in (0, 1))
    one, other = metrics.difference(ours, theirs), metrics.difference(theirs, ours)
    if not pairs:
        assert one["mean"] is None
        return
    assert one["p"] == other["p"]
    assert one["p"] is None or 0 < one["p"] <= 1
    assert (one["mean"], one["low"], one["high"]) == pytest.approx(
        (-other["mean"], -other["high"], -other["low"]), abs=1e-9
    )


def test_only_queries_that_both_have_are_compared():
    found = metrics.difference({"a": 1.0, "b": 0.5, "mine": 0.0}, {"a": 0.0, "b": 0.0, "yours": 1.0})
    assert (found["mean"], found["queries"]) == (0.75, 2)
    assert metrics.difference({"a": 1.0}, {"a": 0.5})["p"] is None
    assert metrics.difference({"a": 1.0}, {"b": 0.5})["queries"] == 0
