"""Templates: the fixed strings around documents and query, one kind a file; callers choose one by its name.

A new kind is a file beside these, with a `TemplateSource`, and a line in `registry`. Strings come from the tokenizer's
chat template, from a head set, or from the kind itself.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.prompts.templates.bare import bare_template
    from qr_core.prompts.templates.chat import CHAT_ARGUMENTS, chat_template
    from qr_core.prompts.templates.plain import plain_template
    from qr_core.prompts.templates.reference import reference_template
    from qr_core.prompts.templates.registry import TEMPLATES, TemplateName
    from qr_core.prompts.templates.template import (
        INTRODUCTION,
        LATE_INSTRUCTION,
        NULL_QUERY,
        QUERY_LABEL,
        Template,
        TemplateSource,
    )

__all__ = [
    "CHAT_ARGUMENTS",
    "INTRODUCTION",
    "LATE_INSTRUCTION",
    "NULL_QUERY",
    "QUERY_LABEL",
    "TEMPLATES",
    "Template",
    "TemplateName",
    "TemplateSource",
    "bare_template",
    "chat_template",
    "plain_template",
    "reference_template",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "CHAT_ARGUMENTS": "qr_core.prompts.templates.chat",
        "INTRODUCTION": "qr_core.prompts.templates.template",
        "LATE_INSTRUCTION": "qr_core.prompts.templates.template",
        "NULL_QUERY": "qr_core.prompts.templates.template",
        "QUERY_LABEL": "qr_core.prompts.templates.template",
        "TEMPLATES": "qr_core.prompts.templates.registry",
        "Template": "qr_core.prompts.templates.template",
        "TemplateName": "qr_core.prompts.templates.registry",
        "TemplateSource": "qr_core.prompts.templates.template",
        "bare_template": "qr_core.prompts.templates.bare",
        "chat_template": "qr_core.prompts.templates.chat",
        "plain_template": "qr_core.prompts.templates.plain",
        "reference_template": "qr_core.prompts.templates.reference",
    },
)
