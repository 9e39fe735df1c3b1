"""Options of a detection: as one object, by name, and what is refused."""

from __future__ import annotations

import pytest

from qr_core import InputError, QRScorer, detect_heads
from qr_core.detection.options import DetectionOptions, divided
from qr_core.options import ScorerOptions
from tests.unit.detection.planted import EXAMPLES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criterion": "best"}, "criterion"), ({"num_heads": 0}, "num_heads"), ({"num_heads": 9}, "only 8 heads"),
        ({"sample": 0}, "sample"), ({"temperature": 0}, "temperature"), ({"max_layer": -1}, "max_layer"),
    ],
)  # fmt: skip
def test_wrong_options(planted, options, words):
    with pytest.raises(InputError, match=words):
        detect_heads(planted[0], EXAMPLES, device="cpu", **options)


def test_names_go_to_the_options_that_have_them():
    chosen, source = divided(DetectionOptions(seed=3), ScorerOptions("m"), {"num_heads": 2, "device": "cpu"})
    assert chosen == DetectionOptions(num_heads=2, seed=3)
    assert source == ScorerOptions("m", heads="all", device="cpu")
    assert divided(None, ScorerOptions("m"), {"like": "some/set"})[1].heads == "some/set"
    assert divided(None, ScorerOptions("m", heads="own.json"), {})[1].heads == "own.json"


def test_one_object_does_what_names_do(planted):
    named = detect_heads(planted[0], EXAMPLES[:4], num_heads=2, shuffle=True, seed=5, device="cpu")
    options = DetectionOptions(num_heads=2, shuffle=True, seed=5)
    whole = detect_heads(ScorerOptions(planted[0], device="cpu"), EXAMPLES[:4], options=options)
    assert whole.heads == named.heads
    assert whole.heads.provenance.shuffled


def test_unknown_names_are_refused(planted):
    with pytest.raises(TypeError, match=r"no option 'num_head' here: use some of .*num_heads"):
        detect_heads(planted[0], EXAMPLES, num_head=2)
    with pytest.raises(TypeError, match="no option 'heads'"):
        detect_heads(planted[0], EXAMPLES, heads="1-1")


def test_a_scorer_takes_no_options_of_its_making(planted):
    scorer = QRScorer.from_pretrained(planted[0], "all", device="cpu")
    with pytest.raises(TypeError, match="no option 'template'"):
        detect_heads(scorer, EXAMPLES, template="chat")
    with pytest.raises(InputError, match="has its template already"):
        detect_heads(scorer, EXAMPLES, like="llama-3.2-1b-instruct/nq")
