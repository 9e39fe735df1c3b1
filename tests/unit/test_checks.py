"""Checks: what callers hand in is usable, or the error names it."""

from __future__ import annotations

from typing import Literal

import pytest

from qr_core import Document, InputError
from qr_core.checks import (
    LONGEST_ELLIPSIS,
    check_ellipsis,
    check_one_of,
    check_share,
    check_whole_number,
    checked_documents,
    checked_jobs,
    checked_query,
    encodable,
)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1"])
def test_a_number_that_is_none_is_named(value):
    with pytest.raises(InputError, match=r"top_k is .*: use a whole number from 1, or None"):
        check_whole_number("top_k", value)
    check_whole_number("top_k", None)
    check_whole_number("top_k", 1)
    check_whole_number("min_keep", 0, least=0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_share_is_a_number_from_0_to_1(value):
    with pytest.raises(InputError, match=r"retrieval_weight is .*: use a number from 0 to 1"):
        check_share("retrieval_weight", value)
    for fine in (0, 0.5, 1.0):
        check_share("retrieval_weight", fine)


def test_a_value_outside_its_literal_is_named():
    known = Literal["given", "reversed"]
    check_one_of("order", "given", known)
    with pytest.raises(InputError, match="order is 'up': use one of given, reversed"):
        check_one_of("order", "up", known)


def test_what_marks_gaps_is_short():
    check_ellipsis("ellipsis", None)
    check_ellipsis("ellipsis", "." * LONGEST_ELLIPSIS)
    with pytest.raises(InputError, match="prune_ellipsis has 101 characters: use at most 100"):
        check_ellipsis("prune_ellipsis", "." * 101)
    with pytest.raises(InputError, match="ellipsis is of type int: pass a str"):
        check_ellipsis("ellipsis", 3)


def test_lone_surrogates_are_replaced_one_for_one():
    assert encodable("a\ud800b\udfffc😀") == "a\ufffdb\ufffdc😀"


@pytest.mark.parametrize("query", ["", " \n", None, 3])
def test_a_query_that_is_none_is_named(query):
    with pytest.raises(InputError, match="the query is"):
        checked_query(query)
    assert checked_query(" q ") == " q "


@pytest.mark.parametrize("documents", ["text", b"text", {"text": "x"}, 3])
def test_documents_that_are_no_list_are_named(documents):
    with pytest.raises(InputError, match="pass a list of documents"):
        checked_documents(documents)


def test_jobs_are_pairs():
    assert checked_jobs([("q", ["a"]), ["r", []]]) == [("q", [Document("a")]), ("r", [])]
    with pytest.raises(InputError, match="jobs are of type str"):
        checked_jobs("q")
    for bad in ("ab", ("q",), 3):
        with pytest.raises(InputError, match="job 1 is not a pair"):
            checked_jobs([("q", ["a"]), bad])
