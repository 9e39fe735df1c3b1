"""Figures: matplotlib figures that need no screen, as PNG."""

from __future__ import annotations

import io
from typing import Any

from qr_core.errors import InputError, missing_extra


def figure(width: float = 6.4, height: float = 4.8) -> Any:
    """An empty figure; width and height in inches.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError(missing_extra(error, "eval")) from error
    return Figure(figsize=(width, height), layout="constrained")


def png(drawn: Any, dpi: int = 120) -> bytes:
    """A figure as the bytes of a PNG file."""
    raw = io.BytesIO()
    drawn.savefig(raw, format="png", dpi=dpi)
    return raw.getvalue()
