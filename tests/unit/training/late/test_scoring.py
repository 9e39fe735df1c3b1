"""Masses are those of a plain attention; scores follow parts and lengths; the loss is one of shares."""

from __future__ import annotations

import pytest
import torch

from qr_core.training.late.grow import Projections
from qr_core.training.late.scoring import Spans, document_scores, loss, masses, shares

ONE = torch.tensor(1.0)


def test_masses_are_one_softmax_over_all_documents():
    torch.manual_seed(0)
    query, keys = torch.randn(3, 8), torch.randn(10, 8)
    weights = Projections(torch.randn(8, 8), torch.randn(8, 8), torch.randn(8))
    found = masses(query, keys, weights, heads=2)
    for head in range(2):
        cut = slice(4 * head, 4 * head + 4)
        rows, columns = (query @ weights.query.T + weights.bias)[:, cut], (keys @ weights.key.T)[:, cut]
        expected = torch.stack([(columns @ row / 2).softmax(dim=0) for row in rows]).mean(dim=0)
        assert torch.allclose(found[head], expected, atol=1e-6)


def test_a_document_has_its_best_parts_score_over_a_power_of_its_length():
    mass = torch.tensor([0.1, 0.1, 0.3, 0.2, 0.2, 0.1])
    spans = Spans(torch.tensor([2, 1, 3]), torch.tensor([0, 0, 1]))
    assert document_scores(mass, spans, exponent=0.0).tolist() == pytest.approx([0.3, 0.5])
    assert document_scores(mass, spans, exponent=1.0).tolist() == pytest.approx([0.3, 0.5 / 3])


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-9, 1e-30])
def test_the_loss_cannot_be_lowered_by_sending_mass_elsewhere(factor):
    scores, target = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.2, 0.1])
    kept = loss(scores, target, ONE)
    assert shares(scores * factor, ONE).exp().sum().item() == pytest.approx(1.0)
    assert loss(scores * factor, target, ONE).item() == pytest.approx(kept.item(), rel=1e-4)
    moved = scores.clone().requires_grad_()
    loss(moved * factor, target, ONE).backward()
    downhill = moved.detach() - 0.01 * moved.grad / moved.grad.abs().max()
    assert loss(downhill * factor, target, ONE) < kept
    assert downhill[0] / downhill.sum() > scores[0] / scores.sum()


def test_no_mass_at_all_is_worse_than_the_right_shares():
    target = torch.tensor([0.7, 0.2, 0.1])
    nothing = loss(torch.zeros(3), target, ONE)
    assert torch.isfinite(nothing)
    assert nothing > loss(target, target, ONE) >= 0
