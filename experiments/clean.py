"""Remove from a store what nobody needs any more. It shows what, and how much, and asks first.

  checkpoints   of cells that are done, or that have no record
  cache         decoded images; they are made again when they are wanted
  journals      damaged ones, that were rebuilt
  discarded     runs in MLflow's bin that hold no result

KIND is any of these; without one, all. A discarded run that holds a result goes only where its id is given:

  runs=ID,ID    these discarded runs, for good
  plan=ID       a plan that is not wanted any more: off the record, its runs into MLflow's bin
  store=DIR     which store (results/store)

Exit codes: 0 done, or nothing to do; 1 not confirmed; 2 a mistake.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dhm.registry import unknown
from experiments.stores import Stores
from experiments.words import CommandLine, megabytes, tell_mistake

if TYPE_CHECKING:
    from analysis.plan import Plan
    from experiments.survey import Rubbish, Survey

KINDS = ("checkpoints", "cache", "journals", "discarded")
SHOWN = 20  # of a kind, by name

COMMAND = CommandLine(
    "experiments.clean",
    __doc__,
    words="[KIND ...]",
    settings={"store": "results/store", "runs": None, "plan": None},
    options={"yes": "do not ask"},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    try:
        words, settings = COMMAND.read(sys.argv[1:] if arguments is None else arguments)
        for word in words:
            if word not in KINDS:
                raise unknown("kind", word, KINDS)
        # Seconds to import, for which help and a mistake need not wait.
        from analysis import store  # noqa: PLC0415
        from experiments.recording.tracking import forget, purge  # noqa: PLC0415
        from experiments.survey import Survey  # noqa: PLC0415

        stores = Stores(root=Path(settings["store"]))
        survey = Survey(stores)
        if settings["plan"] is not None:
            plan = _plan(survey, settings["plan"])
            if not settings["yes"] and not _confirmed():
                print("nothing was removed")
                return 1
            count = forget(stores, plan)
            command = shlex.join(["python", "-m", "experiments.clean", *store.place(stores.tracking_uri)])
            print(f"forgotten; {count} run(s) are in MLflow's bin. What nobody needs now: {command}")
            return 0
        ids = [] if settings["runs"] is None else settings["runs"].split(",")
        # Who names runs and no kind means these runs.
        chosen = _chosen(survey, words or ([] if ids else KINDS), ids)
        kept = [item.run_id for item in survey.rubbish() if item.result and item.run_id not in ids]
        if kept:
            print(f"kept: {len(kept)} discarded run(s) that hold a result; to delete them, runs={','.join(kept)}")
        if not chosen:
            print("nothing to remove")
            return 0
        _show(chosen)
        if not settings["yes"] and not _confirmed():
            print("nothing was removed")
            return 1
        for path in (path for item in chosen for path in item.paths):
            path.unlink(missing_ok=True)
        runs = [item.run_id for item in chosen if item.run_id]
        if runs:
            purge(stores, runs)
        print(f"removed {megabytes(sum(item.size for item in chosen))}")
        return 0
    except (ValueError, OSError) as error:
        return tell_mistake(error)


def _plan(survey: "Survey", plan_id: str) -> "Plan":
    """A plan that can be forgotten; shows what it is."""
    found = {state.plan.plan_id: state for state in survey.plans}
    if plan_id not in found:
        raise unknown("plan", plan_id, found)
    state = found[plan_id]
    if state.running:
        raise ValueError(f"plan={plan_id}: a scheduler is at work on it; stop it first")
    searched = "" if state.trials is None else f"; its search's trials: {_counted(state.trials)}"
    print(f"plan {plan_id}, {state.plan.words}: {_counted(state.cells)}{searched}")
    return state.plan


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in states.items() if count) or "none"


def _chosen(survey: "Survey", kinds: Sequence[str], ids: Sequence[str]) -> "list[Rubbish]":
    found = list(survey.rubbish())
    known = {item.run_id for item in found if item.run_id}
    for run_id in ids:
        if run_id not in known:
            raise ValueError(
                f"runs={run_id}: no run in MLflow's bin has this id (whole ids are needed). A run gets there when it "
                "is deleted on MLflow's page, or made anew by retry=stale"
            )
    chosen = [item for item in found if item.run_id in ids or (item.kind in kinds and not item.result)]
    for item in chosen:
        if item.run_id and not survey.is_inside(item.run_id):
            raise ValueError(f"{item.what}: its artifacts are not in this store, so they are left to you and MLflow")
    return chosen


def _show(chosen: "Sequence[Rubbish]") -> None:
    for kind in KINDS:
        items = [item for item in chosen if item.kind == kind]
        if items:
            print(f"{kind}: {len(items)}, {megabytes(sum(item.size for item in items))}")
            for item in items[:SHOWN]:
                print(f"  {item.what}")
            if len(items) > SHOWN:
                print(f"  and {len(items) - SHOWN} more")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ValueError("nothing was removed: there is nobody to ask; give --yes to remove it")
    return input("Remove this? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
