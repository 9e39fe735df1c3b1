"""Pure functions on tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qr_core.ranking import scoring
from qr_core.ranking.calibration import subtract_null_query


def test_calibration_is_float32():
    query, null = (torch.tensor([mass], dtype=torch.bfloat16) for mass in (0.5, 0.25))
    found = subtract_null_query(query, (null,))
    assert found.dtype == torch.float32
    assert found.item() == 0.25


def test_filter_drops_only_low_outliers():
    low, high = torch.tensor([1.0] * 20 + [-10.0]), torch.tensor([1.0] * 20 + [12.0])
    assert scoring.filter_tokens(low).tolist() == [True] * 20 + [False]
    assert bool(scoring.filter_tokens(high).all())


def test_filter_uses_the_unbiased_deviation():
    """The last token lies between the two cuts: kept with n - 1, dropped with n."""
    tokens = torch.tensor([0.0, 0.0, 0.0, 0.0, -0.25, -1.0])
    assert tokens[5] < tokens.mean() - 2 * tokens.std(correction=0)
    assert bool(scoring.filter_tokens(tokens)[5])


def test_one_token_document_keeps_its_score():
    scores = scoring.score_documents(torch.tensor([0.25, -0.5, 1.0]), [(0, 1), (1, 2), (2, 3)])
    assert scores.tolist() == [0.25, -0.5, 1.0]


def test_heads_apart_do_not_add_up_to_heads_summed():
    """The filter is a step function: this is why both orders exist."""
    heads = torch.tensor([[1.0] * 10 + [-9.0], [-9.0] + [1.0] * 10])
    spans = [(0, 11)]
    apart = scoring.score_documents(heads, spans).sum()
    together = scoring.score_documents(heads.sum(dim=0), spans)[0]
    assert apart != together


def test_the_filter_can_be_switched_off():
    tokens = torch.tensor([1.0] * 20 + [-10.0])
    assert scoring.score_documents(tokens, [(0, 21)], filtered=False).item() == pytest.approx(10.0)


def test_relevance_is_the_share_of_positive_mass():
    assert scoring.relevance(torch.tensor([3.0, -2.0, 1.0])).tolist() == [0.75, 0.0, 0.25]
    assert scoring.relevance(torch.tensor([-1.0, -2.0])).tolist() == [0.0, 0.0]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30))
def test_relevance_lies_between_0_and_1(values):
    shares = scoring.relevance(torch.tensor(values))
    assert bool(((shares >= 0) & (shares <= 1)).all())
    assert shares.sum().item() == pytest.approx(1.0 if max(values) > 0 else 0.0, abs=1e-4)
