"""Readers of BEIR folders under their documented name; they live in `qr_core.evaluation.data.beir`."""

from qr_core.evaluation.data.beir import BeirSet, pools_by_title, pools_from_candidates, read_beir, read_candidates

__all__ = ["BeirSet", "pools_by_title", "pools_from_candidates", "read_beir", "read_candidates"]
