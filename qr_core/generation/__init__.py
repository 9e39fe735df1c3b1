"""Generation: let a language model answer a question from the parts of a context that were selected for it.

The selected parts come first and the question follows them, as in the paper (`answer`). A generator is a Hugging Face
model in this process (`local`) or any endpoint that speaks the OpenAI chat protocol (`endpoint`); `choose` makes one
from the name that a person gives it. How parts are selected is the scorer's business.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.generation.answer import INSTRUCTION, MAX_TOKENS, Answer, ask
    from qr_core.generation.choose import generator_of
    from qr_core.generation.endpoint import TIMEOUT_SECONDS, EndpointGenerator, MalformedReplyError, RefusedRequestError
    from qr_core.generation.generator import MAX_NEW_TOKENS, Generator
    from qr_core.generation.local import LocalGenerator

__all__ = [
    "INSTRUCTION",
    "MAX_NEW_TOKENS",
    "MAX_TOKENS",
    "TIMEOUT_SECONDS",
    "Answer",
    "EndpointGenerator",
    "Generator",
    "LocalGenerator",
    "MalformedReplyError",
    "RefusedRequestError",
    "ask",
    "generator_of",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Answer": "qr_core.generation.answer",
        "EndpointGenerator": "qr_core.generation.endpoint",
        "Generator": "qr_core.generation.generator",
        "INSTRUCTION": "qr_core.generation.answer",
        "LocalGenerator": "qr_core.generation.local",
        "MAX_NEW_TOKENS": "qr_core.generation.generator",
        "MAX_TOKENS": "qr_core.generation.answer",
        "MalformedReplyError": "qr_core.generation.endpoint",
        "RefusedRequestError": "qr_core.generation.endpoint",
        "TIMEOUT_SECONDS": "qr_core.generation.endpoint",
        "ask": "qr_core.generation.answer",
        "generator_of": "qr_core.generation.choose",
    },
)
