"""Flat: a command whose parameters are options classes becomes one with a parameter for each option.

    def rank(query: ..., scorer: ScorerOptions)  ->  rank(query, model, heads, template, ...)

Typer makes the command line from the flat one; the command gets the classes back. What an option is called, its help
and its bounds come from the metadata of its field (see `qr_core.options.option`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

from qr_core.errors import InputError
from qr_core.fields import option_type
from qr_core.registry import registry_at

REGISTRY = "registry"
"""Begins the `metavar` of an option whose values are the names in a registry."""


class Only:
    """The fields that a command offers, in `Annotated[ScorerOptions, Only("model", "device")]`."""

    def __init__(self, *names: str) -> None:
        self.names = names


def names_in(registry: str, *more: str) -> str:
    """The `metavar` of an option that takes a name from a registry (see `registry_at`).

    The registry is imported when somebody asks for help, and not before. `more` are names that the command knows beside
    it.
    """
    return " ".join((REGISTRY, registry, *more))


def flat(command: Callable[..., Any], place: str) -> Callable[..., Any]:
    """`command` with options in place of options classes.

    An option that the command or several of its classes have under one name is asked for once, and all get it.

    Parameters
    ----------
    command : callable
        Parameters annotated with a dataclass are replaced by its fields, and those by theirs where they are dataclasses
        too. The default of such a parameter, where there is one, says what the options' defaults are.
    place : str
        The command's name. A field whose metadata give a reason under `absent` for it, or for `cli`, is left out.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: group for name, parameter in own.items() if (group := _group(parameter, place))}
    offered: dict[str, inspect.Parameter] = {}
    for name, parameter in own.items():
        for option in groups[name].options() if name in groups else (parameter,):
            offered.setdefault(option.name, option.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def flattened(**values: Any) -> Any:
        given = {name: value for name, value in values.items() if name in own and name not in groups}
        return command(**given, **{name: group.made(values) for name, group in groups.items()})

    del flattened.__wrapped__
    flattened.__signature__ = inspect.Signature(list(offered.values()))  # type: ignore[attr-defined]
    flattened.__annotations__ = {name: option.annotation for name, option in offered.items()}
    return flattened


class Command(TyperCommand):
    """Help in sections, one for each options class, with the names that registries know."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (parameter.metavar or "").startswith(REGISTRY):
                _, place, *more = str(parameter.metavar).split()
                parameter.metavar = f"<{'|'.join([*registry_at(place), *more])}>"
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def absent(field: Field[Any], place: str) -> str | None:
    """Why a command does not offer an option; None where it does."""
    reasons: Mapping[str, str] = field.metadata.get("absent", {})
    return reasons.get(place, reasons.get("cli"))


def listed(flag: str, text: str, kind: type, bounds: Mapping[str, Any]) -> tuple[Any, ...]:
    """Values separated by commas.

    Parameters
    ----------
    flag : str
        The option, for errors.
    text : str
    kind : type
        `str`, `int` or `float`.
    bounds : mapping
        `least` and `most`, where numbers have any.

    Raises
    ------
    InputError
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind is str:
        return tuple(parts)
    numbers = "whole numbers" if kind is int else "numbers"
    try:
        values = tuple(map(kind, parts))
    except ValueError:
        raise InputError(f"{flag} {text!r}: use {numbers} separated by commas") from None
    least, most = bounds.get("least", -math.inf), bounds.get("most", math.inf)
    if not all(least <= value <= most for value in values):
        ends = [f"from {least}"] * (least > -math.inf) + [f"to {most}"] * (most < math.inf)
        raise InputError(f"{flag} {text!r}: use {numbers} {' '.join(ends)}")
    return values


@dataclass(frozen=True)
class _Group:
    """An options class, its defaults (its own, or those of an object), and which of its fields are offered."""

    kind: Any
    place: str
    given: Any = None
    only: tuple[str, ...] | None = None

    def options(self) -> Iterator[inspect.Parameter]:
        """The options of the command."""
        for field in fields(self.kind):
            nested = self._nested(field)
            if nested is not None:
                yield from nested.options()
            elif self._offers(field):
                yield self._option(field)

    def made(self, values: Mapping[str, Any]) -> Any:
        """The class, with the values of a command line and, for what is not offered, the defaults."""
        chosen: dict[str, Any] = {}
        for field in fields(self.kind):
            nested = self._nested(field)
            if nested is not None:
                chosen[field.name] = nested.made(values)
            elif self._offers(field):
                chosen[field.name] = self._value(field, values[field.name])
            elif self.given is not None:
                chosen[field.name] = getattr(self.given, field.name)
        return self.kind(**chosen)

    def _offers(self, field: Field[Any]) -> bool:
        wanted = self.only is None or field.name in self.only
        return wanted and "help" in field.metadata and absent(field, self.place) is None

    def _nested(self, field: Field[Any]) -> _Group | None:
        if "help" in field.metadata or not is_dataclass(kind := option_type(self.kind, field, "cli")):
            return None
        default = None if field.default is MISSING else field.default
        return _Group(kind, self.place, default if self.given is None else getattr(self.given, field.name))

    def _option(self, field: Field[Any]) -> inspect.Parameter:
        about, kind, default = field.metadata, option_type(self.kind, field, "cli"), self._default(field)
        flags = about.get("flags") or (_flag(field.name) if default is False else ())
        bounds: dict[str, Any] = {"min": about.get("least"), "max": about.get("most")}
        if get_origin(kind) is tuple:
            kind, bounds = str, {}
            default = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in default)
        option = typer.Option(
            *((flags,) if isinstance(flags, str) else flags),
            help=about["help"],
            metavar=names_in(about["registry"]) if "registry" in about else None,
            rich_help_panel=about.get("panel", getattr(self.kind, "PANEL", None)),
            **bounds,
        )
        annotation = Annotated[kind, option]  # type: ignore[valid-type]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    def _value(self, field: Field[Any], value: Any) -> Any:
        kind, parse = option_type(self.kind, field, "cli"), field.metadata.get("parse")
        if get_origin(kind) is tuple:
            return listed(_flag(field.name), value, get_args(kind)[0], field.metadata)
        return parse(value) if parse is not None and value is not None else value

    def _default(self, field: Field[Any]) -> Any:
        if self.given is not None:
            return getattr(self.given, field.name)
        return inspect.Parameter.empty if field.default is MISSING else field.default


def _group(parameter: inspect.Parameter, place: str) -> _Group | None:
    kind, *about = (
        get_args(parameter.annotation) if get_origin(parameter.annotation) is Annotated else (parameter.annotation,)
    )
    if not is_dataclass(kind):
        return None
    only = next((one.names for one in about if isinstance(one, Only)), None)
    return _Group(kind, place, None if parameter.default is parameter.empty else parameter.default, only)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
