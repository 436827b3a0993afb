"""Fields of frozen dataclasses: checked and converted by their annotations, read, written, changed by dotted path.

What a recipe is made of (`dhm.recipe`) rests on this; nothing here knows of recipes.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from dhm.registry import unknown

R = TypeVar("R")


class Spec:
    """Checks and converts the fields of a dataclass by their annotations, when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, annotation in field_types(type(self)).items():
            object.__setattr__(self, name, convert(getattr(self, name), annotation, name))

    def require(self, condition: bool, message: str) -> None:
        """A ValueError with the message unless the condition holds."""
        if not condition:
            raise ValueError(message)


def to_dict(spec: Any) -> dict[str, Any]:
    """A recipe, or a part of one, in full, as plain values that JSON keeps."""
    return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(spec)))


def from_dict(cls: type[R], values: Mapping[str, Any]) -> R:
    """The recipe (or part) that `to_dict` wrote; a field that is missing takes its default.

    Raises:
        ValueError: an unknown field, a value of the wrong type or range; names the field and the remedy.
    """
    return typing.cast(R, convert(values, cls, ""))


def identity(spec: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain values.

    A field that is added later with a default that changes nothing leaves every identity as it was.
    """
    kept: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.default_factory is not dataclasses.MISSING:
            default: Any = field.default_factory()
        else:
            default = field.default
        if value != default:
            kept[field.name] = _identity_of(value)
    return kept


def _identity_of(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return identity(value)
    if isinstance(value, tuple):
        return [_identity_of(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def field_types(cls: type) -> dict[str, Any]:
    """The resolved annotations of a dataclass's fields."""
    return _field_types(cls)


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def convert(value: Any, annotation: Any, path: str) -> Any:
    """A value as its annotation wants it: whole floats become ints, lists tuples, mappings dataclasses.

    Args:
        path: the field's dotted name, for messages.

    Raises:
        ValueError: the value cannot be converted without loss.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        return convert(value, _optional(annotation), path)
    if origin is tuple:
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
            raise _mismatch(path, "a list", value)
        return tuple(convert(item, arguments[0], f"{path}[{index}]") for index, item in enumerate(value))
    if dataclasses.is_dataclass(annotation):
        return value if isinstance(value, typing.cast(type, annotation)) else _construct(annotation, value, path)
    return _scalar(value, annotation, path)


def _scalar(value: Any, annotation: Any, path: str) -> Any:
    if annotation is bool or annotation is str:
        if not isinstance(value, annotation):
            raise _mismatch(path, "true or false" if annotation is bool else "a name", value)
        return value
    expected = "a whole number" if annotation is int else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(path, expected, value)
    try:
        whole = math.isfinite(value) and value == int(value)
        converted = annotation(value)
    except OverflowError:  # an integer beyond what a float holds, or infinity as an integer
        raise _mismatch(path, expected, value) from None
    if not math.isfinite(converted) or (annotation is int and not whole):
        raise _mismatch(path, expected, value)
    return converted


def _construct(cls: Any, values: Any, path: str) -> Any:
    what = path or cls.__name__.lower()
    if not isinstance(values, Mapping):
        raise _mismatch(what, "fields and their values", values)
    types_of = field_types(cls)
    prefix = f"{path}." if path else ""
    for name in values:
        if name not in types_of:
            raise unknown(f"field of {what}", name, types_of)
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in values
    ]
    if missing:
        raise ValueError(f"{what}: {', '.join(missing)} must be given")
    return cls(**{name: convert(value, types_of[name], f"{prefix}{name}") for name, value in values.items()})


def _mismatch(path: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{path}: expected {expected}, got {value!r}")


def replace_at(spec: R, path: str, value: Any) -> R:
    """A copy with the field at a dotted path changed: `replace_at(recipe, "optim.lr", 0.05)`.

    A path through a part that the recipe does not have (`mimic.alpha` without mimicking) changes nothing.

    Raises:
        ValueError: no such field, or a value that it cannot take; names the whole path.
    """
    return typing.cast(R, _replaced(spec, type(spec), path.split("."), value, ""))


def _replaced(spec: Any, cls: Any, path: list[str], value: Any, prefix: str) -> Any:
    """As `replace_at`; where `spec` is None the path and the value are checked all the same."""
    name, *rest = path
    types_of = field_types(cls)
    if name not in types_of:
        raise unknown("field", prefix + name, [prefix + known for known in types_of])
    if rest:
        part = _optional(types_of[name])
        if not dataclasses.is_dataclass(part):
            raise ValueError(f"{prefix}{'.'.join(path)}: {name} has no fields of its own; give it whole")
        changed = _replaced(getattr(spec, name, None), part, rest, value, f"{prefix}{name}.")
    else:
        changed = convert(value, types_of[name], prefix + name)
    return None if spec is None else dataclasses.replace(spec, **{name: changed})


def _optional(annotation: Any) -> Any:
    """The type that an annotation allows besides None."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = (part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation
