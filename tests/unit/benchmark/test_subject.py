"""Subjects: which model and which heads are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qr_core import InputError
from qr_core.benchmark.plan import Subject
from qr_core.benchmark.subject import Loaded, spread
from qr_core.options import ScorerOptions
from tests.unit.benchmark.small import SMALL


def test_heads_of_a_random_model(loaded):
    assert spread("m", loaded.shape, 2).deepest == 2
    with pytest.raises(InputError, match="layer 3 does not exist"):
        spread("m", loaded.shape, 3)
    named = Loaded(replace(SMALL, options=SMALL.options.changed(heads="0-1,2-0")))
    assert named.heads.by_layer() == {0: [1], 2: [0]}
    assert named.with_deepest(1).heads.deepest == 1
    assert np.isclose(SMALL.shape.config().initializer_range, 0.1414, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"revision": "main"}, "revision is for a model from files"),
        ({"device_map": "auto"}, "device_map is for a model from files"),
        ({"template": "chat"}, "random weights have template 'plain'"),
        ({"dtype": "int8"}, "dtype 'int8'"),
    ],
)
def test_options_that_random_weights_cannot_follow(changes, words):
    with pytest.raises(InputError, match=words):
        Loaded(replace(SMALL, options=SMALL.options.changed(**changes)))


def test_the_options_of_a_scorer_reach_its_scorers(loaded):
    options = ScorerOptions(calibrate=False, filter_tokens=False, max_prompt_tokens=900, passage_tokens=50)
    told = Loaded(replace(SMALL, options=options.changed(device="cpu", dtype="float32")))
    for layout in ("joint", "independent"):
        before, after = loaded.scorer(layout), told.scorer(layout)
        assert (before.calibrate, before.filter_tokens, before.passage_tokens) == (True, True, None)
        assert (after.calibrate, after.filter_tokens, after.passage_tokens) == (False, False, 50)
    assert told.scorer("joint").limit == 900
    with pytest.raises(InputError, match="quantised"):
        Loaded(replace(SMALL, options=SMALL.options.changed(quantized_cache={"backend": "fp8"}))).scorer("independent")


def test_the_embedded_models_are_measured_in_their_own_layouts():
    embedded = Loaded(Subject("embedded", options=ScorerOptions(device="cpu")))
    assert (embedded.layout, embedded.name, embedded.sees_ahead) == ("late", "qrhead-mini", True)
    fast = Loaded(Subject("embedded-fast", options=ScorerOptions(device="cpu")))
    assert (fast.layout, fast.name, fast.sees_ahead) == ("independent", "qrhead-mini-fast", False)
    assert embedded.scorer("late").passage_tokens == embedded.heads.passage_tokens
    assert fast.scorer("independent").passage_tokens == fast.heads.passage_tokens == 192
    assert Loaded(Subject("embedded-fast", options=ScorerOptions(device="cpu", layout="joint"))).layout == "joint"
    assert Loaded(SMALL).layout == "joint"
