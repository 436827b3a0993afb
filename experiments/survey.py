"""What a store holds: cells by plan and state, files by kind, and which of them nobody needs any more."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from analysis import coverage, liveness, schema, store
from analysis.liveness import held
from analysis.plan import Plan
from experiments.recording.provenance import code_hash
from experiments.reproduction.record import artifact_folder
from experiments.stores import Stores

ORPHANED, INTERRUPTED = "orphaned", "interrupted"
STATES = (
    coverage.DONE,
    coverage.STALE,
    coverage.RUNNING,
    ORPHANED,
    INTERRUPTED,
    coverage.FAILED,
    coverage.PRUNED,
    coverage.MISSING,
)
KINDS = ("artifacts", "checkpoints", "cache", "logs", "locks")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanState:
    """How far a plan has come.

    Args:
        cells: how many are in each of `STATES`. Stale: done by other code than that which is here. Orphaned: open, and
            nobody holds its lock. Interrupted: to be gone on with.
        trials: the same of its search, if it has one.
        running: whether a scheduler has it.
        code: whether its cells are of the code that is here.
    """

    plan: Plan
    cells: Mapping[str, int]
    trials: Mapping[str, int] | None
    running: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rubbish:
    """Something that nobody needs any more.

    Args:
        what: for a person.
        paths: files to remove.
        run_id: of a discarded run to delete for good, in their place.
        result: whether it holds a result.
    """

    kind: str
    what: str
    paths: tuple[Path, ...] = ()
    run_id: str = ""
    result: bool = False
    size: int = 0


class Survey:
    """Looks at a store, and changes nothing.

    Raises:
        ValueError: there is no store, or it cannot be read.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        code = code_hash()
        plans = store.plans(stores.tracking_uri)
        self.runs = store.runs(stores.tracking_uri)
        self._trials = {
            plan.plan_id: store.trials(stores.tracking_uri, plan.search["search_id"], list(plan.search["space"]))
            for plan in plans
            if plan.search is not None
        }
        self._discarded = store.discarded(stores.tracking_uri)
        self.plans = [self._state(dataclasses.replace(plan, code=code)) for plan in plans]

    def _state(self, plan: Plan) -> PlanState:
        running = held(self._stores.lock(plan.plan_id))
        found = coverage.coverage(plan, self.runs)
        cell_of = dict(zip(self.runs["run_id"], self.runs[schema.CELL_ID], strict=True))
        states = [
            self._word(state, why, cell_of.get(run_id, ""), running)
            for state, why, run_id in zip(found["state"], found["why"], found["run_id"], strict=True)
        ]
        trials = None
        if plan.plan_id in self._trials:
            frame = self._trials[plan.plan_id]
            tried = [
                self._word(state, ORPHANED if status == liveness.ORPHANED else INTERRUPTED, cell, running)
                for state, status, cell in zip(frame["state"], frame["status"], frame[schema.TRIAL_ID], strict=True)
            ]
            assert plan.search is not None
            trials = _counted([*tried, *[coverage.MISSING] * (plan.search["trials"] - len(tried))])
        return PlanState(plan=plan, cells=_counted(states), trials=trials, running=running)

    def _word(self, state: str, why: str, cell_id: str, running: bool) -> str:
        if state == coverage.RUNNING or why == ORPHANED:
            return coverage.RUNNING if running or held(self._stores.lock(cell_id)) else ORPHANED
        return INTERRUPTED if state == coverage.MISSING and why == INTERRUPTED else state

    def disk(self) -> dict[str, int]:
        """Bytes by kind of file."""
        root = self._stores.root
        used = {kind: sum(map(_size, _files(root / kind))) for kind in KINDS}
        used["database"] = sum(map(_size, root.glob("mlflow.db*")))
        used["journal"] = sum(map(_size, root.glob("optuna.journal*")))
        return used

    def rubbish(self) -> Iterator[Rubbish]:
        """What can go without loss; and discarded runs, of which some hold a result."""
        yield from self._checkpoints()
        root = self._stores.root
        if not any(held(lock) for lock in root.glob("locks/*.lock")):
            for path in _files(root / "cache"):
                if root / "cache" / "analysis" in path.parents:
                    continue  # small, and wanted at the next reading
                yield Rubbish(kind="cache", what=f"{path.name}, made again if wanted", paths=(path,), size=_size(path))
        for path in sorted(root.glob("optuna.journal.damaged-*")):
            yield Rubbish(kind="journals", what=f"{path.name}: rebuilt since", paths=(path,), size=_size(path))
        for row in self._discarded.to_dict("records"):
            folder = artifact_folder(self._stores, str(row["experiment"]), str(row["run_id"]))
            yield Rubbish(
                kind="discarded",
                what=f"run {row['run_id']} ({row['experiment']} {row['name']}), {str(row['status']).lower()}",
                run_id=str(row["run_id"]),
                result=row["status"] == "FINISHED",
                size=sum(map(_size, _files(folder))),
            )

    def _checkpoints(self) -> Iterator[Rubbish]:
        """Those of cells that have no record to go on with."""
        needed = set(self.runs[self.runs["status"] != "FINISHED"][schema.CELL_ID])
        for frame in self._trials.values():
            needed |= set(frame[~frame["state"].isin((coverage.DONE, coverage.PRUNED))][schema.TRIAL_ID])
        for path in _files(self._stores.root / "checkpoints"):
            cell_id = path.name.lstrip(".").partition(".")[0]
            if cell_id not in needed and not held(self._stores.lock(cell_id)):
                what = f"{path.name}: its cell is done, or has no record"
                yield Rubbish(kind="checkpoints", what=what, paths=(path,), size=_size(path))

    def is_inside(self, run_id: str) -> bool:
        """Whether a discarded run's artifacts lie in this store, as far as its record says."""
        frame: pd.DataFrame = self._discarded
        row = frame[frame["run_id"] == run_id].iloc[0]
        expected = artifact_folder(self._stores, str(row["experiment"]), run_id).as_uri()
        return str(row["artifact_uri"]) == expected


def _counted(states: list[str]) -> dict[str, int]:
    return {state: states.count(state) for state in STATES}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _size(path: Path) -> int:
    return path.lstat().st_size
