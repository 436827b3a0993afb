"""Searches: what is proposed, given up, continued and selected, and what is looked at meanwhile."""

import collections
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from analysis import build, coverage, schema
from analysis import store as reader
from analysis.search import selected
from dhm.engine import fit
from dhm.fields import identity, replace_at
from dhm.training import Runtime
from experiments import report, status
from experiments.grid import GRIDS, Plan
from experiments.pool import Ended, Slot, Stopped, Word
from experiments.progress import Display
from experiments.recording.provenance import collect
from experiments.recording.tracking import Tracker
from experiments.run import main
from experiments.scheduling.options import Options
from experiments.scheduling.searcher import Searcher, Selection
from experiments.search import PRUNERS, Range, Search
from experiments.stores import Stores
from experiments.study import Request, make_plan, with_selected
from experiments.trial import Done, Job, Opened, Progress
from tests.experiments.conftest import Workplace
from tests.experiments.test_scheduler import FakePool, failed, opened

NAME = "mimicking_weight_search"
EPOCHS = 8
WORDS = (f"grid={NAME}", "study.trials=4")


class TalkingPool(FakePool):
    """Each run tells an error after each epoch, leaves when it is asked to, and records what a real one would."""

    def __init__(self, tracker: Tracker, error_of: Callable[[Job, int], float], die_at: tuple[int, int] = (99, 99)):
        super().__init__(lambda job: None)
        self._tracker, self._error_of, self._die_at = tracker, error_of, die_at
        self._jobs: dict[int, tuple[Job, int]] = {}
        self._asked: set[int] = set()
        self._unsaid: list[Word] = []
        self.run_ids: list[str] = []
        self.epochs: collections.Counter[str] = collections.Counter()

    def start(self, slot: Slot, job: Job, log: str) -> None:
        self.started.append(job)
        self._jobs[slot.index] = job, 0
        self.run_ids.append(opened(job).run_id)
        self._unsaid.append(Word(slot, Opened(self.run_ids[-1])))

    def stop(self, slot: Slot | None = None) -> None:
        self._asked |= set(self._jobs) if slot is None else {slot.index}

    def wait(self, timeout: float) -> list[Word | Ended]:
        if self._unsaid:
            return [self._unsaid.pop()]
        for index, (job, epoch) in list(self._jobs.items()):
            slot = self.slots[index]
            if index in self._asked:
                return [self._over(slot, Stopped())]
            if epoch == job.recipe.epochs:
                self._tracker._client.set_terminated(self.run_ids[-1])
                return [self._over(slot, Done(self._error_of(job, epoch), 0.1))]
            if (len(self.started), epoch) == self._die_at:
                raise KeyboardInterrupt
            error = self._error_of(job, epoch + 1)
            self._jobs[index] = job, epoch + 1
            self.epochs[job.cell_id] += 1
            self._tracker._client.log_metric(self.run_ids[-1], job.judged_by, error, step=epoch)
            return [Word(slot, Progress(epoch + 1, job.recipe.epochs, error, 0.1))]
        return []

    def _over(self, slot: Slot, outcome: Done | Stopped) -> Ended:
        self._asked.discard(slot.index)
        del self._jobs[slot.index]
        return Ended(slot, outcome=outcome)


def alpha_alone(job: Job, epoch: int) -> float:
    """The nearer alpha is to 1 the better; the temperature makes no difference."""
    assert job.recipe.mimic is not None
    return 5 + 10 * abs(job.recipe.mimic.alpha - 1) + 40 / epoch


def planned(place: Workplace, trials: int) -> tuple[Plan, Searcher, TalkingPool]:
    return prepared(place, trials, alpha_alone)


def prepared(
    place: Workplace, trials: int, error_of: Callable[[Job, int], float], **options: object
) -> tuple[Plan, Searcher, TalkingPool]:
    stores = Stores(root=place.store)
    stores.prepare()
    plan, data = make_plan(Request(grid=NAME, trials=trials, seeds=2, overrides={"epochs": EPOCHS}), stores)
    tracker = Tracker(stores)
    die_at = options.pop("die_at", (99, 99))
    pool = TalkingPool(tracker, error_of, die_at)  # type: ignore[arg-type]
    searcher = Searcher(
        plan=plan,
        data=data,
        pool=pool,
        stores=stores,
        tracker=tracker,
        provenance=collect(),
        display=Display(Console(file=io.StringIO())),
        options=Options(**options),  # type: ignore[arg-type]
    )
    return plan, searcher, pool


def tried(place: Workplace, plan: Plan) -> list[dict]:
    assert isinstance(plan.grid, Search)
    frame = reader.trials(place.uri, plan.grid.search_id(plan), list(plan.grid.space))
    return frame.to_dict("records")


def settings(pool: TalkingPool) -> list[tuple[float, float]]:
    return [(job.recipe.mimic.alpha, job.recipe.mimic.temperature) for job in pool.started if job.recipe.mimic]


def test_a_search_gives_up_what_others_beat_and_tells_what_matters(workplace: Workplace) -> None:
    plan, searcher, pool = prepared(workplace, 24, alpha_alone)
    selection = searcher.run()
    rows = tried(workplace, plan)
    states = collections.Counter(row["state"] for row in rows)
    assert set(states) == {coverage.DONE, coverage.PRUNED} and sum(states.values()) == 24
    assert (searcher.outcome.done, searcher.outcome.pruned) == (states[coverage.DONE], states[coverage.PRUNED])
    assert searcher.outcome.saved == pytest.approx(1 - sum(pool.epochs.values()) / (24 * EPOCHS))
    told = Console(file=io.StringIO(), width=200)
    report.trials(told, plan, selection, searcher.outcome)
    shown = f"{states[coverage.PRUNED]} given up, which saved {searcher.outcome.saved:.0%} of the epochs"
    assert shown in told.file.getvalue()  # type: ignore[attr-defined]
    for row in rows:
        assert pool.epochs[row[schema.TRIAL_ID]] == row[schema.EPOCHS]
        assert (row[schema.EPOCHS] == EPOCHS) == (row["state"] == coverage.DONE)
        assert row["status"] == ("FINISHED" if row["state"] == coverage.DONE else "KILLED")
    assert {row["state"] for row in rows[:5]} == {coverage.DONE}, "not before there is something to hold it against"
    ended = [row for row in rows if row["state"] == coverage.DONE]
    best = min(ended, key=lambda row: (row[schema.VAL_TOP1], row[schema.TRIAL_NUMBER]))
    assert selection is not None and selection.document["selected"] == best[schema.TRIAL_NUMBER]
    assert selection.setting == {path: best[path] for path in ("mimic.alpha", "mimic.temperature")}
    assert 0.5 < selection.setting["mimic.alpha"] < 1.5, "it found its way"
    importance = selection.document["importance"]
    assert importance["mimic.alpha"] > 0.8 and sum(importance.values()) <= 1 + 1e-9


def test_a_search_that_was_cut_short_says_what_is_missing(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    _, searcher, _ = prepared(workplace, 9, alpha_alone, die_at=(3, 2))
    with pytest.raises(KeyboardInterrupt):
        searcher.run()
    assert build.main([f"store={workplace.store}", f"out={workplace.root / 'out'}"]) == 1
    assert "The search has selected nothing yet." in capsys.readouterr().err
    assert (workplace.root / "out" / "coverage.md").is_file()
    assert status.main([f"store={workplace.store}", "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["plans"]
    assert (plan["trials"]["done"], plan["trials"]["missing"]) == (2, 6) and sum(plan["trials"].values()) == 9
    assert status.main([f"store={workplace.store}"]) == 0
    assert "to go on: python -m experiments.run" in capsys.readouterr().out


def test_importance_leaves_out_what_parameters_do_together(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRUNERS, "median", PRUNERS["none"])

    def crossed(job: Job, epoch: int) -> float:
        assert job.recipe.mimic is not None
        return 20.0 + 5.0 * ((job.recipe.mimic.alpha > 0.5) == (job.recipe.mimic.temperature > 2.0))

    _, searcher, _ = prepared(workplace, 40, crossed)
    selection = searcher.run()
    assert selection is not None and sum(selection.document["importance"].values()) < 0.8


def test_what_was_found_is_compared_with_the_arm_s_own_setting(workplace: Workplace) -> None:
    plan, searcher, _ = prepared(workplace, 3, alpha_alone)
    selection = searcher.run()
    assert selection is not None and isinstance(plan.grid, Search)
    request = Request(grid=NAME, trials=3, seeds=2, overrides={"epochs": EPOCHS})
    whole = with_selected(plan, request, selection)
    own, found = [variant for variant in whole.variants if variant.recipe.mimic is not None]
    assert (own.recipe.mimic.alpha, own.recipe.mimic.temperature) == (1, 1) and own.baseline == "dsl"  # type: ignore[union-attr]
    assert found.baseline == own.name
    same = dataclasses.replace(selection, setting={"mimic.alpha": 1.0, "mimic.temperature": 1.0})
    assert [v.baseline for v in with_selected(plan, request, same).variants] == [None, "dsl"]


def test_it_continues_and_proposes_what_it_would_have_proposed(workplace: Workplace, tmp_path: Path) -> None:
    other = Workplace(tmp_path / "other")
    other.store.mkdir(parents=True)
    (other.store / "mlflow.db").write_bytes((workplace.store / "mlflow.db").read_bytes())
    _, whole, at_once = planned(other, 14)
    whole.run()
    _, first, before = planned(workplace, 11)
    first.run()
    _, again, after = planned(workplace, 14)
    assert again.run() is not None
    assert settings(before) + settings(after) == settings(at_once)
    assert len(set(settings(at_once))) == 14
    plan, none_left, idle = planned(workplace, 14)
    assert none_left.run() is not None and not idle.started
    assert [row[schema.TRIAL_NUMBER] for row in tried(workplace, plan)] == list(range(14))


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_what_a_dead_searcher_left_goes_on_first_in_its_own_record(workplace: Workplace, journal: str) -> None:
    plan, searcher, pool = prepared(workplace, 4, alpha_alone, die_at=(3, 2))
    with pytest.raises(KeyboardInterrupt):
        searcher.run()
    rows = tried(workplace, plan)
    assert [row["state"] for row in rows] == [coverage.DONE, coverage.DONE, coverage.MISSING], (
        "whose lock nobody holds is not running"
    )
    if journal == "lost":
        (workplace.store / "optuna.journal").unlink()
    _, again, resumed = planned(workplace, 4)
    assert again.run() is not None
    assert resumed.run_ids[0] == rows[2]["run_id"]
    assert resumed.started[0].cell_id == pool.started[2].cell_id
    assert len(resumed.started) == 2
    now = tried(workplace, plan)
    assert [row[schema.TRIAL_NUMBER] for row in now] == [0, 1, 2, 3]
    assert [row[schema.ATTEMPTS] for row in now] == [1, 1, 2, 1]


def test_trials_that_fail_count_and_are_not_selected(workplace: Workplace) -> None:
    plan, searcher, _ = planned(workplace, 3)
    failing = FakePool(lambda job: failed(schema.NOT_FINITE, "NotFiniteError at engine.py:1"))
    searcher._pool = failing
    assert searcher.run() is None
    assert len(failing.started) == 3 and len(searcher.outcome.failed) == 3
    _, again, idle = planned(workplace, 3)
    assert again.run() is None and not idle.started
    _, retried, pool = prepared(workplace, 3, alpha_alone, retry="failed")
    assert retried.run() is not None and len(pool.started) == 3
    assert [row["state"] for row in tried(workplace, plan)] == [coverage.DONE] * 3


def test_of_equal_errors_the_earlier_is_selected_and_none_that_was_given_up(workplace: Workplace) -> None:
    plan, searcher, _ = prepared(workplace, 7, lambda job, epoch: 20.0)
    selection = searcher.run()
    assert selection is not None and selection.document["selected"] == 0
    assert selection.document["importance"] == {}, "too few tell"
    assert isinstance(plan.grid, Search)
    frame = reader.trials(workplace.uri, plan.grid.search_id(plan), list(plan.grid.space))
    frame.loc[frame[schema.TRIAL_NUMBER] == 3, schema.VAL_TOP1] = 1.0
    frame.loc[frame[schema.TRIAL_NUMBER] == 3, "state"] = coverage.PRUNED
    frame.loc[frame[schema.TRIAL_NUMBER] == 5, schema.VAL_TOP1] = 19.0
    best = selected(frame)
    assert best is not None and best[schema.TRIAL_NUMBER] == 5
    assert selected(frame[frame["state"] == coverage.PRUNED]) is None


def test_the_selected_setting_is_one_more_arm_on_all_training_images(tmp_path: Path) -> None:
    request = Request(grid=NAME, seeds=2)
    plan, _ = make_plan(request, Stores(root=tmp_path))
    assert [variant.name for variant in plan.variants] == ["dsl", "dhm"]
    assert isinstance(plan.grid, Search)
    for found, names in (
        ({"mimic.alpha": 0.4, "mimic.temperature": 2.5}, ["dsl", "dhm alpha 1 T 1", "dhm alpha 0.4 T 2.5"]),
        ({"mimic.alpha": 1.0, "mimic.temperature": 2.5}, ["dsl", "dhm T 1", "dhm T 2.5"]),
        ({"mimic.alpha": 1.0, "mimic.temperature": 1.0}, ["dsl", "dhm"]),
    ):
        whole = with_selected(plan, request, Selection(trial="", error=0.0, setting=found, document={}))
        assert [variant.name for variant in whole.variants] == names
        assert {variant.recipe.data.val_fraction for variant in whole.variants} == {0.0}
        assert whole.plan_id == plan.plan_id
    trial = plan.grid.trial(plan, 7, {"mimic.alpha": 0.4, "mimic.temperature": 2.5})
    assert trial.name == "trial 7 alpha 0.4 T 2.5" and trial.seed not in range(100)
    arm = replace_at(replace_at(plan.variants[1].recipe, "mimic.alpha", 0.4), "mimic.temperature", 2.5)
    assert trial.variant.recipe == replace_at(arm, "data.val_fraction", 0.2)
    assert schema.CELL_ID not in trial.tags and trial.tags[schema.ROLE] == schema.TRIAL
    bigger = dataclasses.replace(plan.grid, trials=99)
    assert bigger.search_id(plan) == plan.grid.search_id(plan), "more trials are the same search"


def test_a_trial_has_no_test_images(tmp_path: Path) -> None:
    plan, data = make_plan(Request(grid=NAME, overrides={"epochs": 1}), Stores(root=tmp_path))
    assert isinstance(plan.grid, Search)
    trial = plan.grid.trial(plan, 0, {"mimic.alpha": 1.0, "mimic.temperature": 1.0})
    result = fit(trial.variant.recipe, trial.seed, Runtime(parts=trial.parts), data=data)
    assert not [name for name in result.history[-1].metrics if "test" in name]
    assert (result.final, result.best, result.class_errors) == ({}, {}, {})
    both = fit(trial.variant.recipe, trial.seed, Runtime(), data=data)
    assert both.history[-1].metrics[trial.judged_by] == result.history[-1].metrics[trial.judged_by]
    assert "val_fraction" in json.dumps(identity(trial.variant.recipe)), "and the switch is no part of the recipe"
    assert "parts" not in json.dumps(identity(trial.variant.recipe))


def test_a_real_search_from_the_command_line(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert workplace.run(*WORDS, "plan=true") == 0
    assert "0 done, 0 given up, 0 failed, 4 missing" in " ".join(capsys.readouterr().out.split())
    assert workplace.run(*WORDS) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "search with 4 trials, 0 done, 4 to run" in shown
    assert "4 trials done, 0 given up (4 trained to the end now). Selected: trial" in shown
    assert "3 variants x 2 seeds = 6 cells, 0 done, 6 to run" in shown

    client = MlflowClient(workplace.uri)
    (plan,) = reader.plans(workplace.uri)
    assert plan.search is not None
    runs = client.search_runs([plan.experiment_id])
    trials = [run for run in runs if run.data.tags[schema.ROLE] == schema.TRIAL]
    assert (len(runs), len(trials)) == (10, 4)
    for run in trials:
        assert not [name for name in run.data.metrics if "test" in name or name.startswith(("final/", "best/"))]
        points = client.get_metric_history(run.info.run_id, schema.VAL_TOP1)
        assert [point.step for point in points] == [0, 1]
        assert {"mimic.alpha", "mimic.temperature"} <= set(run.data.params)
    best = min(trials, key=lambda r: (r.data.metrics[schema.VAL_TOP1], int(r.data.tags[schema.TRIAL_NUMBER])))
    assert plan.search["selected"] == int(best.data.tags[schema.TRIAL_NUMBER])
    arm = next(v for v in plan.variants if str(v.factors["mimic.alpha"]) == best.data.params["mimic.alpha"])
    assert str(arm.factors["mimic.temperature"]) == best.data.params["mimic.temperature"]

    cells = workplace.records()
    assert len(cells) == 6 and set(cells[schema.ROLE]) == {schema.BASELINE, schema.ARM}, "trials are no cells"
    view = json.loads(client.get_experiment(plan.experiment_id).tags[schema.VIEW_TAG + plan.plan_id])
    assert len(client.search_runs([plan.experiment_id], view["searchFilter"])) == 6
    (folder,) = (workplace.root / "results" / "digits").iterdir()
    for name in ("comparison.md", "trials.md", "trials.json", "search.png", "search.json"):
        assert (folder / name).stat().st_size > 0

    assert workplace.run(*WORDS) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert "4 done, 0 to run" in again and "6 done, 0 to run" in again
    assert len(client.search_runs([plan.experiment_id])) == 10
    assert workplace.run(*WORDS, "plan=true", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trials"] == {"done": 4, "pruned": 0, "failed": 0, "missing": 0} and told["cells"]["done"] == 6
    assert workplace.run(*WORDS, "plan=true") == 0
    assert "6 cells: 6 done" in " ".join(capsys.readouterr().out.split())
    assert not list((workplace.store / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["study.trials=0"], ["study.trials=0", "at least 1"]),
        (["data.val_fraction=0"], ["data.val_fraction=0", "data.val_fraction=0.2"]),
        (["data.val_fraction=0.99"], ["0.99", "train on"]),
        (["seeds=[0,1000]"], ["1000", "trials"]),
        (["factors.mimic.alpha=[1,2]"], ["factor of grid mimicking_weight_search", "mimic.alpha"]),
        (["grid=methods", "study.trials=3"], ["methods", "no search"]),
        (["factors.method=[dsl,plain]"], ["arm", "method", "dsl, plain"]),
    ],
)
def test_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: list[str]) -> None:
    assert main([f"grid={NAME}", *words, f"store={tmp_path / 'store'}", f"results={tmp_path / 'results'}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for word in expected:
        assert word in line
    assert not (tmp_path / "store" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"mimic.alhpa": Range(low=1, high=2)}}, ["mimic.alhpa", "Did you mean 'mimic.alpha'"]),
        ({"space": {"mimic.alpha": Range(low=2, high=2)}}, ["mimic.alpha", "from 2 to 2"]),
        ({"space": {"mimic.alpha": Range(low=3, high=2)}}, ["mimic.alpha", "from 3 to 2"]),
        ({"space": {"mimic.alpha": Range(low=0, high=2, log=True)}}, ["mimic.alpha", "logarithm"]),
        ({"space": {"mimic.alpha": Range(low=-1, high=2)}}, ["mimic.alpha=-1", "negative"]),
        ({"space": {}}, ["empty"]),
        ({"pruner": "medain"}, ["medain", "Did you mean 'median'"]),
        ({"arm": {"method": "dsl"}}, ["changes nothing", "dsl"]),
    ],
)
def test_a_search_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict, expected: list[str]
) -> None:
    search = GRIDS.get(NAME)
    fresh = {"factors": {"method": ["dsl", "dhm"]}, **changes}
    monkeypatch.setitem(GRIDS._values, "odd", dataclasses.replace(search, name="odd", **fresh))
    with pytest.raises(ValueError) as caught:
        make_plan(Request(grid="odd"), Stores(root=tmp_path))
    for word in expected:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("epochs", [1, 2, 20, 300])
def test_every_pruner_fits_any_length(name: str, epochs: int) -> None:
    import optuna

    study = optuna.create_study(pruner=PRUNERS[name](epochs))
    for number in range(8):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(float(number), epoch)
            if trial.should_prune():
                break
        study.tell(trial, float(number))
