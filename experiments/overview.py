"""What a store holds, as `experiments.status` tells it: in words, and as JSON."""

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import coverage, store
from experiments.stores import Stores
from experiments.survey import INTERRUPTED, ORPHANED, STATES, PlanState, Survey
from experiments.words import megabytes


def document(stores: Stores, survey: Survey) -> dict[str, Any]:
    """All of it as plain values, for JSON."""
    rubbish = list(survey.rubbish())
    return {
        "store": str(stores.root.resolve()),
        "plans": [
            {
                "experiment": found.plan.experiment,
                "plan_id": found.plan.plan_id,
                "command": found.plan.command,
                "scheduler": found.running,
                "cells": dict(found.cells),
                "trials": None if found.trials is None else dict(found.trials),
            }
            for found in survey.plans
        ],
        "bytes": survey.disk(),
        "discarded_runs": [item.run_id for item in rubbish if item.run_id],
        "removable_bytes": sum(item.size for item in rubbish if not item.result),
    }


def show(console: Console, stores: Stores, survey: Survey) -> None:
    """All of it for a person."""
    console.print(f"store: {stores.root.resolve()}\n", markup=False, soft_wrap=True)
    if survey.plans:
        console.print(_table(survey.plans), soft_wrap=True)
    else:
        console.print("No grid was run yet: python -m experiments.run lists them.")
    for found in survey.plans:
        for hint in _hints(found):
            console.print(hint, markup=False, soft_wrap=True)
    used = ", ".join(f"{kind} {megabytes(size)}" for kind, size in survey.disk().items() if size)
    console.print(f"\ndisk: {used}", markup=False, soft_wrap=True)
    rubbish = list(survey.rubbish())
    if rubbish:
        size = megabytes(sum(item.size for item in rubbish if not item.result))
        kept = sum(item.result for item in rubbish)
        more = f"; {kept} discarded run(s) hold results" if kept else ""
        command = shlex.join(["python", "-m", "experiments.clean", *store.place(stores.tracking_uri)])
        console.print(f"not needed: {size}{more}: {command}", markup=False, soft_wrap=True)


def _table(plans: Sequence[PlanState]) -> Table:
    shown = [state for state in STATES if any(p.cells[state] or (p.trials or {}).get(state) for p in plans)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("grid", "plan", "cells", *shown):
        table.add_column(heading, justify="left" if heading in ("grid", "plan") else "right", overflow="fold")
    for found in plans:
        rows = [(found.plan.words, found.cells)]
        rows += [] if found.trials is None else [("  its search's trials", found.trials)]
        for name, counts in rows:
            numbers = [str(counts[state] or "·") for state in shown]
            table.add_row(name.replace("[", "\\["), found.plan.plan_id, str(sum(counts.values())), *numbers)
    return table


def _hints(found: PlanState) -> list[str]:
    counts = {state: found.cells[state] + (found.trials or {}).get(state, 0) for state in STATES}
    command, hints = found.plan.command, []
    if found.running:
        hints.append("a scheduler is at work")
    elif any(counts[state] for state in (ORPHANED, INTERRUPTED, coverage.MISSING)):
        hints.append(f"to go on: {command}")
    if counts[coverage.FAILED]:
        hints.append(f"to try what failed again: {command} retry=failed")
    if counts[coverage.STALE]:
        hints.append(f"to train what is stale again: {command} retry=stale")
    return [f"{found.plan.experiment} {found.plan.plan_id}: {hint}" for hint in hints]
