"""What a run of the default grid spends outside training: process start, data, tracking, scheduling.

    python -m benchmarks.overhead [--seeds 2] [--out benchmarks/results/overhead.json]

Runs `grid=branch_positions` on `digits` into a new folder, twice: as users do, and cell by cell in this process with
`dhm` alone, on one thread, without a checkpoint or a record. The first tells what a study takes; the second how much
of it is training and evaluation. The share outside training is that of the cells' own slots, from the moment at which
a slot is given a cell to the moment at which it is free again; the study's start and end stand beside it. Every run
also notes when its training began, on the clock that all processes of the machine share, and how long its recorder
held it up.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from analysis import schema, store
from benchmarks.machine import describe, write
from benchmarks.recording import watched_cell
from dhm.engine import fit
from dhm.training import Runtime
from experiments.grid import Cell
from experiments.pool import Slot
from experiments.pools.local import LocalPool
from experiments.pools.parts.gpus import slots
from experiments.progress import Display
from experiments.recording.provenance import collect
from experiments.recording.tracking import Tracker
from experiments.scheduling.options import Options
from experiments.scheduling.scheduler import Scheduler
from experiments.stores import Stores
from experiments.study import Request, make_plan

SLOTS = 2


class Watch(Display):
    """Notes when each cell was in its slot."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.begun: dict[str, float] = {}
        self.took: dict[str, float] = {}

    def started(self, slot: Slot, cell: Cell) -> None:
        """A cell is in a slot."""
        super().started(slot, cell)
        self.begun[cell.cell_id] = time.perf_counter()

    def ended(self, slot: Slot, cell: Cell, outcome: Any, lost: str | None) -> None:
        """A cell has left its slot."""
        super().ended(slot, cell, outcome, lost)
        self.took[cell.cell_id] = time.perf_counter() - self.begun[cell.cell_id]


def measure(folder: Path, seeds: int) -> dict[str, Any]:
    """Run the grid, and say where the time went, in seconds."""
    stores = Stores(root=folder)
    began = time.perf_counter()
    stores.prepare()
    pool = LocalPool(slots([], 1, SLOTS), watched_cell)
    plan, data = make_plan(Request(grid="branch_positions", seeds=seeds), stores)
    tracker = Tracker(stores)
    watch = Watch()
    ready = time.perf_counter()
    try:
        Scheduler(
            plan=plan,
            data=data,
            pool=pool,
            stores=stores,
            tracker=tracker,
            provenance=collect(),
            display=watch,
            options=Options(),
        ).run()
    finally:
        pool.close()
    ended = time.perf_counter()
    records = store.runs(tracker.uri).set_index(schema.CELL_ID)
    training: dict[Any, float] = records[schema.SECONDS].loc[list(watch.took)].to_dict()
    notes = {cell_id: json.loads(stores.lock(cell_id).with_suffix(".notes").read_text()) for cell_id in watch.took}
    in_slots, in_training = sum(watch.took.values()), sum(training.values())
    return {
        "cells": len(plan.cells),
        "prepare_s": ready - began,
        "study_s": ended - ready,
        "cell_s": median(watch.took.values()),
        "cell_training_s": median(training.values()),
        "cell_outside_training_s": median(watch.took[cell_id] - training[cell_id] for cell_id in watch.took),
        "first_step_s": median(notes[cell_id]["began"] - watch.begun[cell_id] for cell_id in watch.took),
        "tracking_s": median(noted["tracking"] for noted in notes.values()),
        "share_tracking": sum(noted["tracking"] for noted in notes.values()) / in_slots,
        "share_outside_training": 1 - in_training / in_slots,
        "alone_training_s": median(fit(cell.variant.recipe, cell.seed, Runtime()).seconds for cell in plan.cells),
    }


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    options = parser.parse_args()
    machine = describe(slots=SLOTS)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.seeds)
    command = f"python -m benchmarks.overhead --seeds {options.seeds}"
    for name, value in figures.items():
        print(f"{name:26} {value:8.3f}" if isinstance(value, float) else f"{name:26} {value:8}")
    write(options.out, command, machine, **figures)


if __name__ == "__main__":
    main()
