"""The reader of detection examples under its documented name; it lives in `qr_core.evaluation.data.examples`."""

from qr_core.evaluation.data.examples import read_examples

__all__ = ["read_examples"]
