"""The rule by which seeds are added: its error rate is shown by simulation, on seeded draws."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats as reference

from analysis import sequential, stats
from analysis.coverage import coverage
from analysis.effects import effects
from analysis.plan import Plan
from analysis.summary import summary
from analysis.tables import comparison, matrix
from tests.analysis import made

LOOKS = (5, 10, 15, 20)
SIMULATED = 40_000


def looked_at(differences: np.ndarray, at: tuple[int, ...] = LOOKS) -> np.ndarray:
    """p values of the paired t test at every look, in the last axis."""
    return np.stack([reference.ttest_1samp(differences[..., :n], 0, axis=-1).pvalue for n in at], axis=-1)


def differences(arms: int, studies: int, shift: float = 0.0, seeds: int = 20) -> np.ndarray:
    """Arms and their one baseline, so that comparisons hang together as those of a grid do."""
    draw = np.random.default_rng([arms, seeds])
    return draw.normal(size=(studies, arms, seeds)) - draw.normal(size=(studies, 1, seeds)) + shift


def test_looking_often_without_the_rule_is_what_it_is_for() -> None:
    found = looked_at(differences(1, SIMULATED // 4))
    assert (found.min(axis=-1) < 0.05).mean() > 0.12


@pytest.mark.parametrize("at", [LOOKS, (3, 6, 9, 12, 15, 18, 20), (3, 20)])
@pytest.mark.parametrize("arms", [1, 6])
def test_the_false_positive_rate_of_a_grid_stays_under_five_percent(at: tuple[int, ...], arms: int) -> None:
    found = sequential.p_values(at, looked_at(differences(arms, SIMULATED // arms), at))
    # Holm's correction shows something just where it shows the smallest.
    assert (found.min(axis=1) * arms < 0.05).mean() < 0.05


def test_a_true_difference_beside_does_not_raise_the_rate_of_the_others() -> None:
    shift = np.array([3.0, 3.0, 0.0, 0.0])[None, :, None]
    found = sequential.p_values(LOOKS, looked_at(differences(4, 5000, shift)))
    adjusted = np.array([stats.holm(list(row)) for row in found])
    assert (adjusted[:, :2] < 0.05).mean() > 0.95
    assert (adjusted[:, 2:].min(axis=1) < 0.05).mean() < 0.05


def test_boundaries_are_those_of_the_literature() -> None:
    # Five equal looks at 5 %, spending of Pocock's type: 2.438, 2.427, 2.410, 2.397, 2.386 (Lan and DeMets).
    found = [reference.norm.isf(level / 2) for level in sequential.nominal((1, 2, 3, 4, 5))]
    assert found == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.002)
    assert sequential.nominal((20,)) == pytest.approx((0.05,)), "one look spends all"


def test_boundaries_spend_what_is_to_be_spent() -> None:
    draw = np.random.default_rng(0)
    walks = draw.normal(size=(200_000, 20)).cumsum(axis=1)[:, [n - 1 for n in LOOKS]] / np.sqrt(LOOKS)
    beyond = np.abs(walks) > reference.norm.isf(np.array(sequential.nominal(LOOKS)) / 2)
    spent = [(beyond[:, : k + 1].any(axis=1)).mean() for k in range(4)]
    expected = [0.05 * math.log(1 + (math.e - 1) * n / 20) for n in LOOKS]
    assert spent == pytest.approx(expected, abs=0.002)


def test_a_sequential_p_value_never_grows_and_agrees_with_the_boundaries() -> None:
    p = looked_at(differences(1, 500, shift=0.5))[:, 0, :]
    found = np.stack([sequential.p_values(LOOKS, p[:, : k + 1]) for k in range(4)], axis=-1)
    assert (np.diff(found, axis=1) <= 0).all() and (found <= 1).all() and (found > 0).all()
    bounds = np.array(sequential.nominal(LOOKS, sequential.CALIBRATION * stats.LEVEL))
    decided = (p <= bounds).cumsum(axis=1) > 0
    assert ((found <= stats.LEVEL) == decided).mean() > 0.999


def test_a_look_without_a_p_value_decides_nothing() -> None:
    one, both = sequential.p_values(LOOKS, np.array([[math.nan, 0.001], [0.5, 0.001]]))
    assert one == both < 0.05
    assert sequential.p_values(LOOKS, np.array([[math.nan]]))[0] == 1.0


def test_comparisons_at_a_look_ignore_seeds_that_come_after_it() -> None:
    draw = np.random.default_rng(1)
    arm, baseline = (dict(enumerate(draw.normal(10, 1, 20))) for _ in range(2))
    found = sequential.compare(LOOKS, arm, baseline, range(12))
    plain = stats.paired({s: arm[s] for s in range(10)}, baseline)
    assert (found.n, found.mean, found.sd) == (10, plain.mean, plain.sd)
    assert found.low < plain.low and found.high > plain.high, "looking twice has its price"
    assert found.p > plain.p


def test_repeated_intervals_cover_the_truth_at_all_looks_together() -> None:
    draw = np.random.default_rng(2)
    missed = 0
    for values in draw.normal(0.7, 1, (1500, 20)):
        arm, nothing = dict(enumerate(values)), dict.fromkeys(range(20), 0.0)
        spans = [sequential.compare(LOOKS, arm, nothing, range(n)) for n in LOOKS]
        missed += any(not span.low <= 0.7 <= span.high for span in spans)
    assert missed / 1500 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1500)


def arms(**shifts: float) -> dict[str, dict[int, float]]:
    draw = np.random.default_rng(5)
    base = draw.normal(10, 1, 20)
    return {"plain": dict(enumerate(base))} | {
        name: dict(enumerate(base + shift + draw.normal(0, 0.5, 20))) for name, shift in shifts.items()
    }


def needed(known: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    return sequential.counts(
        LOOKS, list(known), {name: "plain" for name in known if name != "plain"}, known.__getitem__
    )


def test_open_comparisons_get_seeds_and_decided_ones_do_not() -> None:
    known = arms(dsl=0.0, dhm=-5.0)
    first = {name: {s: e for s, e in own.items() if s < 5} for name, own in known.items()}
    assert needed({**first, "dhm": {}}) == {"plain": 5, "dsl": 5, "dhm": 5}, "nobody goes on before all are there"
    assert needed(first) == {"plain": 10, "dsl": 10, "dhm": 5}
    assert needed(known) == {"plain": 20, "dsl": 20, "dhm": 5}, "the last look is the last"
    assert needed(arms(dsl=-5.0, dhm=-5.0)) == {"plain": 5, "dsl": 5, "dhm": 5}


def test_a_baseline_goes_on_with_its_own_arms_alone() -> None:
    known = arms(dsl=0.0, dhm=-5.0)
    known["other"] = known["plain"]
    found = sequential.counts(LOOKS, list(known), {"dsl": "plain", "dhm": "other"}, known.__getitem__)
    assert found == {"plain": 20, "dsl": 20, "dhm": 5, "other": 5}


@pytest.mark.parametrize(("every", "most", "expected"), [(5, 20, LOOKS), (4, 10, (4, 8, 10)), (6, 6, (6,))])
def test_looks(every: int, most: int, expected: tuple[int, ...]) -> None:
    assert sequential.looks(every, most) == expected


def test_looks_that_can_tell_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="look_every=2"):
        sequential.looks(2, 20)
    with pytest.raises(ValueError, match="max_seeds=4"):
        sequential.looks(5, 4)


@pytest.fixture
def grown() -> made.GridData:
    """Two arms of which one was decided at five seeds and the other went on to ten of twenty."""
    grid = made.grid({"method": ["plain", "dsl", "dhm"]}, seeds=10)
    counts = {"plain": 10, "dsl": 10, "dhm": 5}
    known = arms(dsl=0.0, dhm=-5.0)
    runs = grid.runs[[row["seed"] < counts[row["variant"]] for row in grid.runs.to_dict("records")]].copy()
    runs["final/top1_error"] = [known[r["variant"]][r["seed"]] for r in runs.to_dict("records")]
    plan = dataclasses.replace(grid.plan, sequential={"looks": list(LOOKS), "seeds": counts})
    return dataclasses.replace(grid, plan=plan, runs=runs)


def test_a_grown_grid_is_complete_with_the_seeds_that_it_was_given(grown: made.GridData) -> None:
    assert len(coverage(grown.plan, grown.runs)) == 25 and not grown.remarks
    assert grown.plan.command.endswith("seeds=auto")
    holey = dataclasses.replace(grown, runs=grown.runs[:-1])
    assert "1 of 25 cells are absent: dhm seed 4" in holey.remarks[0]


def test_a_grown_grid_is_judged_by_the_rule_and_says_so(grown: made.GridData) -> None:
    rows = effects(grown).set_index("variant")
    known = {name: grown.by_seed(name) for name in grown.plan.names}
    fixed = stats.paired(known["dhm"], known["plain"])
    assert rows.loc["dhm", "pairs"] == 5 and rows.loc["dhm", "p"] > fixed.p and rows.loc["dhm", "low"] < fixed.low
    assert list(rows["verdict"]) == ["", stats.OPEN, stats.BETTER]
    caption = comparison.build(grown).caption
    assert "looks after 5, 10, 15, 20" in caption and "5 to 10 seeds (from 0)" in caption
    assert "Student" not in caption and "power" not in caption
    told = summary(grown.plan, grown.runs)
    assert "5 to 10 seeds" in told and "group-sequential" in told and "open, more seeds to come" in told


def test_at_the_last_look_nothing_is_open(grown: made.GridData) -> None:
    plan = dataclasses.replace(grown.plan, sequential={**grown.plan.sequential, "looks": [5, 10]})
    assert effects(dataclasses.replace(grown, plan=plan))["verdict"].tolist()[1] == stats.NO_DIFFERENCE


def test_the_rule_is_kept_with_the_plan() -> None:
    grid = made.grid({"method": ["plain", "dhm"], "data.label_noise": [0.0, 0.4]}, seeds=5)
    record = {
        **dataclasses.asdict(grid.plan),
        "sequential": {"looks": [5, 10], "seeds": dict.fromkeys(grid.plan.names, 5)},
    }
    plan = Plan.from_record(record, experiment="digits/made", experiment_id="1")
    assert plan.looks == (5, 10) and plan.seeds_of(plan.baseline) == (0, 1, 2, 3, 4)
    assert "looks after 5, 10" in matrix.build(dataclasses.replace(grid, plan=plan)).caption
