"""Bare: nothing around documents and queries, as encoders were trained; for the late layout."""

from __future__ import annotations

from qr_core.prompts.templates.template import Template, TemplateSource


def bare_template() -> Template:
    """The same for every model."""
    return Template("bare", separator="", introduction="", late_instruction="", query_label="")


SOURCE = TemplateSource(lambda *_: bare_template())
