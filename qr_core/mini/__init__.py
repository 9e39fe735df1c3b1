"""Embedded models: small ones inside this package, and the names that people call them by.

Each is a folder below, with its card, that the scorer loads like any other model's. `qr_core.training` has the scripts
that made them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path


@dataclass(frozen=True)
class Embedded:
    """One of them: its name in results and head sets, its folder here, and whether it can write text."""

    name: str
    folder: str
    writes: bool = False


DEFAULT = "embedded"
EMBEDDED = {
    DEFAULT: Embedded("qrhead-mini", "model"),
    "embedded-fast": Embedded("qrhead-mini-fast", "fast", writes=True),
}
"""By what callers pass as `model`. A new one is a folder and a line."""


@dataclass(frozen=True)
class NamedModel:
    """What a caller means by `model`.

    Attributes
    ----------
    name : str
        For people: in results, records and errors.
    place : str
        Hub id or folder, as any code that loads a model takes it.
    embedded : bool
        Whether it is one of this package.
    writes : bool
        False where it is known to be an encoder, which cannot continue a text.
    """

    name: str
    place: str
    embedded: bool = False
    writes: bool = True


def named_model(model: str | Path | None) -> NamedModel:
    """The model that a caller names: wherever one is named, this says which it is.

    Parameters
    ----------
    model : str, Path or None
        A key of `EMBEDDED`, or the name of one in results; a hub id; or a folder (of such a name: a Path, or
        `./embedded`). By default the embedded one.
    """
    asked = DEFAULT if model is None else str(model)
    for key, one in EMBEDDED.items():
        if asked in (key, one.name) and not isinstance(model, Path):
            with as_file(files(__name__).joinpath(one.folder)) as folder:
                return NamedModel(one.name, str(folder), embedded=True, writes=one.writes)
    return NamedModel(asked, asked)


def embedded_model(name: str = DEFAULT) -> Path:
    """Folder of an embedded model."""
    return Path(named_model(name).place)
