"""The command line's settings, as Hydra structured configs.

Settings of the recipe are generated from `dhm.recipe`, so that a new field can be overridden without a line here. They
have no defaults: what is not given stays as the benchmark has it.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dhm.fields import field_types
from dhm.recipe import DataSpec, Recipe
from dhm.registry import unknown
from experiments import pools
from experiments.pools.parts.arrangement import PoolConfig

Number = typing.TypeVar("Number", int, float)


@dataclasses.dataclass
class StudyConfig:
    """How a study is run.

    Args:
        trials: of a search; none is its own number.
        max_seeds: of a variant, with `seeds=auto`.
        look_every: so many seeds, with `seeds=auto`.
        patience: seconds for which a tracking store that does not answer is waited for.
    """

    retries: int = 2
    patience: float = 600
    max_seeds: typing.Optional[int] = None  # noqa: UP045
    look_every: typing.Optional[int] = None  # noqa: UP045
    trials: typing.Optional[int] = None  # noqa: UP045


@dataclasses.dataclass
class DiagnosticsConfig:
    """What is measured about the heads besides their errors; it changes no result and is no part of a cell's identity.
    What another grid trained without them is trained again; what this one did is not: for that give another `store`.

    Args:
        every: epochs between measurements of how far heads agree; 0 is off, none is the grid's own (off, for most).
        batches: of training images, for the gradients.
        ensembles: errors of the heads' ensembles, of the mean of their logits and of their softmax, at every epoch.
    """

    every: typing.Optional[int] = None  # noqa: UP045
    batches: int = 2
    ensembles: bool = False


def _part(cls: type, without: Sequence[str] = (), extra: Sequence[tuple[str, Any, Any]] = ()) -> type:
    """A dataclass with the fields of a part of the recipe, none of them given."""
    fields: list[Any] = []
    for name, annotation in field_types(cls).items():
        if name in without:
            continue
        inner = _inner(annotation)
        if dataclasses.is_dataclass(inner):
            made = _part(typing.cast(type, inner))
            kind: Any = made if inner is annotation else typing.Optional[made]  # noqa: UP045
            fields.append((name, kind, dataclasses.field(default_factory=made)))
        else:
            scalar = annotation if annotation in (int, float, bool, str) else Any
            fields.append((name, scalar, dataclasses.field(default=MISSING)))
    fields += [(name, kind, dataclasses.field(default=default)) for name, kind, default in extra]
    return dataclasses.make_dataclass(f"{cls.__name__}Settings", fields)


def _inner(annotation: Any) -> Any:
    """The type of what may also be none."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return annotation


_DATA = _part(DataSpec, without=("name",), extra=[("root", typing.Optional[str], None)])  # noqa: UP045
_GENERAL: list[tuple[str, Any, Any]] = [
    ("defaults", list[Any], dataclasses.field(default_factory=lambda: ["_self_", {"pool": "local"}])),
    ("grid", typing.Optional[str], None),  # noqa: UP045
    ("benchmark", str, "digits"),
    ("recipe", str, "documented"),
    ("seeds", Any, None),
    ("factors", dict[str, Any], dataclasses.field(default_factory=dict)),
    ("baseline", dict[str, Any], dataclasses.field(default_factory=dict)),
    ("plan", bool, False),
    ("retry", typing.Optional[str], None),  # noqa: UP045
    ("grid_dir", typing.Optional[str], None),  # noqa: UP045
    ("allow_incomplete", bool, False),
    ("store", str, "results/store"),
    ("tracking", typing.Optional[str], None),  # noqa: UP045
    ("queue", typing.Optional[str], None),  # noqa: UP045
    ("results", str, "results"),
    ("pool", PoolConfig, MISSING),
    ("study", StudyConfig, dataclasses.field(default_factory=StudyConfig)),
    ("diagnostics", DiagnosticsConfig, dataclasses.field(default_factory=DiagnosticsConfig)),
    ("data", _DATA, dataclasses.field(default_factory=_DATA)),
]
Settings = dataclasses.make_dataclass(
    "Settings",
    [
        (name, kind, default if isinstance(default, dataclasses.Field) else dataclasses.field(default=default))
        for name, kind, default in _GENERAL
    ],
    bases=(_part(Recipe, without=("data",)),),
)

ConfigStore.instance().store(name="settings", node=Settings)


def read(arguments: Sequence[str]) -> DictConfig:
    """The settings that a command line asks for.

    Raises:
        ValueError: a word that is no setting, an unknown setting, or a value of the wrong type.
    """
    parsed = [_parsed(argument) for argument in arguments]
    kind = _pool(parsed)
    ConfigStore.instance().store(group="pool", name=kind, node=pools.config_of(kind)(kind=kind))
    overrides = [_checked(argument, override, kind) for argument, override in zip(arguments, parsed, strict=True)]
    try:
        with initialize(version_base="1.3", config_path=None):
            return compose("settings", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_wrong_value(error) or _first_words(error)) from error
    except RecursionError as error:
        raise ValueError("a value is nested too deeply: no setting needs that") from error


def overrides_of(settings: DictConfig) -> dict[str, Any]:
    """The changes to the base recipe that were asked for, by dotted path."""
    found: dict[str, Any] = {}
    for name in field_types(Recipe):
        _collect(settings, name, name, found)
    found.pop("data.root", None)
    return found


def levels_of(settings: DictConfig, part: str = "factors") -> dict[str, Any]:
    """The levels that were asked for, by factor; of `baseline` those that mark one."""
    return dict(_flat(OmegaConf.to_container(settings[part]), ""))


def pool_of(settings: DictConfig) -> PoolConfig:
    """The settings of the pool that is asked for."""
    return typing.cast(PoolConfig, OmegaConf.to_object(settings.pool))


def plain(value: Any) -> Any:
    """A setting's value as plain Python."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _collect(node: DictConfig, name: str, path: str, found: dict[str, Any]) -> None:
    if OmegaConf.is_missing(node, name):
        return
    value = node[name]
    if isinstance(value, DictConfig):
        for key in value:
            _collect(value, str(key), f"{path}.{key!s}", found)
    else:
        found[path] = plain(value)


def _flat(node: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [leaf for key, part in node.items() for leaf in _flat(part, f"{path}.{key}" if path else str(key))]
    return [(path, node)]


def at_least(value: Number, least: int, name: str) -> Number:
    """The value of a setting, or a ValueError where it is too small."""
    if value < least:
        raise ValueError(f"{name}={value}: must be at least {least}")
    return value


def _parsed(argument: str) -> Override:
    """An argument as Hydra understands it."""
    if "${" in argument:
        raise ValueError(f"{argument!r}: write the value itself; nothing is filled in for ${{...}}")
    if re.fullmatch(r"-*[\w-]+", argument):
        grid = argument.isidentifier() and argument not in {field.name for field in dataclasses.fields(Settings)}
        example = f"grid={argument}" if grid else "grid=methods" if "-" in argument else f"{argument}=VALUE"
        raise ValueError(f"{argument!r} is no setting: write name=value, such as {example} (--help lists them)")
    try:
        override: Override = OverridesParser.create().parse_override(argument)
    except (HydraException, RecursionError) as error:
        raise ValueError(
            f"{_shortened(argument)!r} is no setting: write name=value, with quotes around a value that has "
            f"spaces or brackets ({_first_words(error)})"
        ) from error
    if override.type is None or argument.startswith(("+", "~")):
        raise ValueError(f"{argument!r}: settings are changed with name=value; none can be added or removed")
    if "@" in argument.partition("=")[0]:
        raise ValueError(f"{argument!r} is no setting: there are no groups to choose from, write name=value")
    if override.is_sweep_override():
        raise ValueError(f"{argument!r}: a grid varies its factors; write a list, such as factors.NAME=[1,2]")
    return override


def _pool(overrides: Sequence[Override]) -> str:
    """The kind of pool that is asked for, as `pool=slurm` or `pool.kind=slurm`."""
    kind = "local"
    for override in overrides:
        if override.key_or_group in ("pool", "pool.kind"):
            kind = str(override.value())
            if kind not in pools.names():
                raise unknown("pool", kind, pools.names())
    return kind


def _checked(argument: str, override: Override, pool: str) -> str:
    """An override that names a setting, as Hydra wants it."""
    path = override.key_or_group.split(".")
    if path[0] in ("factors", "baseline") and len(path) > 1:
        return f"+{argument}"
    if path in (["pool"], ["pool", "kind"]):
        return f"pool={pool}"
    node: Any = OmegaConf.structured(Settings)
    node.pool = OmegaConf.structured(pools.config_of(pool))
    for depth, name in enumerate(path):
        if path[0] == "pool" and depth == 1 and name not in node:
            others = [f"pool={kind}" for kind in pools.names() if hasattr(pools.config_of(kind)(), name)]
            if others:
                raise ValueError(f"pool.{name} is a setting of {' and '.join(others)}, and this is pool={pool}")
        if not isinstance(node, DictConfig) or name not in list(node.keys()):
            choices = [key for key in node if key != "defaults"] if isinstance(node, DictConfig) else ()
            raise unknown("setting", ".".join(path[: depth + 1]), _spelt(path[:depth], choices))
        if path[0] == "pool" and path[1:2] == ["sbatch"] and depth == 1 and len(path) > 2:
            return f"+{argument}"
        node = None if OmegaConf.is_missing(node, name) else node[name]
    return argument


def _spelt(path: Sequence[str], names: Any) -> list[str]:
    return [".".join((*path, str(name))) for name in names]


_WANTED = {
    int: "a whole number, such as {}=3",
    float: "a number, such as {}=0.1",
    bool: "true or false, such as {}=true",
    str: "one word, such as {}=NAME",
    dict: "levels by factor, such as {}.NAME=LEVEL",
}


def _wrong_value(error: Exception) -> str:
    """In our words: which setting got what, and what it wants. Nothing where that is not what is wrong."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    path = str(getattr(cause, "full_key", None) or "")
    found = re.search(r"Value '(.*)' (?:of type|is not a valid)|convert '\w+' to string: '(.*)'", str(cause), re.DOTALL)
    kind = _kind(path)
    if kind is None:
        return ""
    if dataclasses.is_dataclass(kind):
        name = next(iter(field_types(typing.cast(type, kind))))
        wanted = f"settings of its own, such as {path}.{name}=..."
    else:
        wanted = _WANTED[kind].format(path)
    given = "nothing" if "not Optional" in str(cause) else "something else"
    if found:
        given = repr(_shortened(found[1] or found[2] or ""))
    return f"{path} wants {wanted}; it got {given}"


def _kind(path: str) -> Any:
    """The type that a setting has; none where there is no such setting, or where it takes anything."""
    kind: Any = Settings
    for name in path.split("."):
        rooms = (*map(pools.config_of, pools.names()), kind) if kind is PoolConfig else (kind,)
        found = [field_types(typing.cast(type, room)) for room in rooms if dataclasses.is_dataclass(room)]
        kind = _inner(next((types_of[name] for types_of in found if name in types_of), None))
        kind = typing.get_origin(kind) or kind
    return kind if kind in _WANTED or dataclasses.is_dataclass(kind) else None


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _first_words(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
    return f"{key}: {lines[0]}" if key else lines[0]
