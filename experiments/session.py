"""A session: what settings ask for, brought together. The command line and `experiments.api` are its doors."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dhm.data import DataSet
from dhm.diagnostics import Diagnostics
from dhm.replicas import check
from dhm.training import Callback, Runtime
from experiments import config, names, pools
from experiments.forecast import Trials, trials_ahead
from experiments.grid import GRIDS, Plan
from experiments.pool import Slot
from experiments.scheduling import growth
from experiments.scheduling.options import Options
from experiments.scheduling.outcome import Outcome
from experiments.search import Search
from experiments.stores import Stores
from experiments.stores.addresses import locations
from experiments.study import Request, make_plan, with_selected

if TYPE_CHECKING:
    from experiments.scheduling.packing import Packer


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a session ended.

    Args:
        plan: what was run, with the seeds that it grew to, and what a search found.
        outcome: of its cells; of the trials, where a search did not come to an end.
        compared: whether it came as far as the plan's cells: false where a search found nothing yet.
        tracking_uri: where the runs are recorded.
    """

    plan: Plan
    outcome: Outcome
    compared: bool
    tracking_uri: str


class Session:
    """What settings ask for.

    Args:
        settings: as `experiments.config.read` gives them.

    Raises:
        ValueError: a value that cannot be, or a device that is not there.
    """

    def __init__(self, settings: DictConfig) -> None:
        names.check_retry(settings.retry)
        folder = Path(settings.store)
        # To another machine a relative path means nothing.
        folder = folder if settings.pool.kind == "local" else folder.resolve()
        self.stores = Stores(root=folder, **locations(settings.tracking, settings.queue))
        self.results = Path(settings.results)
        root = None if settings.data.root is None else Path(settings.data.root).expanduser().resolve()
        overrides, self._replicas = _replicated(settings)
        self.request = Request(
            grid=settings.grid,
            benchmark=settings.benchmark,
            recipe=settings.recipe,
            seeds=config.plain(settings.seeds),
            max_seeds=settings.study.max_seeds,
            look_every=settings.study.look_every,
            trials=settings.study.trials,
            overrides=overrides,
            levels=config.levels_of(settings),
            baseline=config.levels_of(settings, "baseline"),
            data_root=root,
            diagnostics=_said_of_diagnostics(settings),
        )
        self.arrangement = pools.arrange(config.pool_of(settings), self._replicas)
        self.options = Options(
            retries=config.at_least(settings.study.retries, 0, "study.retries"),
            retry=settings.retry,
            patience=config.at_least(settings.study.patience, 0, "study.patience"),
            runtime=Runtime(
                threads=settings.pool.threads,
                workers=self.arrangement.workers,
                data_root=root,
                deterministic=settings.pool.deterministic,
                channels_last=settings.pool.channels_last,
                compile=settings.pool.compile,
                recompute=settings.pool.recompute,
                ensembles=settings.diagnostics.ensembles,
            ),
            callbacks=_diagnostics(settings),
            preflight=True,
        )

    @property
    def slots(self) -> Sequence[Slot]:
        """Room for runs."""
        return self.arrangement.slots

    @property
    def packer(self) -> "Packer":
        """Finds how many runs at once its pool is to have."""
        from experiments.scheduling.packing import Packer  # noqa: PLC0415  (it loads what runs load; few ask for it)

        return Packer(self.arrangement, self.options.runtime, self.stores)

    def plan(self) -> tuple[Plan, DataSet, Trials | None]:
        """The plan as far as the record has brought it, its data, and a search's trials. Starts nothing and writes no
        record.

        Raises:
            ValueError: anything that is asked for does not exist or does not fit.
        """
        plan, data = self.made()
        automatic = self.arrangement.automatic
        if automatic is not None and (found := self.packer.remembered(plan, data)) is not None:
            self.arrangement = automatic.arranged(found.at_once)
        trials = None
        if isinstance(plan.grid, Search):
            trials = trials_ahead(plan, plan.grid, self.stores)
            if trials.selection is not None:
                plan = with_selected(plan, self.request, trials.selection)
        return growth.settled(plan, self.stores.tracking_uri), data, trials

    def made(self) -> tuple[Plan, DataSet]:
        """What is asked for, whatever is recorded; see `plan`."""
        plan, data = make_plan(self.request, self.stores)
        _check_replicas(plan, self.slots, self._replicas)
        return plan, data


def _replicated(settings: DictConfig) -> tuple[dict[str, Any], int]:
    """The changes to the base recipe, and the replicas of a run: `pool.gpus_per_run` is the recipe's `replicas`."""
    overrides, asked = config.overrides_of(settings), settings.pool.gpus_per_run
    said = overrides.get("replicas")
    if asked is None:
        return overrides, 1 if said is None else config.at_least(said, 1, "replicas")
    if said not in (None, asked):
        raise ValueError(f"pool.gpus_per_run={asked} and replicas={said} are two names of one number: give one")
    varied = settings.grid in GRIDS and "replicas" in GRIDS.get(settings.grid).factors
    if config.at_least(asked, 1, "pool.gpus_per_run") > 1 and not varied:
        overrides["replicas"] = asked
    return overrides, asked


def _said_of_diagnostics(settings: DictConfig) -> dict[str, Any]:
    usual = dataclasses.asdict(config.DiagnosticsConfig())
    return {name: value for name, value in settings.diagnostics.items() if value != usual[name]}


def _check_replicas(plan: Plan, places: Sequence[Slot], replicas: int) -> None:
    for variant in plan.variants:
        if variant.recipe.replicas > replicas:
            count = variant.recipe.replicas
            raise ValueError(f"{variant.name} is trained with replicas={count}: give pool.gpus_per_run={count}")
        check(variant.recipe, places[0].device)


def _diagnostics(settings: DictConfig) -> tuple[Callback, ...]:
    asked = settings.diagnostics.every
    every = GRIDS.get(settings.grid).diagnostics_every if asked is None else asked
    batches = config.at_least(settings.diagnostics.batches, 1, "diagnostics.batches")
    return (Diagnostics(every=every, batches=batches),) if config.at_least(every, 0, "diagnostics.every") else ()
