"""Registry: named things of one kind (criteria, templates, tasks, ...) that callers choose by name.

Adding one is one file and one entry. Knows nothing of what the things do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from qr_core.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things by name, in the order in which they were added.

    Parameters
    ----------
    what : str
        What one of them is called in errors, such as `criterion`.

    Examples
    --------
    >>> colours: Registry[int] = Registry("colour")
    >>> colours.add("red", 0xFF0000)
    16711680
    >>> colours["blue"]
    Traceback (most recent call last):
    ...
    qr_core.errors.InputError: colour is 'blue': use one of red
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._known: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        """Make `thing` known as `name`.

        Raises
        ------
        ValueError
            When the name is taken.
        """
        if name in self._known:
            raise ValueError(f"{self.what} {name!r} is already registered")
        self._known[name] = thing
        return thing

    def remove(self, name: str) -> None:
        """Take an entry out again, as tests do."""
        del self._known[name]

    def check(self, name: object) -> None:
        """Refuse a name that is not known.

        Raises
        ------
        InputError
            Listing the names that are.
        """
        if name not in self:
            raise InputError(f"{self.what} is {name!r}: use one of {', '.join(self._known)}")

    def __getitem__(self, name: str) -> T:
        self.check(name)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def registry_at(place: str) -> Registry[Any]:
    """The registry of a place, such as `qr_core.detection.criteria:CRITERIA`, imported only now: it may need torch."""
    module, _, name = place.partition(":")
    found: Registry[Any] = getattr(import_module(module), name)
    return found
