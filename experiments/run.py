"""The command line: python -m experiments.run grid=branch_positions [name=value ...].

Exit codes: 0 all cells are done; 1 some are not, or a table could not be built; 2 the command asks for something that
cannot be; 130 it was interrupted, and goes on where it was when it is given again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from omegaconf import DictConfig
from rich.console import Console

from dhm.diagnostics import Diagnostics
from dhm.replicas import check
from dhm.training import Callback, Runtime
from experiments import config, growth, report
from experiments.grid import GRIDS, Plan
from experiments.options import Options
from experiments.outcome import Outcome
from experiments.patience import Patience, trouble_of
from experiments.pool import Slot
from experiments.pools.choice import arrange
from experiments.preflight import run_job
from experiments.progress import Display
from experiments.provenance import collect
from experiments.scheduler import Scheduler
from experiments.search import Search
from experiments.searcher import Searcher
from experiments.signals import INTERRUPTED, Outlet, heeded
from experiments.stores import Stores, make_writable, ownership
from experiments.stores.addresses import locations
from experiments.study import Request, check_retry, make_plan, with_selected
from experiments.tracking import Tracker
from experiments.user_grids import register_folder
from experiments.words import tell_mistake

HELP = ("-h", "--help", "help")
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command line says; returns its exit code. A user's mistake is one message and code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = Console(file=cast(IO[str], Outlet(sys.stdout)), highlight=False)
    try:
        if any(word in HELP for word in arguments):
            report.help_page(console)
            return 0
        settings = config.read(arguments)
        if settings.grid_dir is not None:
            register_folder(Path(settings.grid_dir), settings.grid)
        if settings.grid is None:
            report.catalogue(console)
            return 0
        return _run(settings, arguments, console)
    except ValueError as error:
        return tell_mistake(error)
    except KeyboardInterrupt:
        console.print("stopped at once; give the same command again to go on")
        return EXIT_INTERRUPTED
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None and not isinstance(error, OSError):
            raise
        told = tell_mistake(error if trouble is None else trouble.words)
        return told if trouble is None else 1


def _run(settings: DictConfig, arguments: Sequence[str], console: Console) -> int:
    check_retry(settings.retry)
    folder = Path(settings.store)
    # To another machine a relative path means nothing.
    folder = folder if settings.pool.kind == "local" else folder.resolve()
    stores = Stores(root=folder, **locations(settings.tracking, settings.queue))
    root = None if settings.data.root is None else Path(settings.data.root).expanduser().resolve()
    overrides, replicas = _replicated(settings)
    request = Request(
        grid=settings.grid,
        benchmark=settings.benchmark,
        recipe=settings.recipe,
        seeds=config.plain(settings.seeds),
        max_seeds=settings.study.max_seeds,
        look_every=settings.study.look_every,
        trials=settings.study.trials,
        overrides=overrides,
        levels=config.levels_of(settings),
        data_root=root,
    )
    arrangement = arrange(settings.pool, replicas)
    places = arrangement.slots
    options = Options(
        retries=config.at_least(settings.study.retries, 0, "study.retries"),
        retry=settings.retry,
        patience=config.at_least(settings.study.patience, 0, "study.patience"),
        runtime=Runtime(
            threads=settings.pool.threads,
            workers=arrangement.workers,
            data_root=root,
            deterministic=settings.pool.deterministic,
            channels_last=settings.pool.channels_last,
            compile=settings.pool.compile,
            ensembles=settings.diagnostics.ensembles,
        ),
        callbacks=_diagnostics(settings),
        preflight=True,
    )
    if settings.plan:
        plan, data = make_plan(request, stores)
        _check_replicas(plan, places, replicas)
        if isinstance(plan.grid, Search):
            selection = report.trials_planned(console, plan, plan.grid, stores)
            plan = plan if selection is None else with_selected(plan, request, selection)
        plan = growth.settled(plan, stores.tracking_uri)
        report.plan_table(console, plan, data, stores, slots=len(places))
        return 0
    stores.prepare()
    # The fork server loads torch and mlflow while this process reads the data and opens the store.
    pool = arrangement.open(stores.root, run_job)
    try:
        with console.status("reading the data, opening the record"):
            plan, data = make_plan(request, stores)
            _check_replicas(plan, places, replicas)
            make_writable(Path(settings.results), "results")
            display = Display(console)
            tracker = Tracker(stores, Patience(options.patience, display.say))
        command = ("python", "-m", "experiments.run", *arguments)
        outside = [stores.root, Path(settings.results), *([] if root is None else [root])]
        growth.settled(plan, tracker.uri)
        with ownership(stores, plan.plan_id):
            means: dict[str, Any] = {
                "data": data,
                "pool": pool,
                "stores": stores,
                "tracker": tracker,
                "options": options,
            }
            means |= {"provenance": collect(command, outside), "display": display}
            if isinstance(plan.grid, Search):
                searcher = Searcher(plan=plan, **means)
                with heeded(searcher):
                    selection = searcher.run()
                report.trials(console, plan, selection, searcher.outcome)
                if selection is None:
                    return EXIT_INTERRUPTED if searcher.outcome.stopped == INTERRUPTED else 1
                plan = with_selected(plan, request, selection)

            def schedule(plan: Plan) -> Outcome:
                scheduler = Scheduler(plan=plan, **means)
                with heeded(scheduler):
                    return scheduler.run()

            plan, outcome = growth.run(plan, tracker.uri, schedule, console.print)
    finally:
        pool.close()
    complete = report.outcome(console, plan, outcome)
    if outcome.stopped is not None:
        return EXIT_INTERRUPTED if outcome.stopped == INTERRUPTED else 1
    built = report.results(console, plan, stores, Path(settings.results), allow_incomplete=settings.allow_incomplete)
    return 0 if complete and built else 1


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


if __name__ == "__main__":
    sys.exit(main())
