"""Registry of templates: every kind by the name that callers, head sets and the command line give it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from qr_core.prompts.templates import bare, chat, plain, reference
from qr_core.prompts.templates.template import TemplateSource
from qr_core.registry import Registry

TEMPLATES: Registry[TemplateSource] = Registry("template")
TEMPLATES.add("chat", chat.SOURCE)
TEMPLATES.add("reference", reference.SOURCE)
TEMPLATES.add("plain", plain.SOURCE)
TEMPLATES.add("bare", bare.SOURCE)


def _known(name: str) -> str:
    TEMPLATES.check(name)
    return name


TemplateName = Annotated[str, AfterValidator(_known)]
"""A template's name; a pydantic model with such a field refuses one that is not registered."""
