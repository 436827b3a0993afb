"""What giving trials up saves, and what it costs: one search with each rule, from the same first proposals.

    python -m benchmarks.pruning [--trials 40] [--searches 2] [--out benchmarks/results/pruning.json]

`grid=mimicking_weight_search` on `digits`, as users run it, into a new folder each time. The best result is that of the
images by which the search judges, since it is that which a search looks for; with 40 of them an image is 2.5 %.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from analysis import coverage, schema
from benchmarks.machine import describe, write
from experiments import api
from experiments.grid import GRIDS
from experiments.scheduling.selection import recorded, saved
from experiments.search import PRUNERS, Search

GRID = "mimicking_weight_search"
FIRST = 1000  # seed of the first search


def measure(folder: Path, pruner: str, seed: int, trials: int) -> dict[str, Any]:
    """The epochs that a search trained, as a share of all, and the error of its best trial."""
    grid = GRIDS.get(GRID)
    assert isinstance(grid, Search)
    search = dataclasses.replace(grid, name=f"{GRID}_{pruner}_{seed}", pruner=pruner, seed=seed)
    if search.name not in GRIDS:
        GRIDS.register(search.name, search)
    settings = {"study.trials": trials, "seeds": 1, "store": folder / "store", "results": folder / "results"}
    study = api.plan(search.name, settings)
    ended = api.run(study, console=Console(quiet=True))
    frame = recorded(ended.tracking_uri, study.plan, search)
    done, pruned = (frame[frame["state"] == state] for state in (coverage.DONE, coverage.PRUNED))
    return {
        "trials": len(done) + len(pruned),
        "pruned": len(pruned),
        "saved": saved(study.plan, frame),
        "best": float(done[schema.VAL_TOP1].min()),
    }


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--searches", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pruning.json"))
    options = parser.parse_args()
    machine = describe()
    results: dict[str, Any] = {}
    for pruner in ("none", *(name for name in PRUNERS if name != "none")):
        found = []
        for seed in range(FIRST, FIRST + options.searches):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(Path(folder), pruner, seed, options.trials))
        results[pruner] = {
            "trials": sum(one["trials"] for one in found),
            "pruned": sum(one["pruned"] for one in found),
            "saved": mean(one["saved"] for one in found),
            "best": [one["best"] for one in found],
        }
        row = results[pruner]
        print(
            f"{pruner:10} {row['pruned']:3} of {row['trials']} trials given up, {row['saved']:.0%} of epochs saved; "
            f"best {', '.join(f'{error:.1f} %' for error in row['best'])}",
            flush=True,
        )
    write(
        options.out,
        f"python -m benchmarks.pruning --trials {options.trials} --searches {options.searches}",
        machine,
        pruners=results,
    )


if __name__ == "__main__":
    main()
