"""From settings to a plan, and from a plan to its outcome: what the command line does, in three calls."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import experiments.grids  # noqa: F401  the registry is filled by importing
from analysis.catalogue import check as check_figure
from analysis.catalogue import figure_names
from dhm.cost import network_of, on_meta
from dhm.data import DataSet, load
from dhm.fields import replace_at
from dhm.losses import weights
from dhm.registry import unknown
from dhm.replicas import check_batches
from experiments.benchmarks import BENCHMARKS, Benchmark
from experiments.costs import cost_of
from experiments.grid import GRIDS, Grid, Plan, Variant
from experiments.names import unknown_grid
from experiments.scheduling.growth import AUTO, EVERY, MOST
from experiments.scheduling.selection import Selection
from experiments.search import Search
from experiments.stores import Stores
from experiments.words import told

MOST_SEEDS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be studied.

    Args:
        seeds: how many (0, 1, ...), or which; none for the grid's own number; `auto`: more where a comparison is open.
        max_seeds, look_every: of `auto`.
        overrides: changes to the base recipe, by dotted path.
        levels: in place of the grid's own, by factor.
        baseline: levels that mark the baselines, in place of the grid's own.
        diagnostics: settings of what is measured besides, for the command that goes on with it.
        trials: of a search, in place of its own number.
    """

    grid: str
    benchmark: str = "digits"
    recipe: str = "documented"
    seeds: int | Sequence[int] | str | None = None
    max_seeds: int | None = None
    look_every: int | None = None
    trials: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    baseline: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_root: Path | None = None
    diagnostics: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_plan(request: Request, stores: Stores) -> tuple[Plan, DataSet]:
    """The plan of a request, and the data set that it is about. Reads the data; starts nothing.

    Raises:
        ValueError: anything that is asked for does not exist or does not fit.
    """
    grid = _grid(request)
    benchmark = BENCHMARKS.get(request.benchmark)
    at = _looks(request)
    seeds = _seeds(at[0] if at else request.seeds, grid)
    levels, variants = _points(grid, benchmark, request)
    for network in dict.fromkeys(network_of(variant.recipe) for variant in variants):
        with _naming(network.arch):
            on_meta(network)
    for variant in variants:
        weights(variant.recipe)
    if request.data_root is not None and not benchmark.needs_root:
        on_disk = ", ".join(name for name in BENCHMARKS if BENCHMARKS.get(name).needs_root)
        raise ValueError(
            f"benchmark {benchmark.name} is embedded and reads nothing from {request.data_root}: say which images are "
            f"there with benchmark=NAME, one of {on_disk}; or leave data.root out"
        )
    if benchmark.needs_root and request.data_root is None:
        raise ValueError(f"benchmark {benchmark.name} reads images from disk: say where they are with data.root=DIR")
    # What is read, and so the fingerprint in every identity, is one for a plan.
    for name in ("augment", "image_size", "resize", "decoder"):
        if len({getattr(variant.recipe.data, name) for variant in variants}) > 1:
            raise ValueError(f"data.{name} changes which images are read, so no grid can vary it: run a grid for each")
    data = load(variants[0].recipe.data, request.data_root, stores.cache)
    if benchmark.classes is not None and data.num_classes != benchmark.classes:
        raise ValueError(
            f"benchmark {benchmark.name} has {benchmark.classes} classes, and {request.data_root} has "
            f"{data.num_classes}: choose benchmark=image_folder for images of your own"
        )
    plan = Plan(
        grid=grid,
        benchmark=benchmark,
        levels=levels,
        variants=variants,
        seeds=seeds,
        overrides=_said(request),
        extent=[*_extent(request), *_places(grid, request)],
        looks=at,
        counts={variant.name: len(seeds) for variant in variants} if at else {},
        fingerprint=data.fingerprint,
        data_words=_data_words(data, variants[0].recipe.data.train_size),
        base=_base(grid, benchmark, request),
    )
    if isinstance(grid, Search):
        grid.check_plan(plan)
        data.check(plan.base.data, grid.seed)
    specs = {variant.recipe.data for variant in variants}
    images = {spec: data.check(spec, seeds[0]) for spec in specs}
    for variant in variants:
        check_batches(variant.recipe, images[variant.recipe.data])
    # Every network takes an image of this size, or says that it cannot.
    for variant in variants:
        with _naming(variant.recipe.arch):
            cost_of(variant.recipe, data, stores)
    return plan, data


@contextlib.contextmanager
def _naming(arch: str) -> Iterator[None]:
    """Whatever a backbone of somebody's own raises is a ValueError that names it."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"backbone {arch!r} fails on an image, with {told(error)}") from error


def remarks(plan: Plan) -> list[str]:
    """What is allowed and hardly meant, a sentence each."""
    found = []
    for recipe in dict.fromkeys(variant.recipe for variant in plan.variants):
        optim, epochs = recipe.optim, recipe.epochs
        late = [str(milestone) for milestone in optim.milestones if milestone >= epochs]
        if optim.schedule == "multistep" and late:
            earlier = f"optim.milestones=[{epochs // 2},{epochs * 3 // 4}], or " if epochs > 3 else ""
            found.append(
                f"optim.milestones {', '.join(late)} lie past the last of {epochs} epoch{'s' if epochs > 1 else ''}, "
                f"so the learning rate does not fall there: give {earlier}optim.schedule=cosine"
            )
        if optim.schedule != "multistep" and optim.milestones:
            found.append(f"optim.milestones is for optim.schedule=multistep, and {optim.schedule} does not read it")
    return list(dict.fromkeys(found))


def with_selected(plan: Plan, request: Request, selection: Selection) -> Plan:
    """The plan of a search with the selected setting as one more arm."""
    assert isinstance(plan.grid, Search)
    grid = plan.grid.with_found(plan, selection.setting)
    # What the command said of a field that was searched is a level now.
    overrides = {path: value for path, value in request.overrides.items() if path not in grid.space}
    variants = grid.variants(plan.benchmark, overrides=overrides, recipe=request.recipe)
    return dataclasses.replace(
        plan,
        grid=grid,
        levels=grid.levels(plan.benchmark),
        variants=variants,
        counts={variant.name: len(plan.seeds) for variant in variants} if plan.looks else {},
        search=selection.document,
    )


def _points(grid: Grid, benchmark: Benchmark, request: Request) -> tuple[dict[str, list[Any]], list[Variant]]:
    """The levels and the variants that are asked for. What is wrong in a user's own file is told with its name."""
    try:
        levels = grid.levels(benchmark, request.levels)
        if grid.source:  # those of our own grids can be drawn
            _check_figures(grid, levels)
        return levels, grid.variants(
            benchmark, overrides=request.overrides, levels=request.levels, recipe=request.recipe
        )
    except ValueError as error:
        if grid.source:
            try:
                _check_figures(grid, grid.levels(benchmark))
                grid.variants(benchmark)
            except ValueError as in_file:
                raise ValueError(f"{grid.source}: {in_file}") from error
        raise


def _check_figures(grid: Grid, levels: Mapping[str, Sequence[Any]]) -> None:
    """A ValueError where a figure of a grid could never be drawn, which would show when all is trained."""
    for name in grid.figures:
        check_figure(name, levels)


def _grid(request: Request) -> Grid:
    if request.grid not in GRIDS:
        raise unknown_grid(request.grid, GRIDS)
    grid = GRIDS.get(request.grid)
    for name in grid.figures:
        if name not in figure_names():
            raise unknown(f"figure of grid {grid.name}", name, figure_names())
    for name in request.baseline:
        if name not in grid.factors:
            raise unknown(f"factor of grid {grid.name}", name, grid.factors)
    if request.baseline:
        grid = dataclasses.replace(grid, baseline=request.baseline)
    if request.trials is None:
        return grid
    if not isinstance(grid, Search):
        raise ValueError(f"study.trials={request.trials}: grid {grid.name!r} is no search; it has seeds, not trials")
    return dataclasses.replace(grid, trials=request.trials)


def _base(grid: Grid, benchmark: Benchmark, request: Request) -> Any:
    changes = {**grid.base, **request.overrides}
    made = benchmark.base(changes.pop("arch", None), request.recipe)
    for path, value in changes.items():
        made = replace_at(made, path, value)
    return made


def _data_words(data: DataSet, train_size: int) -> str:
    train, test = data.sizes
    training = f"{train_size:,} of {train:,}" if train_size else f"{train:,}"
    return f"{data.num_classes} classes, {training} training and {test:,} test images"


def _said(request: Request) -> list[str]:
    recipe = [] if request.recipe == "documented" else [f"recipe={request.recipe}"]
    fields = [f"{path}={written(value)}" for path, value in request.overrides.items()]
    levels = [f"factors.{name}={written(values)}" for name, values in request.levels.items()]
    return [
        *recipe,
        *fields,
        *levels,
        *(f"baseline.{name}={written(level)}" for name, level in request.baseline.items()),
    ]


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not value.isidentifier():
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def _extent(request: Request) -> list[str]:
    said = {name: getattr(request, name) for name in ("trials", "max_seeds", "look_every")}
    told = [f"study.{name}={value}" for name, value in said.items() if value is not None]
    return told + [f"diagnostics.{name}={written(value)}" for name, value in request.diagnostics.items()]


def _places(grid: Grid, request: Request) -> list[str]:
    """Where the command finds the grid and the images."""
    found = {"grid_dir": Path(grid.source).parent if grid.source else None, "data.root": request.data_root}
    plain = re.compile(r"[\w./~-]+")
    return [
        f"{name}={path if plain.fullmatch(str(path)) else written(str(path))}"
        for name, path in found.items()
        if path is not None
    ]


def _looks(request: Request) -> tuple[int, ...]:
    """The numbers of seeds at which comparisons are looked at; none where the seeds are fixed."""
    said = {"max_seeds": request.max_seeds, "look_every": request.look_every}
    if request.seeds != AUTO:
        for name, value in said.items():
            if value is not None:
                raise ValueError(f"study.{name}={value} is for seeds=auto; the seeds are fixed here")
        return ()
    from analysis.sequential import looks  # noqa: PLC0415  (scipy.stats takes a second to import; few plans grow)

    most = MOST if request.max_seeds is None else request.max_seeds
    return looks(min(EVERY, most) if request.look_every is None else request.look_every, most)


def _seeds(asked: int | Sequence[int] | str | None, grid: Grid) -> list[int]:
    wanted: Any = grid.seeds if asked is None else asked
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if wanted < 1:
            raise ValueError(f"seeds={wanted}: give how many, at least 1, a list such as [0,1,2], or auto")
        if wanted > MOST_SEEDS:
            raise ValueError(
                f"seeds={wanted}: more than {MOST_SEEDS:,} are no study; to name one seed, write [{wanted}]"
            )
        return list(range(wanted))
    if not isinstance(wanted, Sequence) or isinstance(wanted, str) or not wanted:
        raise ValueError(f"seeds={wanted}: give how many, at least 1, a list such as [0,1,2], or auto")
    if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in wanted):
        raise ValueError(f"seeds={list(wanted)}: seeds are whole numbers, 0 or more")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"seeds={list(wanted)}: a seed stands twice")
    return list(wanted)
