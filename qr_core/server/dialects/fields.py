"""Fields: what bodies of several dialects have in common.

Types are strict: a number in quotes is no number. Fields that a protocol has and that are not declared here, because
they make no sense here (chunks, priorities), are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, FailFast, Field, Tag, ValidationInfo

from qr_core.errors import InputError
from qr_core.server.answers import Refusal
from qr_core.server.service import check_number
from qr_core.types import Document

LARGEST = 2**53
"""Of any whole number: more does not survive JSON."""
Whole = Annotated[int, Field(ge=1, le=LARGEST)]


class Body(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class DocumentIn(Body):
    """A document with more to it than text."""

    text: str
    title: str | None = None
    id: str | Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict | DocumentIn) else None


TextOrObject = Annotated[
    Annotated[str, Tag("string")] | Annotated[DocumentIn, Tag("object")],
    Discriminator(
        _kind,
        custom_error_type="document_type",
        custom_error_message="Input should be a string or an object with text",
    ),
]
MAX_DOCUMENTS = "max_documents"
"""In the context of a validation: how many documents are allowed."""


def _counted(value: Any, info: ValidationInfo) -> Any:
    """Refuse too many before any of them is looked at."""
    if isinstance(value, list) and info.context is not None:
        try:
            check_number(len(value), info.context[MAX_DOCUMENTS])
        except InputError as error:  # pydantic takes it for a fault of one field, and goes on
            raise Refusal(422, "validation", str(error)) from None
    return value


Few = BeforeValidator(_counted)
"""Annotation of lists that have as many entries as the request has documents."""
Documents = Annotated[list[TextOrObject], FailFast(), Few]


def documents_of(given: list[TextOrObject], with_titles: bool = True) -> list[Document]:
    """Documents as the scorer takes them."""
    return [
        Document(one) if isinstance(one, str) else Document(one.text, one.title if with_titles else None, one.id)
        for one in given
    ]
