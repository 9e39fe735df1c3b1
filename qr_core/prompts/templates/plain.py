"""Plain: for base models and the embedded decoder; no control tokens but the tokenizer's own leading ones."""

from __future__ import annotations

from qr_core.prompts.templates.template import Template, TemplateSource


def plain_template() -> Template:
    """The same strings for every model."""
    return Template("plain")


SOURCE = TemplateSource(lambda *_: plain_template())
