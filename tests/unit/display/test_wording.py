"""Wording: numbers and documents as people read them."""

from __future__ import annotations

import pytest

from qr_core.display import titled, with_interval, with_spread
from qr_core.errors import missing_extra, reason_of


def test_numbers_have_three_digits_and_their_spread():
    assert with_spread(0.8123, 0.0131) == "0.812 ± 0.013"
    assert with_interval(0.8123, 0.79, 0.83) == "0.812 [0.790, 0.830]"
    assert with_interval(0.8123, -0.79, 0.83, sign="+") == "+0.812 [-0.790, +0.830]"


def test_a_title_stands_on_a_line_of_its_own():
    assert titled("Refunds", "Five days.") == "Refunds\nFive days."
    assert titled(None, "Five days.") == titled("", "Five days.") == "Five days."


@pytest.mark.parametrize(
    ("message", "line"), [("one\ntwo", "one"), ("\n  two \n", "two"), ("", "ValueError"), (" \n ", "ValueError")]
)
def test_an_error_is_told_by_its_reason_of_or_its_type(message, line):
    assert reason_of(ValueError(message)) == line


def test_a_missing_package_names_the_extra_that_brings_it():
    assert missing_extra(ImportError(name="ray"), "distributed") == "ray is missing: pip install 'qrhead[distributed]'"
    assert missing_extra(ImportError("broken"), "eval").startswith("a package is missing")
