"""What scheduling a cell costs in studies of thousands of cells on a thousand GPUs, and how long slots wait for it.

    python -m benchmarks.scaling [--cells 100 1000 10000] [--slots 1000] [--out benchmarks/results/scaling.json]
    python -m benchmarks.scaling --figure docs/images/scaling.svg      draws what was measured

A discrete-event simulation that drives the real scheduler, with its journal, its tracking store and its live table:
only the pool and the clock are made up (`benchmarks.simulation`). The processor time that the scheduler really takes
passes on the simulated clock, so that slots which wait for it are seen to wait; what runs write is counted apart, since
they do it elsewhere. Some runs fail, and some are preempted and start again.

Wall time has what else the machine did, and its disk; with TMPDIR=/dev/shm the stores are in memory.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from mlflow import MlflowClient
from rich.console import Console

from analysis import style
from benchmarks.machine import describe, write
from benchmarks.simulation import Clock, Meter, SimulatedPool, Weather
from dhm.data import DataSet
from experiments.durations import Durations
from experiments.grid import GRIDS, Grid, Plan
from experiments.progress import Display
from experiments.recording.provenance import collect
from experiments.recording.tracking import Tracker
from experiments.scheduling.options import Options
from experiments.scheduling.queue import Queue
from experiments.scheduling.scheduler import Scheduler
from experiments.stores import Stores
from experiments.study import Request, make_plan

METHODS, SEEDS = ("plain", "dhm"), 10
TRACKING = ("open_run", "find", "close_interrupted", "close_failed", "record_plan")
QUEUE = ("__init__", "reconcile", "ask", "tell_done", "tell_failed")

REST = "rest"
PARTS = {
    "tracking store": "MLflow: plan, runs that failed",
    "queue": "Optuna: enqueue, ask, tell",
    "live table": "live table",
    REST: "the scheduler itself",
}


def grid(cells: int) -> Grid:
    """A grid that comes to so many cells: methods, learning rates and seeds."""
    rates = [round(0.001 * (1 + index), 6) for index in range(cells // len(METHODS) // SEEDS)]
    name = f"learning_rates_{cells}"
    made = Grid(
        name=name,
        title="Learning rates",
        question="How much work is it to schedule this?",
        factors={"method": METHODS, "optim.lr": rates},
        baseline={"method": "plain"},
        seeds=SEEDS,
    )
    return GRIDS.register(name, made)


def schedule(plan: Plan, data: DataSet, stores: Stores, slots: int, weather: Weather) -> dict[str, Any]:
    """Run what is missing of a plan; where the scheduler's time went, a cell of the plan, and what it left idle."""
    tracker, provenance = Tracker(stores), collect()
    clock, console = Clock(), Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    meter, pool = Meter(clock), SimulatedPool(slots, clock, weather, MlflowClient(tracking_uri=tracker.uri))
    scheduler = Scheduler(
        plan=plan,
        data=data,
        pool=pool,
        stores=stores,
        tracker=tracker,
        provenance=provenance,
        display=Display(console, Durations(plan, data, stores)),
        options=Options(),
    )
    lines = _lines(stores)
    with contextlib.ExitStack() as stack:
        stack.enter_context(meter.database())
        stack.enter_context(meter.methods("tracking store", *((Tracker, name) for name in TRACKING)))
        stack.enter_context(meter.methods("queue", *((Queue, name) for name in QUEUE)))
        stack.enter_context(meter.methods("live table", (Display, "_draw")))
        outcome = scheduler.run()
        scheduler.close()
    cpu, wall = clock.own
    assert outcome.stopped is None and not outcome.missing
    cells = len(plan.cells)
    parts = {**meter.cpu, REST: cpu - sum(meter.cpu.values())}
    return {
        "trained": outcome.trained,
        "failed": len(outcome.failed),
        "cpu_ms": 1000 * cpu / cells,
        "wall_ms": 1000 * wall / cells,
        "parts_cpu_ms": {what: 1000 * seconds / cells for what, seconds in parts.items()},
        "run_writing_cpu_ms": 1000 * pool.writing_cpu / cells,
        "asked": {what: count / cells for what, count in sorted(meter.asked.items())},
        "journal_lines": (_lines(stores) - lines) / cells,
        "makespan_s": pool.makespan,
        "idle_share": pool.waited / (pool.waited + pool.busy) if pool.busy else 0.0,
    }


def _lines(stores: Stores) -> int:
    journal = cast(Path, stores.journal)
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def measure(folder: Path, cells: int, slots: int, weather: Weather) -> dict[str, Any]:
    """A study of some cells, and the same command again when all is done."""
    stores = Stores(root=folder)
    stores.prepare()
    began = time.process_time()
    plan, data = make_plan(Request(grid=grid(cells).name), stores)
    planned = time.process_time() - began
    first = schedule(plan, data, stores, slots, weather)
    again = schedule(plan, data, stores, slots, weather)
    return {"cells": len(plan.cells), "plan_cpu_s": planned, **first, "again_cpu_s": again["cpu_ms"] * cells / 1000}


def draw(measured: Path, out: Path) -> None:
    """Draw what was measured: the scheduler's processor time a cell by what it is spent on, and slots that wait."""
    results = json.loads(measured.read_text())["results"]
    places, sizes = range(len(results)), [f"{result['cells']:,}" for result in results]
    with style.look():
        made = style.figure(style.DOUBLE, 2.6)
        costs, waits = made.subplots(1, 2)
        below = [0.0] * len(results)
        for (name, words), colour in zip(PARTS.items(), style.shades(len(PARTS)), strict=True):
            heights = [result["parts_cpu_ms"][name] for result in results]
            costs.bar(places, heights, 0.6, bottom=below, color=colour, label=words)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for place, total in zip(places, below, strict=True):
            costs.annotate(f"{total:.1f}", (place, total), (0, 2), textcoords="offset points", ha="center")
        costs.set(ylabel="processor time (ms a cell)", title="what scheduling a cell takes")
        shares = [100 * result["idle_share"] for result in results]
        waits.bar(places, shares, 0.6, color=style.FAINT)
        for place, share in zip(places, shares, strict=True):
            waits.annotate(f"{share:.2f} %", (place, share), (0, 2), textcoords="offset points", ha="center")
        waits.set(ylabel="% of slot time", title="slots that wait for the scheduler")
        for axes in (costs, waits):
            axes.set_xticks(places, sizes)
            axes.set(xlabel="cells")
            axes.margins(y=0.12)
            axes.grid(axis="x", visible=False)
        made.legend(loc="outside lower center", ncols=len(PARTS))
        out.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    print(f"written to {out}")


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from; or draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 10_000], help="multiples of 20")
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=Weather().seconds, help="that a run takes, on average")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    parser.add_argument("--figure", type=Path, help="draw what --out has, and measure nothing")
    options = parser.parse_args()
    if options.figure is not None:
        draw(options.out, options.figure)
        return
    machine = describe(slots=options.slots, run_s=options.seconds)
    results = []
    for cells in options.cells:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(Path(folder), cells, options.slots, Weather(seconds=options.seconds)))
        for name, value in results[-1].items():
            print(f"{name:20} {value:10.3f}" if isinstance(value, float) else f"{name:20} {value}", flush=True)
    command = f"python -m benchmarks.scaling --cells {' '.join(map(str, options.cells))} --slots {options.slots}"
    write(options.out, f"{command} --seconds {options.seconds:g}", machine, results=results)


if __name__ == "__main__":
    main()
