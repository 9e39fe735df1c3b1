"""Prompts: a query and documents become token ids, with the token span of every document and of the query.

`templates` has the strings around them; `joint` puts all documents into one prompt, `independent` tokenises each one on
its own; `continuation` exchanges the query of a prompt made before. Spans come from construction, never from searching.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.prompts.independent import IndependentPrompt, IndependentPromptBuilder
    from qr_core.prompts.joint import PromptBuilder
    from qr_core.prompts.prompt import Asked, Prompt
    from qr_core.prompts.templates import TEMPLATES, Template, TemplateSource

__all__ = [
    "TEMPLATES",
    "Asked",
    "IndependentPrompt",
    "IndependentPromptBuilder",
    "Prompt",
    "PromptBuilder",
    "Template",
    "TemplateSource",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "IndependentPrompt": "qr_core.prompts.independent",
        "IndependentPromptBuilder": "qr_core.prompts.independent",
        "Asked": "qr_core.prompts.prompt",
        "Prompt": "qr_core.prompts.prompt",
        "PromptBuilder": "qr_core.prompts.joint",
        "TEMPLATES": "qr_core.prompts.templates",
        "Template": "qr_core.prompts.templates",
        "TemplateSource": "qr_core.prompts.templates",
    },
)
