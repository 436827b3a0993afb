"""How long the tables and figures of a large store take, and whether that grows with the runs or faster.

    python -m benchmarks.analysis_scale [--runs 1000 10000] [--out benchmarks/results/analysis_scale.json]

Makes stores of made-up runs, each with 20 params and 20 metrics, one of them a curve of 15 epochs, in two shapes:
`grids` (a grid of 50 variants at 20 seeds for every 1,000 runs) and `variants` (one grid that has them all). MLflow
makes the database; the rows are written past it, since its client would take minutes for them. Then `analysis.build`
runs on each store, in a process of its own. Its processor time tells how it grows; the wall time, what else ran.
"""

import argparse
import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from analysis import schema
from benchmarks.machine import describe, write
from tests.analysis import synthetic

SEEDS = 20
METHODS = ("plain", "dhm")
NAMES, METRICS = 20, 20  # of params and of metrics a run
FIGURES = ("levels", "effects", "training_curves")
EPOCHS = 100
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def plan_of(number: int, variants: int) -> dict[str, Any]:
    """A plan that crosses the methods with as many learning rates as it takes."""
    rates = [round(0.01 * (1 + index), 2) for index in range(variants // len(METHODS))]
    made = [
        synthetic.variant(
            f"{method} lr {rate:g}",
            method,
            {"method": method, "optim.lr": rate},
            shift=-1.0 * (method == "dhm"),
            role="baseline" if method == "plain" else "arm",
        )
        for rate in rates
        for method in METHODS
    ]
    for item in made:
        item["baseline"] = None if item["method"] == "plain" else f"plain lr {item['factors']['optim.lr']:g}"
    return {
        **synthetic.plan_record("methods", plan_id=f"plan{number}", seeds=SEEDS),
        "grid": f"rates{number}",
        "factors": {"method": list(METHODS), "optim.lr": rates},
        "baseline": made[0]["name"],
        "figures": list(FIGURES),
        "variants": made,
    }


def fill(path: Path, runs: int, grids: int) -> None:
    """Write a store of some runs in some grids."""
    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as database:
        for setting in ("journal_mode = off", "synchronous = off", "cache_size = -2000000"):  # it is made for a while
            database.execute(f"PRAGMA {setting}")
        for number in range(grids):
            plan = plan_of(number, runs // grids // SEEDS)
            synthetic.write_plan(client, plan)
            for item in plan["variants"]:
                run_id = synthetic.write_cell(client, plan, item, 0, epochs=EPOCHS)
                _pad(database, run_id)
                for seed in range(1, SEEDS):
                    _copy(database, run_id, seed)
                database.commit()


def _pad(database: sqlite3.Connection, run_id: str) -> None:
    """Give a run as many params and metrics as a run of this benchmark has."""
    there = database.execute("SELECT count(*) FROM params WHERE run_uuid = ?", (run_id,)).fetchone()[0]
    pads = [(f"param{index}", str(index), run_id) for index in range(NAMES - there)]
    database.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", pads)
    there = database.execute("SELECT count(*) FROM latest_metrics WHERE run_uuid = ?", (run_id,)).fetchone()[0]
    for table, epochs in (("metrics", range(EPOCHS)), ("latest_metrics", range(EPOCHS - 1, EPOCHS))):
        database.executemany(
            f"INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, 1, ?, ?, 0, ?)",
            [(f"pad/{index}", step, step, run_id) for index in range(METRICS - there) for step in epochs],
        )


def _copy(database: sqlite3.Connection, run_id: str, seed: int) -> None:
    """Copy a run of seed 0 as one of another seed, whose errors differ a little."""
    new = uuid.uuid4().hex
    for table in TABLES:
        names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        taken = ", ".join("?" if name == "run_uuid" else f'"{name}"' for name in names)
        database.execute(f"INSERT INTO {table} SELECT {taken} FROM {table} WHERE run_uuid = ?", (new, run_id))
    for table in ("tags", "params"):
        database.execute(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", (str(seed), new, schema.SEED))
    database.execute(
        "UPDATE tags SET value = replace(value, '-s0', ?) WHERE run_uuid = ? AND key = ?",
        (f"-s{seed}", new, schema.CELL_ID),
    )
    shift = 0.3 * ((seed * 7919 + int(run_id[:4], 16)) % 10)
    for table in ("metrics", "latest_metrics"):
        database.execute(
            f"UPDATE {table} SET value = value + ? WHERE run_uuid = ? AND key IN (?, ?)",
            (shift, new, schema.FINAL_TOP1, schema.TEST_TOP1),
        )


def measure(store: Path, out: Path) -> dict[str, float]:
    """Build a store's tables and figures; return seconds, those of the processor, and the most memory in GiB."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "analysis.build", "--store", f"sqlite:///{store}", "--out", str(out), "--quiet"]
    subprocess.run(command, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_s": seconds,
        # The most that any child has had, in KiB on Linux: stores are measured from the smallest on.
        "memory_gib": after.ru_maxrss / 2**20,
    }


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000], help="multiples of 1,000")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/analysis_scale.json"))
    options = parser.parse_args()
    found = []
    for runs in sorted(options.runs):
        for shape, grids in (("grids", runs // 1000), ("variants", 1)):
            if shape == "variants" and grids == runs // 1000:
                continue  # one grid is both shapes
            with tempfile.TemporaryDirectory() as folder:
                fill(Path(folder) / "mlflow.db", runs, grids)
                result = {"runs": runs, "shape": shape, "grids": grids}
                result |= measure(Path(folder) / "mlflow.db", Path(folder) / "out")
            found.append(result)
            told = f"{result['processor_s']:7.1f} s of processor, {result['memory_gib']:.2f} GiB"
            print(f"{runs:7} runs in {grids:3} grids: {told}", flush=True)
    machine = describe()
    command = f"python -m benchmarks.analysis_scale --runs {' '.join(map(str, sorted(options.runs)))}"
    write(options.out, command, machine, results=found)


if __name__ == "__main__":
    main()
