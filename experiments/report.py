"""What the command line prints of a study besides the live table: its plan, and what was found."""

import math
from pathlib import Path
from statistics import fmean

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis import coverage, schema, store
from dhm import cost
from dhm.data import DataSet
from experiments import records
from experiments.grid import Plan, Variant
from experiments.outcome import Outcome
from experiments.provenance import code_hash
from experiments.search import Search
from experiments.searcher import Selection, recorded, select
from experiments.stores import Stores

ELSEWHERE = "elsewhere"
STATES = ("done", "failed", ELSEWHERE, "missing")
UI = "http://127.0.0.1:5000"


def plan_table(console: Console, plan: Plan, data: DataSet, stores: Stores, *, slots: int) -> None:
    """The cells of a plan by state, with their cost. Reads the store if there is one, and writes nothing."""
    try:
        runs = store.runs(stores.tracking_uri)
    except store.StoreError:
        runs = None
    found = {} if runs is None else records.of_plan(runs, plan)
    mine = {cell.cell_id for cell in plan.cells} - set(found)
    elsewhere = set() if runs is None else mine & set(records.originals(runs, code_hash()))
    counts = {state: 0 for state in STATES if elsewhere or state != ELSEWHERE}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("variant")
    for heading in (*counts, "parameters", "MFLOPs", "s a cell"):
        table.add_column(heading, justify="right")
    flops = {variant.name: _cost(variant, data) for variant in plan.variants}
    seconds = {} if runs is None else _seconds(plan, runs, {name: c.flops for name, c in flops.items()})
    ahead = 0.0
    for variant in plan.variants:
        states = [_state(found, elsewhere, cell.cell_id) for cell in plan.cells if cell.variant is variant]
        each = [states.count(state) for state in counts]
        for state, number in zip(counts, each, strict=True):
            counts[state] += number
        spent = seconds.get(variant.name, math.nan)
        ahead += spent * each[-1] if each[-1] else 0.0
        measured = flops[variant.name]
        shown = "?" if math.isnan(spent) else f"{spent:.1f}"
        columns = (f"{measured.parameters:,}", f"{measured.flops / 1e6:,.1f}", shown)
        table.add_row(escape(variant.name), *map(str, each), *columns)
    console.print(f"[bold]{plan.experiment}[/], plan {plan.plan_id}: {escape(plan.grid.question)}")
    if plan.overrides:
        console.print(f"with {', '.join(plan.overrides)}", markup=False)
    console.print(f"recipe: {plan.base.arch}, {plan.base.epochs} epochs; {plan.benchmark.source(plan.base.arch)}")
    console.print(f"data: {plan.data_words}; store: {stores.root.resolve()}\n", markup=False, soft_wrap=True)
    console.print(table)
    words = {ELSEWHERE: "trained for other plans, to be copied"}
    total = ", ".join(f"{number} {words.get(state, state)}" for state, number in counts.items())
    time = "unknown before the first cell ends" if math.isnan(ahead) else f"about {ahead / slots / 60:.1f} minutes"
    console.print(f"\n{len(plan.cells)} cells: {total}. To run on {slots} slot(s): {time}. Nothing was started.")


def trials_planned(console: Console, plan: Plan, search: Search, stores: Stores) -> Selection | None:
    """How far the trials of a search have come, and what they select if none is missing."""
    try:
        frame = recorded(stores.tracking_uri, plan, search)
    except store.StoreError:
        counts, found = {}, None
    else:
        counts, found = frame["state"].value_counts().to_dict(), select(plan, search, frame, {})
    done, pruned, failed = (int(counts.get(state, 0)) for state in (coverage.DONE, coverage.PRUNED, coverage.FAILED))
    missing = max(0, search.trials - done - pruned - failed)
    console.print(
        f"[bold]{plan.experiment}[/], search with {search.trials} trials on seed {search.seed}: {done} done, "
        f"{pruned} given up, {failed} failed, {missing} missing.",
        soft_wrap=True,
    )
    if missing or found is None:
        console.print("The setting that they select will be one more variant:\n")
        return None
    console.print(f"Selected: {_selected(found)}\n", markup=False, soft_wrap=True)
    return found


def trials(console: Console, plan: Plan, selection: Selection | None, result: Outcome) -> None:
    """What a search found."""
    failed = f", {len(result.failed)} failed" if result.failed else ""
    now = f" ({result.trained} trained to the end now)" if result.trained else ""
    console.print(f"{result.done} trials done, {result.pruned} given up{failed}{now}.")
    _failures(console, result)
    if result.stopped is not None:
        console.print(f"Stopped: {result.stopped}", markup=False)
        console.print(f"{result.missing} trials are missing; the same command goes on with them.")
    elif selection is None:
        console.print(f"No trial of {plan.experiment} ended: there is nothing to select from.")
    else:
        console.print(f"Selected: {_selected(selection)}", markup=False, soft_wrap=True)
        shares = ", ".join(f"{path} {share:.0%}" for path, share in selection.document["importance"].items())
        console.print(f"Importance (fANOVA): {shares or 'too few trials ended to tell'}.\n", soft_wrap=True)


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
        console.print(build.report(built), markup=False, soft_wrap=True)
    for refusal in built.refusals:
        console.print(f"not built: {refusal}", markup=False)
    page = stores.tracking_uri.rstrip("/") if stores.served else UI
    link = f"{page}/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
    command = "make ui" if stores.root == Path("results/store") else f"make ui STORE={stores.root}"
    first = "" if stores.served else f"[bold]{command}[/], then "
    console.print(f"MLflow: {first}{link}&viewStateShareKey={plan.plan_id}", soft_wrap=True)
    return not built.refusals


def _cost(variant: Variant, data: DataSet) -> cost.Cost:
    return cost.measure(variant.recipe, channels=data.channels, size=data.image_shape, num_classes=data.num_classes)


def _state(found: dict[str, records.CellRecord], elsewhere: set[str], cell_id: str) -> str:
    record = found.get(cell_id)
    if cell_id in elsewhere:
        return ELSEWHERE
    if record is None or record.state not in (records.DONE, records.FAILED):
        return "missing"
    return "done" if record.state == records.DONE else "failed"


def _seconds(plan: Plan, runs: pd.DataFrame, flops: dict[str, int]) -> dict[str, float]:
    """Seconds that a cell takes, by variant: as its recipe took, for whatever plan, or else by its operations."""
    done = runs[runs["status"] == records.DONE]
    if done.empty:
        return {}
    took = {str(recipe): float(group.mean()) for recipe, group in done.groupby(schema.RECIPE_ID)[schema.SECONDS]}
    recipes = {cell.variant.name: cell.recipe_id for cell in plan.cells_of_seed(plan.seeds[0])}
    known = [took[recipe] / flops[name] for name, recipe in recipes.items() if recipe in took]
    rate = fmean(known) if known else math.nan
    return {name: took.get(recipe, rate * flops[name]) for name, recipe in recipes.items()}
