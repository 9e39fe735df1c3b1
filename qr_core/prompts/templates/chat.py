"""Chat: the tokenizer's own chat template, with its date and its thinking pinned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qr_core.errors import ModelLoadError
from qr_core.prompts.templates.template import Template, TemplateSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PINNED_DATE = datetime(2024, 7, 26)
CHAT_ARGUMENTS: dict[str, Any] = {"date_string": PINNED_DATE.strftime("%d %b %Y"), "enable_thinking": False}
"""Pinned, so that a prompt does not change with the day it is made or with a model's default."""
_DATES = {
    form: PINNED_DATE.strftime(form) for form in ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%d %B %Y", "%A, %B %d, %Y")
}
_PINNED_CLOCK = (
    f"{{%- macro strftime_now(form) -%}}{{{{ {_DATES}.get(form, '{_DATES['%d %b %Y']}') }}}}{{%- endmacro -%}}"
)
"""For templates that ask the clock: it stands still. Only a template can replace transformers' function."""

_SENTINEL = "qrhead-content-9d1f"


def chat_template(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> Template:
    """The tokenizer's own chat template, rendered once around a sentinel.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    arguments : mapping, optional
        Passed to the template; `CHAT_ARGUMENTS` by default. A head set records those it was found under.

    Raises
    ------
    ModelLoadError
        When the tokenizer has no chat template, or its template drops or repeats the user's message.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelLoadError(
            "the tokenizer has no chat template: pass template='plain', or heads that name another one"
        )
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=_PINNED_CLOCK + tokenizer.get_chat_template(),
            **(CHAT_ARGUMENTS if arguments is None else arguments),
        )
    except Exception as error:  # a template is a program from the model's folder: anything may come out of it
        raise ModelLoadError(f"the tokenizer's chat template fails: {error}") from error
    parts = str(rendered).split(_SENTINEL)
    if len(parts) != 2:
        raise ModelLoadError(f"the tokenizer's chat template shows the user's message {len(parts) - 1} times, not once")
    return Template("chat", parts[0], parts[1], adds_bos=False)


SOURCE = TemplateSource(
    lambda tokenizer, _strings, arguments: chat_template(tokenizer, arguments), arguments=CHAT_ARGUMENTS
)
