"""The simulation of large studies, on small ones: the scheduler is the real one, and every cell comes to its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling import grid, schedule
from benchmarks.simulation import Weather
from experiments.grid import GRIDS
from experiments.stores import Stores
from experiments.study import Request, make_plan

SLOTS = 5
WEATHER = Weather(seconds=60.0, epochs=4, lost=0.2, failed=0.05)


Studies = dict[int, list[dict[str, Any]]]


def run_twice(weather: Weather, folder: Callable[[], Path], empty_database: Path) -> Studies:
    """Studies of 20 and 60 cells, each twice."""
    found = {}
    known = dict(GRIDS._values)
    for cells in (20, 60):
        stores = Stores(root=folder())
        stores.prepare()
        (stores.root / "mlflow.db").write_bytes(empty_database.read_bytes())
        plan, data = make_plan(Request(grid=grid(cells).name), stores)
        found[cells] = [schedule(plan, data, stores, SLOTS, weather) for _ in range(2)]
    GRIDS._values.clear()
    GRIDS._values.update(known)
    return found


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Studies:
    return run_twice(WEATHER, lambda: tmp_path_factory.mktemp("study"), empty_database)


def test_the_scheduler_writes_nothing_into_the_tracking_store_for_a_cell_that_ends_well(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> None:
    found = run_twice(Weather(lost=0.0, failed=0.0), lambda: tmp_path_factory.mktemp("fair"), empty_database)
    small, large = (cells * found[cells][0]["asked"]["scheduler writes"] for cells in (20, 60))
    assert large == pytest.approx(small), "those of the plan alone"


def test_every_cell_ends_through_failures_and_preemptions(studies: Studies) -> None:
    for cells, (first, again) in studies.items():
        assert first["trained"] + first["failed"] == cells and first["failed"] < cells / 4
        assert again["trained"] == 0 and again["asked"].get("run writes", 0) == 0, "nothing is run twice"


def test_three_times_the_cells_cost_no_more_operations_a_cell(studies: Studies) -> None:
    small, large = (studies[cells][0] for cells in (20, 60))
    # Lost runs differ a little between the two, and what is done once for a study counts less in the large one.
    assert large["journal_lines"] < 1.2 * small["journal_lines"]
    for what in ("scheduler reads", "scheduler writes", "scheduler transactions"):
        assert large["asked"][what] < 1.2 * small["asked"][what], what


def test_a_study_takes_the_time_of_its_runs(studies: Studies) -> None:
    first = studies[60][0]
    at_least = 60 / SLOTS * WEATHER.seconds * 0.75  # a cell takes between half and one and a half times as long
    assert at_least < first["makespan_s"] < 3 * at_least
    assert 0 < first["idle_share"] < 1, "the scheduler takes time, and slots wait meanwhile"
