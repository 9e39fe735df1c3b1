"""Full context, as a baseline for answers: nothing is ranked, and the generator reads every document."""

from __future__ import annotations

from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry


def full_context_entries(_: EvaluationOptions) -> list[Entry]:
    """The one entry, without anything that ranks."""
    return [Entry("full-context", {"model": "every document, in the given order"})]
