"""How long the reading of a large store takes, and its tables and figures; whether that grows with the runs or faster.

    python -m benchmarks.analysis_scale [--runs 1000 10000] [--shapes grids variants] [--stores DIR]

Makes stores of made-up runs, each with 20 params and 20 metrics, 12 of them curves of 100 epochs, in two shapes:
`grids` (a grid of 50 variants at 20 seeds for every 1,000 runs) and `variants` (one grid that has them all). MLflow
makes the database; the rows are written past it, since its client would take an hour for them. Measured is, each in a
process of its own: MLflow's `search_runs` alone; `analysis.store.runs` with nothing kept, and again; `analysis.build`
with nothing kept, with all of the record kept (`--all`), and where nothing has changed. Processor time tells how it
grows; the wall time, what else ran. Readings are counted from when the store is open, builds from the start of their
process.
"""

import argparse
import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from analysis import build, schema, store
from analysis.store.client import opened
from tests.analysis import synthetic

SEEDS = 20
METHODS = ("plain", "dhm")
NAMES, METRICS = 20, 20  # of params and of metrics a run
FIGURES = ("levels", "effects", "training_curves")
EPOCHS = 100
NOTHING_KEPT = ("search_runs", "first_reading", "first_build")
PHASES = ("search_runs", "first_reading", "second_reading", "first_build", "second_build", "unchanged_build")
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


def search(uri: str) -> None:
    """What MLflow takes."""
    with opened(uri) as found:
        for _ in found.search([experiment.experiment_id for experiment in found.experiments()]):
            pass


def phase(name: str, database: Path) -> dict[str, float]:
    """Do one thing with a store; return seconds, those of the processor, and the most memory in GiB."""
    uri = f"sqlite:///{database}"
    began = 0.0, time.perf_counter()
    if name.endswith("build"):
        words = ["--store", uri, "--out", str(database.parent / "out"), "--quiet"]
        build.main([*words, "--all"] if name == "second_build" else words)
    else:
        store.plans(uri)  # opens it
        began = time.process_time(), time.perf_counter()
        search(uri) if name == "search_runs" else store.runs(uri)
    return {
        "processor_s": round(time.process_time() - began[0], 2),
        "wall_s": round(time.perf_counter() - began[1], 2),
        "memory_gib": round(most_memory() / 2**20, 2),
    }


def most_memory() -> int:
    """The most that this process has had, in KiB; of `getrusage` it would be no less than what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def measure(database: Path) -> dict[str, dict[str, float]]:
    """Do everything with a store, and return what each took."""
    found = {}
    for name in PHASES:
        if name in NOTHING_KEPT:
            shutil.rmtree(database.parent / "cache", ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.analysis_scale", "--phase", name, str(database)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[name] = json.loads(told.splitlines()[-1])
        numbers = "{processor_s:7.1f} s of processor, {wall_s:7.1f} s, {memory_gib:.2f} GiB".format(**found[name])
        print(f"{name:>15}: {numbers}", flush=True)
    return found


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000], help="multiples of 1,000")
    parser.add_argument("--shapes", nargs="+", choices=("grids", "variants"), default=["grids", "variants"])
    parser.add_argument("--stores", type=Path, help="folder to make the stores in, or to find them in as made before")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/analysis_scale.json"))
    parser.add_argument("--phase", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(phase(options.phase[0], Path(options.phase[1]))))
        return
    # It loads torch, of which nothing that is measured here has need.
    from benchmarks.machine import describe, write  # noqa: PLC0415

    machine, found = describe(), []
    with tempfile.TemporaryDirectory() as folder:
        for runs in sorted(options.runs):
            for shape, grids in (("grids", runs // 1000), ("variants", 1)):
                if shape not in options.shapes or (shape == "variants" and grids == runs // 1000):
                    continue  # one grid is both shapes
                database = (options.stores or Path(folder)) / f"{runs}-{shape}" / "mlflow.db"
                if not database.exists():
                    database.parent.mkdir(parents=True)
                    fill(database, runs, grids)
                print(f"{runs} runs in {grids} grid{'s' * (grids > 1)}:", flush=True)
                found.append({"runs": runs, "shape": shape, "grids": grids, **measure(database)})
    command = f"python -m benchmarks.analysis_scale --runs {' '.join(map(str, sorted(options.runs)))}"
    if len(options.shapes) == 1:
        command += f" --shapes {options.shapes[0]}"
    write(options.out, command, machine, results=found)


if __name__ == "__main__":
    main()
