"""How long a study takes is told by how long its cells took, start and end included. On made-up records and clocks."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis import schema, store
from dhm.data import DataSet
from dhm.recipe import Recipe
from experiments import forecast, progress
from experiments.costs import operations_of
from experiments.durations import Durations, makespan
from experiments.grid import Plan, recipe_id
from experiments.pool import Slot
from experiments.progress import Display
from experiments.scheduling.options import Options
from experiments.search import Search
from experiments.stores import Stores
from experiments.study import Request, make_plan
from experiments.trial import Done, Progress

BEGAN = pd.Timestamp("2026-11-01", tz="UTC")
SLOTS = [Slot(index=index, device="cpu", visible="") for index in range(2)]


@dataclasses.dataclass(frozen=True)
class Place:
    """A plan of 7 variants and 2 seeds on digits."""

    plan: Plan
    data: DataSet
    stores: Stores

    def durations(self, *rows: dict[str, Any]) -> Durations:
        made = Durations(self.plan, self.data, self.stores)
        made.learn(frame(*rows))
        return made

    def recipe(self, name: str) -> Recipe:
        return next(variant.recipe for variant in self.plan.variants if variant.name == name)

    def row(self, recipe: Recipe, training: float, beside: float, **changes: Any) -> dict[str, Any]:
        """A finished run as `store.runs` has it."""
        return {
            schema.CELL_ID: "",
            schema.PLAN: "another",
            "run_id": "",
            "status": "FINISHED",
            "start_time": BEGAN,
            "end_time": BEGAN + pd.Timedelta(seconds=training + beside),
            schema.DATA: self.plan.fingerprint,
            schema.CODE: "earlier",
            schema.RECIPE_ID: recipe_id(recipe, self.plan.fingerprint),
            schema.ATTEMPTS: 1,
            schema.SOURCE_RUN: None,
            schema.EPOCHS: recipe.epochs,
            schema.SECONDS: training,
            schema.FLOPS: operations_of(recipe, self.data, self.stores) / recipe.epochs / images(self) / 1e6,
            **changes,
        }


def images(place: Place) -> float:
    """200 training images there and back, 797 test images, an epoch."""
    return 3 * 200 + 797


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    made = pd.DataFrame(rows)
    made[schema.SOURCE_RUN] = made[schema.SOURCE_RUN].astype(object)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    stores = Stores(root=tmp_path_factory.mktemp("store"))
    return Place(*make_plan(Request(grid="branch_positions", seeds=2), stores), stores)


def test_a_recipe_takes_what_it_took_and_what_comes_besides(place: Place) -> None:
    plain, dhm = place.recipe("plain"), place.recipe("dhm at 1+2")
    rows = [place.row(plain, training, 0.4) for training in (1.0, 2.0)] + [place.row(dhm, 5.0, 0.6)]
    waits = place.row(dhm, 7.0, 9.0)  # the first of its study
    expected = place.durations(*rows, waits).expected()
    assert expected(plain) == pytest.approx(1.5 + 0.5)
    assert expected(dhm) == pytest.approx(6.0 + 0.5)


def test_a_recipe_of_which_nothing_is_known_takes_its_operations(place: Place) -> None:
    plain, dhm, dsl = (place.recipe(name) for name in ("plain", "dhm at 1+2", "dsl at 1"))
    work = {recipe: operations_of(recipe, place.data, place.stores) for recipe in (plain, dhm, dsl)}
    expected = place.durations(place.row(plain, 2.0, 0.5), place.row(dhm, 4.0, 0.5)).expected()
    assert expected(dsl) == pytest.approx(6.0 / (work[plain] + work[dhm]) * work[dsl] + 0.5)
    longer = dataclasses.replace(plain, epochs=2 * plain.epochs)
    assert expected(longer) - 0.5 == pytest.approx(6.0 / (work[plain] + work[dhm]) * 2 * work[plain])


def test_where_none_of_the_plan_is_known_others_on_the_same_images_tell(place: Place) -> None:
    dhm = place.recipe("dhm at 1+2")
    short = dataclasses.replace(dhm, epochs=2)
    assert place.durations(place.row(short, 0.5, 0.5)).expected()(dhm) == pytest.approx(5.0 + 0.5)
    elsewhere = place.row(short, 0.5, 0.5, **{schema.DATA: "other images"})
    assert math.isnan(place.durations(elsewhere).expected()(dhm))


def test_records_that_lack_something_still_tell_what_they_have(place: Place) -> None:
    plain, dhm = place.recipe("plain"), place.recipe("dhm at 1+2")
    unlike = {
        "resumed": {schema.ATTEMPTS: 2},
        "copied": {schema.SOURCE_RUN: "another"},
        "never ended": {"end_time": pd.NaT},
    }
    for changes in unlike.values():
        expected = place.durations(place.row(plain, 2.0, 50.0, **changes), place.row(plain, 2.0, 0.5)).expected()
        assert expected(plain) == pytest.approx(2.5)
    lacking = [place.row(plain, 2.0, 0.5, **{name: math.nan}) for name in (schema.SECONDS, schema.FLOPS)]
    assert place.durations(*lacking).expected()(dhm) > 2.5
    old = frame(place.row(plain, 2.0, 0.5)).drop(columns=[schema.SECONDS, schema.FLOPS])
    durations = Durations(place.plan, place.data, place.stores)
    durations.learn(old)
    assert math.isnan(durations.expected()(plain))
    failed = place.row(plain, 2.0, 0.5, status="FAILED")
    assert math.isnan(place.durations(failed).expected()(plain))


def test_what_ends_here_sets_the_pace_of_what_is_recorded(place: Place) -> None:
    plain, dhm = place.recipe("plain"), place.recipe("dhm at 1+2")
    durations = place.durations(place.row(plain, 2.0, 0.5), place.row(dhm, 6.0, 0.5))
    durations.ended(plain, training=4.0, beside=1.0)
    expected = durations.expected()
    assert expected(plain) == pytest.approx(4.0 + 1.0)
    assert expected(dhm) == pytest.approx(12.0 + 1.0)
    durations.under_way(dhm, 9.0)
    assert durations.expected()(dhm) == pytest.approx(9.0 + 1.0)
    durations.ended(dhm, training=10.0, beside=1.0)
    durations.under_way(dhm, 30.0)
    assert durations.expected()(dhm) == pytest.approx(10.0 + 1.0)


def test_slots_are_packed_the_longest_first() -> None:
    assert makespan([1, 1, 4, 3, 3], 2) == 6
    assert makespan([1, 1, 1], 1) == 3
    assert makespan([2, 2], 3, busy=[5.0]) == 5
    assert makespan([2, 2, 2], 3, busy=[5.0, 1.0]) == 5
    assert makespan([2], 2, busy=[5.0, 1.0]) == 5
    assert makespan([], 2) == 0
    assert math.isnan(makespan([1, math.nan], 2)) and math.isnan(makespan([1], 2, busy=[math.nan]))


def test_a_plan_tells_how_long_its_missing_cells_take(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for number, variant in enumerate(place.plan.variants):
        mine = {
            schema.PLAN: place.plan.plan_id,
            schema.CELL_ID: f"{recipe_id(variant.recipe, place.plan.fingerprint)}-s0",
        }
        rows.append(place.row(variant.recipe, 1.0 + number, 0.5, **mine))
    monkeypatch.setattr(store, "runs", lambda uri: frame(*rows))
    ahead = forecast.forecast(place.plan, place.data, None, place.stores, slots=2, options=Options())
    assert [each.seconds for each in ahead.variants] == [1.5 + number for number in range(7)]
    assert ahead.counts["missing"] == 7
    assert ahead.seconds == makespan([1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5], 2) == 16.0
    assert ahead.document()["seconds"] == 16.0


def test_trials_that_are_missing_and_the_arm_that_they_select_take_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(root=tmp_path)
    plan, data = make_plan(Request(grid="mimicking_weight_search", seeds=2, trials=6), stores)
    assert isinstance(plan.grid, Search)
    monkeypatch.setattr(forecast.Durations, "expected", lambda self: lambda recipe: 2.0)
    counts = {"done": 1, "pruned": 1, "failed": 0, "missing": 4}
    trials = forecast.Trials(search=plan.grid, counts=counts, selection=None)
    ahead = forecast.forecast(plan, data, trials, stores, slots=1, options=Options())
    assert ahead.seconds == 2.0 * (4 + 4 + 2), "2 variants at 2 seeds, 4 trials, and the arm that is found at 2 seeds"


class Watched:
    """A display whose clock is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations: Durations | None) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.display = Display(Console(file=io.StringIO(), width=200), durations)

    def left(self) -> str:
        self.now += progress.AGAIN
        told = Console(file=io.StringIO(), width=200)
        with told.capture() as caught:
            told.print(self.display._render())
        return caught.get().splitlines()[0].partition("gone")[2].strip(" ,")


def test_the_time_left_is_told_from_the_first_epoch_and_kept_right(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, Durations(place.plan, place.data, place.stores))
    display, cells = watched.display, place.plan.cells[:3]
    cells = [dataclasses.replace(cells[0], seed=seed) for seed in range(3)]  # of one recipe, 20 epochs
    display.begin("study", total=3, done=0, waiting=[cell.variant.recipe for cell in cells], slots=SLOTS)
    for slot, cell in zip(SLOTS, cells, strict=False):
        display.started(slot, cell)
        display.progressed(slot, Progress(0, 20, None, 0.0))
    assert watched.left() == ""
    watched.now = 1010
    for slot in SLOTS:
        display.progressed(slot, Progress(10, 20, 9.0, 10.0))
    # Of the two 10 s each, and then 20 s of the third; 2 s have gone since.
    assert watched.left() == "about 0:28 left"
    watched.now = 1021  # of which 1 s was no training
    for slot, cell in zip(SLOTS, cells, strict=False):
        display.progressed(slot, Progress(20, 20, 9.0, 20.0))
        display.ended(slot, cell, Done(9.0, 21.0), None)
    display.started(SLOTS[0], cells[2])
    assert watched.left() == "about 0:19 left"
    display.ended(SLOTS[0], cells[2], None, "killed")
    assert watched.left() == "about 0:21 left", "it is to begin again"


def test_a_part_of_a_long_epoch_is_shown_and_tells_the_time_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, Durations(place.plan, place.data, place.stores))
    display, cell = watched.display, place.plan.cells[0]
    display.begin("study", total=1, done=0, waiting=[cell.variant.recipe], slots=SLOTS[:1])
    display.started(SLOTS[0], cell)
    display.progressed(SLOTS[0], Progress(0, 20, None, 0.0))
    watched.now += 30
    display.progressed(SLOTS[0], Progress(0, 20, None, 0.0, part=0.5))
    # Half an epoch in 30 s: 20 epochs take 1200 s, of which 1170 s are left; 2 s have gone since.
    assert watched.left() == "about 19:28 left"
    told = Console(file=io.StringIO(), width=200)
    with told.capture() as caught:
        told.print(display._render())
    assert "0.5/20" in caught.get()


def test_the_time_left_is_told_at_once_where_the_record_knows_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, Durations(place.plan, place.data, place.stores))
    variants = place.plan.variants
    watched.display.learn(frame(*(place.row(variant.recipe, 9.5, 0.5) for variant in variants)))
    watched.display.begin("study", total=7, done=0, waiting=[variant.recipe for variant in variants], slots=SLOTS)
    assert watched.left() == "about 0:40 left"
    watched.display.started(SLOTS[0], place.plan.cells[0])
    watched.display.placed(SLOTS[0], "job 7", queued=True)
    assert watched.left() == "about 1:10 left", "an engine that lets one wait has no room for two"


def test_without_knowledge_no_time_is_told(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    for durations in (None, Durations(place.plan, place.data, place.stores)):
        watched = Watched(monkeypatch, durations)
        watched.display.begin("study", total=1, done=0, waiting=[place.plan.base], slots=SLOTS)
        assert watched.left() == ""
