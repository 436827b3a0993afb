"""Named things that a recipe may choose from."""

import difflib
from collections.abc import Callable, Iterable, Iterator
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
        self._families: dict[str, tuple[Callable[[], Iterable[str]], Callable[[str], T]]] = {}
        self._made: dict[str, T] = {}

    def register(self, name: str, value: T) -> T:
        """Add a value and return it. A name that is taken is a ValueError."""
        if name in self._values:
            raise ValueError(f"{self.kind} {name!r} is registered already; registered: {', '.join(self)}")
        self._values[name] = value
        return value

    def register_family(self, prefix: str, members: Callable[[], Iterable[str]], make: Callable[[str], T]) -> None:
        """Let `prefix/MEMBER` be a name too, for families so large that they are neither made nor listed beforehand.

        Args:
            members: gives the members' names; called where a name of the family is looked up.
            make: a member's name to its value; called once, where the value is first wanted.
        """
        self._families[prefix] = members, make

    def get(self, name: str) -> T:
        """The value of a name. An unknown name is a ValueError that lists the names, or those of its family."""
        if name in self._values:
            return self._values[name]
        if name not in self:
            raise unknown(
                self.kind, name, self._family(name) or (*self, *(f"{prefix}/NAME" for prefix in self._families))
            )
        if name not in self._made:
            prefix, _, member = name.partition("/")
            self._made[name] = self._families[prefix][1](member)
        return self._made[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of their registration; without those of families."""
        return tuple(self._values)

    def _family(self, name: object) -> list[str]:
        prefix, slash, _ = str(name).partition("/")
        if not slash or prefix not in self._families:
            return []
        return [f"{prefix}/{member}" for member in self._families[prefix][0]()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._family(name)
