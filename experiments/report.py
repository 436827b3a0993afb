"""What the command line prints of a study besides the live table: its plan, and what was found."""

import math
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis import coverage, store
from analysis.search import importance_words
from experiments.forecast import ELSEWHERE, STALE, Forecast, Trials
from experiments.grid import Plan
from experiments.scheduling.outcome import Outcome
from experiments.scheduling.selection import Selection
from experiments.stores import Stores
from experiments.study import remarks

UI = "http://127.0.0.1:5000"


def plan_table(console: Console, ahead: Forecast) -> None:
    """The cells of a plan by state, with their cost."""
    plan = ahead.plan
    if ahead.trials is not None:
        _trials_ahead(console, plan, ahead.trials)
    counts = {state: number for state, number in ahead.counts.items() if number or state not in (ELSEWHERE, STALE)}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("variant")
    for heading in (*counts, "parameters", "MFLOPs", "s a cell"):
        table.add_column(heading, justify="right")
    for each in ahead.variants:
        shown = "?" if math.isnan(each.seconds) else f"{each.seconds:.1f}"
        columns = (f"{each.cost.parameters:,}", f"{each.cost.flops / 1e6:,.1f}", shown)
        table.add_row(escape(each.variant.name), *(str(each.count(state)) for state in counts), *columns)
    console.print(f"[bold]{plan.experiment}[/], plan {plan.plan_id}: {escape(plan.grid.question)}", soft_wrap=True)
    if plan.overrides:
        console.print(f"with {', '.join(plan.overrides)}", markup=False, soft_wrap=True)
    source = plan.benchmark.source(plan.base.arch)
    backbones = ", ".join(dict.fromkeys(variant.recipe.arch for variant in plan.variants))
    epochs = f"{plan.base.epochs} epoch{'s' if plan.base.epochs > 1 else ''}"
    console.print(f"recipe: {backbones}, {epochs}; {source}", markup=False, soft_wrap=True)
    for remark in remarks(plan):
        console.print(remark, markup=False, soft_wrap=True)
    console.print(f"data: {plan.data_words}; store: {ahead.store}\n", markup=False, soft_wrap=True)
    console.print(table)
    words = {STALE: "done by other code (retry=stale trains them again)"} | {
        ELSEWHERE: "trained for other plans, to be copied"
    }
    total = ", ".join(f"{number} {words.get(state, state)}" for state, number in counts.items())
    unknown = math.isnan(ahead.seconds)
    time = "unknown before the first cell ends" if unknown else f"about {_long(ahead.seconds)}"
    places = f"{ahead.slots} slot{'s' if ahead.slots > 1 else ''}"
    console.print(f"\n{len(plan.cells)} cells: {total}. To run on {places}: {time}.", soft_wrap=True)
    if plan.looks and len(plan.seeds) < plan.looks[-1]:
        at, most = len(plan.seeds), plan.looks[-1]
        cells = len(plan.variants) * most
        console.print(
            f"What is open at {at} seeds goes on, to {most} at most: up to {cells} cells in all.", soft_wrap=True
        )
    console.print("Nothing was started.")


def _long(seconds: float) -> str:
    """A time to wait, as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _trials_ahead(console: Console, plan: Plan, ahead: Trials) -> None:
    """How far the trials of a search have come, and what they select."""
    counts = ahead.counts
    console.print(
        f"[bold]{plan.experiment}[/], search with {ahead.search.trials} trials on seed {ahead.search.seed}: "
        f"{counts[coverage.DONE]} done, {counts[coverage.PRUNED]} given up, {counts[coverage.FAILED]} failed, "
        f"{counts[coverage.MISSING]} missing.",
        soft_wrap=True,
    )
    if ahead.selection is None:
        console.print("The setting that they select will be one more variant:\n")
    else:
        console.print(f"Selected: {_selected(ahead.selection)}\n", markup=False, soft_wrap=True)


def trials(console: Console, plan: Plan, selection: Selection | None, result: Outcome) -> None:
    """What a search found."""
    failed = f", {len(result.failed)} failed" if result.failed else ""
    now = f" ({result.trained} trained to the end now)" if result.trained else ""
    saved = f", which saved {result.saved:.0%} of the epochs" if result.pruned and result.saved else ""
    console.print(f"{result.done} trials done, {result.pruned} given up{saved}{failed}{now}.")
    _failures(console, result)
    if result.stopped is not None:
        console.print(f"Stopped: {result.stopped}", markup=False)
        console.print(f"{result.missing} trials are missing; the same command goes on with them.")
    elif selection is None:
        console.print(f"No trial of {plan.experiment} ended: there is nothing to select from.")
    else:
        console.print(f"Selected: {_selected(selection)}", markup=False, soft_wrap=True)
        told = importance_words(selection.document["importance"]) or "Importance: too few trials ended to tell."
        console.print(f"{told}\n", soft_wrap=True)


def _selected(selection: Selection) -> str:
    share = selection.document["held_out"]
    return f"{selection.trial}, {selection.error:.2f} % error on held-out training images ({share:.0%} of them)."


def _failures(console: Console, result: Outcome) -> None:
    for name, (message, log) in result.failed.items():
        console.print(
            f"[red]failed[/] {escape(name)}: {escape(message)}\n  the whole trace: {escape(log)}", soft_wrap=True
        )
    if result.failed:
        console.print("What failed stays as it is; [bold]retry=failed[/] runs it again.")


def outcome(console: Console, plan: Plan, result: Outcome) -> bool:
    """How a study ended; whether every cell is done."""
    total = len(plan.cells)
    how = [f"{result.trained} trained now"] if result.trained else []
    how += [f"{result.copied} copied from other plans"] if result.copied else []
    console.print(f"{result.done} of {total} cells done" + (f" ({', '.join(how)})." if how else "."))
    _failures(console, result)
    if result.stopped is not None:
        console.print(f"Stopped: {result.stopped}", markup=False)
        console.print(f"{result.missing} cells are missing; the same command goes on with them.")
    return result.done == total


def results(console: Console, plan: Plan, stores: Stores, folder: Path, *, allow_incomplete: bool) -> bool:
    """Build a plan's tables and figures, and say what was found and where to look; whether all was built."""
    from analysis import build  # noqa: PLC0415  (scipy and what draws, 2 s to import, are wanted when all is trained)
    from analysis.summary import summary  # noqa: PLC0415  (as above)

    (found,) = (known for known in store.plans(stores.tracking_uri) if known.plan_id == plan.plan_id)
    (built,) = build.build(stores.tracking_uri, folder, [plan.plan_id], allow_incomplete=allow_incomplete)
    if built.paths:
        runs = store.runs(stores.tracking_uri, found)
        console.print(f"\n{summary(found, runs, allow_incomplete=allow_incomplete)}\n", markup=False, soft_wrap=True)
        console.print(str(built), markup=False, soft_wrap=True)
    for refusal in built.refusals:
        console.print(f"not built: {refusal}", markup=False)
    page = stores.tracking_uri.rstrip("/") if stores.served else UI
    link = f"{page}/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
    command = "make ui" if stores.root == Path("results/store") else f"make ui STORE={stores.root}"
    first = "" if stores.served else f"[bold]{command}[/], then "
    console.print(f"MLflow: {first}{link}&viewStateShareKey={plan.plan_id}", soft_wrap=True)
    return not built.refusals
