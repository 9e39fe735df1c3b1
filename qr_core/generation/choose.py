"""Choose: a generator by what a person names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.generation.endpoint import TIMEOUT_SECONDS, EndpointGenerator
from qr_core.generation.generator import Generator
from qr_core.generation.local import LocalGenerator
from qr_core.mini import NamedModel, named_model


def generator_of(name: str, model: str | None = None, timeout: float = TIMEOUT_SECONDS, **options: Any) -> Generator:
    """A generator from what a person names it by: an address, or a model as `qr_core.mini.named_model` takes it.

    Parameters
    ----------
    name : str
        `http://` or `https://` begin an address.
    model : str, optional
        Which model an address should use.
    options
        Of `LocalGenerator.from_pretrained`; an address has no use for them.

    Raises
    ------
    InputError
        When `model` is given although `name` is a model itself, or it is the embedded encoder.
    ModelLoadError
        When config or tokenizer are missing or broken.
    """
    if name.startswith(("http://", "https://")):
        return EndpointGenerator(name, model, timeout=timeout)
    if model is not None:
        raise InputError(f"{name} names a model itself: the name of another goes with an address only")
    chosen = writing(name)
    generator = LocalGenerator.from_pretrained(chosen.place, **options)
    generator.name = chosen.name
    return generator


def writing(name: str | Path | None) -> NamedModel:
    """What a person means by a model that is to write text.

    Raises
    ------
    InputError
        When it is the embedded encoder: said before anything is ranked or loaded.
    """
    chosen = named_model(name)
    if not chosen.writes:
        raise InputError(
            f"the embedded model ({chosen.name}) ranks and prunes, it does not write: name a model that does "
            "(a folder or hub id, for example of SmolLM2-135M-Instruct; for answers also an OpenAI-compatible address)"
        )
    return chosen
