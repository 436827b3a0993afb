"""Named things that a recipe may choose from."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def unknown(kind: str, name: object, choices: Iterable[str]) -> ValueError:
    """The error for a name that is not among the choices: suggests the nearest and lists them all."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}.{hint} Choose one of: {', '.join(known) or '(none)'}")


class Registry(Generic[T]):
    """Names to values, in the order of their registration.

    Args:
        kind: what is registered, for messages: "architecture".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._values: dict[str, T] = {}

    def register(self, name: str, value: T) -> T:
        """Add a value and return it. A name that is taken is a ValueError."""
        if name in self._values:
            raise ValueError(f"{self.kind} {name!r} is registered already; registered: {', '.join(self)}")
        self._values[name] = value
        return value

    def get(self, name: str) -> T:
        """The value of a name. An unknown name is a ValueError that lists the names."""
        if name not in self._values:
            raise unknown(self.kind, name, self._values)
        return self._values[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of their registration."""
        return tuple(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values
