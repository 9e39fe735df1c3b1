"""Readers of BEIR folders under their documented name; they live in `qr_core.evaluation.data.beir`."""

from qr_core.evaluation.data.beir import BeirSet, read_beir, read_candidates, sets_by_title, sets_from_candidates

pools_by_title, pools_from_candidates = sets_by_title, sets_from_candidates  # their former names, kept until 1.0

__all__ = [
    "BeirSet",
    "pools_by_title",
    "pools_from_candidates",
    "read_beir",
    "read_candidates",
    "sets_by_title",
    "sets_from_candidates",
]
