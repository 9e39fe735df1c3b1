"""Calibrations: those that ship, and one more as anybody may add it."""

from __future__ import annotations

import pytest
import torch

from qr_core import InputError, QRScorer
from qr_core.ranking.calibration import CALIBRATIONS, Calibration
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order


def scorer_of(**options) -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3", template="plain", device="cpu", **options)


@pytest.fixture
def halved():
    """Takes half of the mean of two content-free queries away."""
    CALIBRATIONS.add(
        "halved", Calibration(("N/A", "Nothing."), lambda mass, null: mass - torch.stack(null).mean(0) / 2)
    )
    yield
    CALIBRATIONS.remove("halved")


@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_a_further_calibration_is_one_entry(halved, layout):
    scorer = scorer_of(calibration="halved", layout=layout)
    ranking = scorer.rank(QUERY, DOCUMENTS)
    assert ranking.calibrated
    plain = scorer.with_options(calibrate=False, filter_tokens=False)
    parts = [in_order(plain.rank(query, DOCUMENTS)) for query in (QUERY, "N/A", "Nothing.")]
    expected = [own - (first + second) / 4 for own, first, second in zip(*parts, strict=True)]
    assert in_order(scorer.with_options(filter_tokens=False).rank(QUERY, DOCUMENTS)) == pytest.approx(
        expected, abs=1e-5
    )


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="calibration is 'thirds': use one of null-query, none"):
        scorer_of(calibration="thirds")


def test_none_is_none():
    assert not scorer_of(calibration="none").rank(QUERY, DOCUMENTS).calibrated
    assert not scorer_of(calibration="null-query", calibrate=False).rank(QUERY, DOCUMENTS).calibrated
