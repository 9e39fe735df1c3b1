"""What the tests of this room share."""

from __future__ import annotations

from qr_core.text import UNITS, TextFormat, Unit

HANDBOOK = """# Guest handbook

Welcome to the mill house. The miller's family built it in 1867.

## Heating

The boiler stands in the cellar. Turn the red tap a quarter to start it. Let it run for ten minutes before you bathe.

- Wood is in the shed.
- Ash goes into the iron bucket.

## Rubbish

Paper is collected on the first Monday of the month. Glass goes to the container behind the church.
"""


def units(text: str, unit: str, text_format: TextFormat = "text") -> list[Unit]:
    """Units of a text, in order."""
    return UNITS[unit].cut(text, text_format)
