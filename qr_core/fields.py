"""Fields: how an options class says what its options are, once for every place that offers them.

Knows nothing of any option.
"""

from __future__ import annotations

import json
from dataclasses import Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from qr_core.errors import InputError

if TYPE_CHECKING:  # `chain.ChainOptions` has the same fields and can be changed: checkers must not find these frozen
    from dataclasses import dataclass as options_class
else:
    options_class = dataclass(frozen=True)


__all__ = ["Options", "json_object", "option", "option_type", "options_class"]

Some = TypeVar("Some", bound="Options")


def option(default: Any, help: str, **more: Any) -> Any:  # noqa: A002 - as typer and argparse call it
    """A field of an options class.

    Parameters
    ----------
    help : str
        What the command line and the adapters say of it.
    more
        For the places that offer it: `cli`, the type that the command line takes in place of the field's own, and
        `parse`, from its value to the field's; `plain`, the type that adapters take; `flags`, its names on the command
        line, where they are not the field's; `registry`, the place of the registry that its values are names in (see
        `registry_at`); `panel`, its section of the help; `least` and `most`; `absent`, a mapping from a place (a
        command, `cli` for all of them, `adapters`) to why it is not offered there.
    """
    return field(default=default, metadata={"help": help, **more})


def json_object(text: str) -> dict[str, Any]:
    """What an option whose value is a mapping means on the command line.

    Raises
    ------
    InputError
        When it is not a JSON object.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{text!r:.80} is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{text!r:.80} is not a JSON object")
    return found


def option_type(owner: type, field: Field[Any], *names: str) -> Any:
    """The type that the metadata of a field hold under the first of `names` that is there, by default its own."""
    for name in names:
        if name in field.metadata:
            named = field.metadata[name]
            return named | None if field.default is None else named
    # Of this field alone: other fields' types may be known to a type checker only.
    alone = type(owner.__name__, (), {"__annotations__": {field.name: field.type}, "__module__": owner.__module__})
    return get_type_hints(alone, include_extras=True)[field.name]


@options_class
class Options:
    """Options of one kind."""

    def changed(self: Some, **changes: Any) -> Some:
        """A copy with other values.

        Raises
        ------
        TypeError
            Naming an option that does not exist, and those that do.
        """
        known = [one.name for one in fields(self)]
        for name in changes:
            if name not in known:
                raise TypeError(f"there is no option {name!r}: use some of {', '.join(known)}")
        return replace(self, **changes)
