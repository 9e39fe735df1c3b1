"""Reference: the published code's prompt, whose strings differ by model family and travel with the head sets."""

from __future__ import annotations

from collections.abc import Mapping

from qr_core.prompts.templates.template import INTRODUCTION, Template, TemplateSource


def reference_template(strings: Mapping[str, str]) -> Template:
    """The template with a head set's `prefix`, `suffix` and `separator`."""
    return Template(
        "reference", strings["prefix"], strings["suffix"], strings["separator"], introduction=f" {INTRODUCTION}"
    )


SOURCE = TemplateSource(lambda _tokenizer, strings, _arguments: reference_template(strings), needs_strings=True)
