"""All that determines a result, and nothing else.

A recipe says what is trained and how: it holds no path, no device, no number of workers. Two runs of one recipe at
one seed are the same run. Every dataclass here is frozen and keyword-only; a variant edits a base with
`dataclasses.replace`. Values are checked and converted by the fields' own types, so that a recipe from Python, from
JSON and from a command line is the same recipe, and a mistake is one ValueError that names the field.
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

SCHEDULES = ("constant", "multistep", "step", "cosine", "linear")
WARMUPS = ("linear", "constant")
PRECISIONS = ("float32", "bf16")


class _Spec:
    """Checks and converts the fields of a dataclass by their annotations, when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, annotation in field_types(type(self)).items():
            object.__setattr__(self, name, convert(getattr(self, name), annotation, name))

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(message)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BranchSpec(_Spec):
    """A side branch: where it forks, how deep and how wide it is (METHOD: "Side branches as released").

    Args:
        after: the node, as the number of the stage whose output it is (1 is the first stage).
        blocks: blocks of each of the branch's own stages; one entry for every stage that follows the node.
        width: factor on the width of the backbone's stages (for DenseNet, on the growth rate).
    """

    after: int
    blocks: tuple[int, ...]
    width: float = 1.0

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        self._require(self.after >= 1, f"branch after={self.after}: nodes are numbered from 1")
        self._require(
            len(self.blocks) > 0 and min(self.blocks) >= 1,
            f"branch blocks={list(self.blocks)}: every stage of a branch has at least one block",
        )
        self._require(self.width > 0, f"branch width={self.width}: must be above 0")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MimicSpec(_Spec):
    """The mimicking loss between every ordered pair of heads (METHOD: "Loss, as released").

    Args:
        alpha: weight of the mimicking terms against the cross-entropies. 0 is deep supervision, bit for bit.
        temperature: T; terms are scaled by its square.
        smoothing: added to every probability before the log, as the released code does; 0 is the exact KL.
    """

    alpha: float = 1.0
    temperature: float = 1.0
    smoothing: float = 1e-8

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        self._require(self.alpha >= 0, f"mimic.alpha={self.alpha}: must not be negative")
        self._require(self.temperature > 0, f"mimic.temperature={self.temperature}: must be above 0")
        self._require(0 <= self.smoothing < 1, f"mimic.smoothing={self.smoothing}: must lie in [0, 1)")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TermSpec(_Spec):
    """One more term of the objective, by its name in `dhm.losses.TERMS`, with its weight."""

    name: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimSpec(_Spec):
    """SGD and its learning-rate schedule.

    Args:
        lr: initial learning rate.
        schedule: `multistep` multiplies by `gamma` at each of `milestones` (0-based epochs); `step` every `step_size`
            epochs; `cosine` and `linear` fall to 0, by iteration; `constant` stays.
        warmup_epochs: length of the warm-up, in epochs; `cosine` and `linear` begin after it.
        warmup: `linear` rises from `warmup_lr` to `lr`, by iteration; `constant` stays at `warmup_lr`.
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    batch_size: int = 128
    schedule: str = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    step_size: int = 30
    warmup_epochs: float = 0.0
    warmup: str = "linear"
    warmup_lr: float = 0.0

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        self._require(self.lr > 0, f"optim.lr={self.lr}: must be above 0")
        self._require(0 <= self.momentum < 1, f"optim.momentum={self.momentum}: must lie in [0, 1)")
        self._require(self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay}: must not be negative")
        self._require(self.batch_size >= 1, f"optim.batch_size={self.batch_size}: must be at least 1")
        self._require(self.step_size >= 1, f"optim.step_size={self.step_size}: must be at least 1")
        self._require(self.warmup_epochs >= 0, f"optim.warmup_epochs={self.warmup_epochs}: must not be negative")
        self._require(
            not self.nesterov or self.momentum > 0,
            "optim.nesterov=true needs optim.momentum above 0",
        )
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("warm-up", self.warmup, WARMUPS)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec(_Spec):
    """What is seen in training, apart from where it lies.

    Args:
        name: a data set of `dhm.data.DATASETS`.
        train_size: number of training images to keep, balanced over classes and drawn by the run's seed; 0 keeps all.
        val_fraction: share of the training images held out for validation, drawn by the run's seed.
        label_noise: share of the training labels that are replaced by another class, drawn by the run's seed.
        pad: random crops shift an image by at most this many pixels (zeros outside).
        flip: random horizontal flips.
        image_size: images are resized (shorter side) and centre-cropped to this many pixels; 0 leaves them as they are.
        mean, std: per-channel normalisation of pixels in [0, 1]; empty means those of the training images.
    """

    name: str
    train_size: int = 0
    val_fraction: float = 0.0
    label_noise: float = 0.0
    pad: int = 4
    flip: bool = True
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        for name in ("train_size", "pad", "image_size"):
            self._require(getattr(self, name) >= 0, f"data.{name}={getattr(self, name)}: must not be negative")
        for name in ("val_fraction", "label_noise"):
            self._require(0 <= getattr(self, name) < 1, f"data.{name}={getattr(self, name)}: must lie in [0, 1)")
        self._require(len(self.mean) == len(self.std), "data.mean and data.std must have the same length")
        self._require(all(s > 0 for s in self.std), f"data.std={list(self.std)}: must be above 0")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(_Spec):
    """What is trained and how.

    The method follows from the fields: without branches it is `plain`; with branches it is `dsl` (deep supervision),
    or `dhm` where the heads also mimic each other.

    Args:
        arch: a backbone of `dhm.backbones.ARCHITECTURES`.
        epochs: passes over the training images.
        branches: side branches; kept in the order of their nodes.
        mimic: the mimicking loss, or none.
        terms: further terms of the objective.
        dropout: probability, for the families that have dropout (wide ResNet, DenseNet).
        precision: `float32`, or `bf16` for autocast to bfloat16 (the loss stays in float32).
        tf32: TensorFloat-32 for float32 matrix products and convolutions, on GPUs that have it.
    """

    arch: str
    epochs: int
    data: DataSpec
    optim: OptimSpec = dataclasses.field(default_factory=OptimSpec)
    branches: tuple[BranchSpec, ...] = ()
    mimic: MimicSpec | None = None
    terms: tuple[TermSpec, ...] = ()
    dropout: float = 0.0
    precision: str = "float32"
    tf32: bool = False

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        object.__setattr__(self, "branches", tuple(sorted(self.branches, key=lambda branch: branch.after)))
        self._require(self.epochs >= 1, f"epochs={self.epochs}: must be at least 1")
        self._require(0 <= self.dropout < 1, f"dropout={self.dropout}: must lie in [0, 1)")
        self._require(
            self.mimic is None or len(self.branches) > 0,
            "heads can mimic each other only where there are side branches: give branches, or leave mimic out",
        )
        _one_of("precision", self.precision, PRECISIONS)

    @property
    def method(self) -> str:
        """`plain`, `dsl` or `dhm`."""
        if not self.branches:
            return "plain"
        return "dsl" if self.mimic is None else "dhm"

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads: `main`, then each side branch by its node (`side1`; a second one there is `side1b`)."""
        names: list[str] = ["main"]
        for index, branch in enumerate(self.branches):
            earlier = sum(other.after == branch.after for other in self.branches[:index])
            names.append(f"side{branch.after}" + (chr(ord("a") + earlier) if earlier else ""))
        return tuple(names)


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


def _one_of(kind: str, name: str, choices: Sequence[str]) -> None:
    if name not in choices:
        raise unknown(kind, name, choices)


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
        (annotation,) = (argument for argument in arguments if argument is not types.NoneType)
        return convert(value, annotation, path)
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
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _mismatch(path, "a whole number" if annotation is int else "a number", value)
    if annotation is int and value != int(value):
        raise _mismatch(path, "a whole number", value)
    return annotation(value)


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
        ValueError: no such field, or a value that it cannot take.
    """
    name, _, rest = path.partition(".")
    types_of = field_types(type(spec))
    if name not in types_of:
        raise unknown(f"field of {type(spec).__name__}", name, types_of)
    if not rest:
        return dataclasses.replace(spec, **{name: convert(value, types_of[name], path)})  # type: ignore[type-var]
    part = getattr(spec, name)
    if part is None:
        return spec
    if not dataclasses.is_dataclass(part):
        raise ValueError(f"{path}: {name} has no fields of its own; give it whole")
    return dataclasses.replace(spec, **{name: replace_at(part, rest, value)})  # type: ignore[type-var]
