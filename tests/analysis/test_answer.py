"""The answer in two sentences, whatever was found."""

import math
from typing import Any

import pytest

from analysis import power, stats
from analysis.answer import answer

NAN = float("nan")


def arm(name: str, difference: float, verdict: str, against: str = "plain", half: float = 1.0) -> dict[str, Any]:
    low, high = difference - half, difference + half
    row = {"variant": name, "against": against, "difference": difference, "low": low, "high": high}
    row |= {"sd_difference": half, "pairs": 5, "p": NAN if math.isnan(half) else 0.5}
    return {**row, "verdict": verdict}


NONE = [arm("dsl", -0.2, stats.NO_DIFFERENCE), arm("dhm", 0.4, stats.NO_DIFFERENCE, half=1.4)]


def test_nothing_shown_is_no_proof_of_nothing() -> None:
    assert answer(NONE, 1, 5) == (
        "None of the 2 arms is shown to differ from plain. The largest difference seen, +0.4 points of dhm, may be "
        "chance: where arms vary as these do, 5 seeds show a true difference of 2.9 points in 80 % of studies, and "
        "smaller ones in fewer."
    )
    assert f"{power.detectable(1.4, 5, power.level_of(2)):.1f}" == "2.9", "of the arm that varies most, one of two"
    assert answer(NONE, 1, 5, grown=True).endswith("of dhm, may be chance.")
    assert answer(NONE[:1], 1, 5).startswith("dsl is not shown to differ from plain. ")


def test_what_is_better_and_what_is_worse_is_named() -> None:
    arms = [*NONE, arm("wide", -2.0, stats.BETTER), arm("deep", -3.0, stats.BETTER), arm("noisy", 4.0, stats.WORSE)]
    assert answer(arms, 1, 5) == (
        "deep and wide are better than plain, and noisy is worse than plain. The largest difference shown is "
        "−3.0 points [−4.0, −2.0] of deep; none is shown for the other 2 arms."
    )


@pytest.mark.parametrize(("count", "named"), [(1, "a0 is"), (3, "a2, a1 and a0 are"), (5, "a4, a3, a2 and 2 more are")])
def test_many_arms_are_counted(count: int, named: str) -> None:
    arms = [arm(f"a{index}", -1.0 - index, stats.BETTER) for index in range(count)]
    assert answer(arms, 1, 5).startswith(f"{named} better than plain. ")


def test_arms_of_several_baselines_are_compared_with_their_own() -> None:
    several = [arm("dhm 8", -0.2, stats.NO_DIFFERENCE, "plain 8"), arm("dhm 14", 0.3, stats.NO_DIFFERENCE, "plain 14")]
    assert "differ from their baselines. " in answer(several, 1, 5)
    arms = [arm("dhm 8", -2.0, stats.BETTER, "plain 8"), arm("dhm 14", -0.2, stats.NO_DIFFERENCE, "plain 14")]
    assert answer(arms, 1, 5).startswith("dhm 8 is better than plain 8. ")


def test_an_arm_whose_differences_are_all_the_same_is_shown_without_an_interval() -> None:
    same = {**arm("dsl", -0.5, stats.BETTER, half=NAN), "sd_difference": 0.0, "p": 0.02}
    assert answer([same, *NONE], 1, 7) == (
        "dsl is better than plain. The largest difference shown is −0.5 points of dsl; none is shown for the other "
        "2 arms."
    )


def test_arms_with_too_few_seeds_are_not_passed_over_in_silence() -> None:
    few = arm("wide", -5.0, stats.TOO_FEW, half=NAN)
    assert "The largest difference seen by arms with 3 seeds or more, +0.4 points of dhm" in answer([*NONE, few], 1, 5)


def test_too_few_seeds_have_no_answer() -> None:
    assert answer([arm("dhm", -2.0, stats.TOO_FEW, half=NAN)], 1, 2) == ""
