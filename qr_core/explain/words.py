"""Words: what counts as a word of a text."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+|[^\w\s]+")
"""A word or a run of punctuation."""
