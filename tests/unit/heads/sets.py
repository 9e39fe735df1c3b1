"""Head sets for tests: with the scores of all heads, and without any."""

from __future__ import annotations

from qr_core import HeadSet
from qr_core.heads import HeadShape, Provenance

SHAPE = HeadShape(layers=3, heads=4, kv_heads=4, hidden=16)
PAIRS = SHAPE.pairs()
UNSCORED = HeadSet(
    model="m", config=SHAPE, template="plain", criterion="c", data="d", heads=[(0, 1, None), (2, 3, None)]
)


def scored(order):
    """A set of the first two heads of an order, with scores that fall along it."""
    scores = [(layer, head, 1.0 - place / 12) for place, (layer, head) in enumerate(order)]
    provenance = Provenance(examples=1, fingerprint="x", scores=scores)
    return UNSCORED.model_copy(update={"heads": tuple(scores[:2]), "provenance": provenance})


FIELDS = {
    "model": "org/model",
    "config": HeadShape(layers=6, heads=8, kv_heads=2, hidden=64).model_dump(),
    "template": "plain",
    "criterion": "test",
    "data": "none",
    "heads": [[3, 1, 0.5], [2, 7, None]],
}
"""What a head-set file holds; its model has the shape of the tiny ones in `tests/golden`."""
