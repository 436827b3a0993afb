"""The command line from Python, in three calls:

    from analysis.build import build
    from experiments.api import plan, run

    study = plan("branch_positions", seeds=2, epochs=5)             # enumerate: reads the data, starts nothing
    ended = run(study)                                              # run what is missing; the same call goes on
    build(ended.tracking_uri, "results", [ended.plan.plan_id])      # analyse: tables and figures

Settings have the names of the command line; those with a dot are given in a dictionary:
`plan("depths", {"optim.lr": 0.05, "factors.arch": ["resnet8"]}, seeds=2)`. A mistake is a ValueError that names the
remedy. Progress is a live table in a terminal, and a line a cell in a notebook or a log.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import config
from experiments.benchmarks import BENCHMARKS
from experiments.grid import GRIDS, Cell, Plan
from experiments.scheduling.outcome import Outcome
from experiments.session import Ended, Session
from experiments.study import written
from experiments.user_grids import register_folder

__all__ = ["Cell", "Ended", "Outcome", "Plan", "Study", "benchmarks", "grids", "plan", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A plan, with the settings that it was made from.

    Args:
        words: the settings as the command line takes them.
    """

    plan: Plan
    words: tuple[str, ...]

    def __repr__(self) -> str:
        told = f"{len(self.plan.variants)} variants, {len(self.cells)} cells"
        return f"Study({self.plan.experiment}, plan {self.plan.plan_id}: {told})"

    @property
    def cells(self) -> Sequence[Cell]:
        """What it trains: every variant at every seed."""
        return self.plan.cells


def grids() -> dict[str, str]:
    """The grids and their questions, by name."""
    return {name: GRIDS.get(name).question for name in GRIDS}


def benchmarks() -> dict[str, str]:
    """The benchmarks, a line each, by name."""
    return {name: BENCHMARKS.get(name).summary for name in BENCHMARKS}


def plan(grid: str, settings: Mapping[str, Any] | None = None, /, **more: Any) -> Study:
    """What a grid comes to. Reads the data; starts nothing.

    Args:
        grid: its name.
        settings: by the names of the command line.
        more: settings whose names have no dot.

    Raises:
        ValueError: anything that is asked for does not exist or does not fit.
    """
    words = _words({"grid": grid, **(settings or {}), **more})
    made, _, _ = _session(words).plan()
    return Study(plan=made, words=words)


def run(
    study: Study, settings: Mapping[str, Any] | None = None, /, *, console: Console | None = None, **more: Any
) -> Ended:
    """Train what is missing of a study, and return when every cell is done or has failed.

    Call it in the main thread: Ctrl-C, or a notebook's stop button, lets running cells leave at their next step.

    Args:
        study: as `plan` gives it.
        settings: further settings, such as `{"pool.gpus": 2}`; they take the place of the study's own.
        console: where progress is shown; a new one by default.
        more: settings whose names have no dot, such as `store`.

    Raises:
        ValueError: as `plan`; or the study is being run already.
    """
    if not isinstance(study, Study):
        raise ValueError(f"run({study!r}): give what plan(...) returned, as in run(plan('methods'))")
    words = (*study.words, *_words({**(settings or {}), **more}))
    console = console or Console(highlight=False)
    if console.is_jupyter:  # there rich would ask for ipywidgets, and a live table would draw over itself
        console = Console(highlight=False, force_jupyter=False, force_terminal=False)
    session = _session(words)
    from experiments.execution import execute  # noqa: PLC0415  (MLflow, 2 s to import, is wanted to run alone)

    return execute(session, console, ("python", "-m", "experiments.run", *words))


def _words(settings: Mapping[str, Any]) -> tuple[str, ...]:
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    return tuple(f"{name}={written(value)}" for name, value in plain.items())


def _session(words: Sequence[str]) -> Session:
    settings = config.read(words)
    if settings.grid_dir is not None and settings.grid not in GRIDS:
        register_folder(Path(settings.grid_dir), settings.grid)
    return Session(settings)
