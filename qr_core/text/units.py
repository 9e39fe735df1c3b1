"""Units of pruning: what is kept or left out as a whole. A new one is a function in its own file, and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from qr_core.registry import Registry
from qr_core.text.chunking import TextFormat, Unit, blocks, passages, sentences, sessions


@dataclass(frozen=True)
class UnitKind:
    """One way to cut a text.

    Attributes
    ----------
    cut : callable
        From a text and its format to its units, in order: not blank, without overlap, and with nothing but white space
        left out between them.
    text_format : str, optional
        What every text is taken for; by default the caller says.
    whole_documents : bool
        Documents that are handed in as such are scored whole; only a single text is cut.
    """

    cut: Callable[[str, TextFormat], list[Unit]]
    text_format: TextFormat | None = None
    whole_documents: bool = False


def _passages_or_sessions(text: str, text_format: TextFormat) -> list[Unit]:
    return sessions(text) if text_format == "chat" else passages(text, text_format)


def _turns(text: str, _text_format: TextFormat) -> list[Unit]:
    return blocks(text, "chat")


UNITS: Registry[UnitKind] = Registry("unit")
UNITS.add("document", UnitKind(_passages_or_sessions, whole_documents=True))
UNITS.add("paragraph", UnitKind(blocks))
UNITS.add("sentence", UnitKind(sentences))
UNITS.add("turn", UnitKind(_turns, text_format="chat"))


def _known(name: str) -> str:
    UNITS.check(name)
    return name


UnitName = Annotated[str, AfterValidator(_known)]
"""A unit's name; a pydantic model with such a field refuses one that is not registered."""
