"""A mistake shows before anything is trained."""

import dataclasses
from pathlib import Path

import pytest
import torch

from dhm.fields import replace_at
from dhm.losses import TERMS
from dhm.losses.base import Terms, of_each_head
from dhm.recipe import Recipe, TermSpec
from dhm.steps import Step
from dhm.training import Runtime
from experiments.benchmarks import BENCHMARKS
from experiments.scheduling import preflight
from experiments.scheduling.preflight import Probe, Probed, equal_arms, judge, run_probe
from tests.experiments.conftest import Workplace

DHM = BENCHMARKS.get("digits").base()
DSL = dataclasses.replace(DHM, mimic=None)
IDLE = replace_at(DHM, "mimic.alpha", 0.0)


def probe(**recipes: Recipe) -> Probed:
    return run_probe(Probe(recipes=recipes, seed=0, runtime=Runtime()))


def test_arms_that_must_be_equal_are_and_others_are_not() -> None:
    found = probe(dsl=DSL, idle=IDLE, dhm=DHM)
    assert found.failed is None
    assert found.weights["dsl"] == found.weights["idle"] != found.weights["dhm"]
    assert equal_arms({"dsl": DSL, "idle": IDLE, "dhm": DHM}) == [["dsl", "idle"]]
    judge(found, [["dsl", "idle"]], Path("log"))


def test_what_has_no_deterministic_kernel_is_told_with_its_remedy() -> None:
    error = "RuntimeError: pool_backward_cuda does not have a deterministic implementation, but you set it (a.py:1)"
    with pytest.raises(ValueError, match=r"'dhm' fails at its first step.*; pool\.deterministic=false trains it\."):
        judge(Probed(weights={}, failed=("dhm", error)), [], Path("log"))


def test_equal_arms_that_come_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="'dsl' and 'idle' must be equal to the bit"):
        judge(Probed(weights={"dsl": "a", "idle": "b"}), [["dsl", "idle"]], Path("log"))


def test_an_arm_whose_step_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> torch.Tensor:
        raise TypeError("the term takes something else")

    monkeypatch.setitem(TERMS._values, "broken", broken)
    found = probe(
        plain=dataclasses.replace(DSL, branches=()), mine=dataclasses.replace(DSL, terms=(TermSpec(name="broken"),))
    )
    assert list(found.weights) == ["plain"]
    with pytest.raises(
        ValueError, match=r"nothing was started: 'mine' fails .* TypeError: the term .*\.py:\d+"
    ) as caught:
        judge(found, [], Path("the-log"))
    assert "the-log" in str(caught.value)


def test_it_comes_before_training_and_only_then(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert workplace.run("grid=methods", "seeds=1", "epochs=1") == 0
    shown = capsys.readouterr().out
    assert shown.index("one step of each arm went well") < shown.index("[1/3]")
    assert workplace.run("grid=methods", "seeds=1", "epochs=1") == 0
    assert "one step" not in capsys.readouterr().out


def test_a_refusal_leaves_no_cell_behind(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(found: Probed, groups: object, log: Path) -> None:
        judge(dataclasses.replace(found, failed=("dhm", "TypeError: no (losses.py:1)")), [], log)

    monkeypatch.setattr(preflight, "judge", refuse)
    assert workplace.run("grid=methods", "seeds=1", "epochs=1") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "'dhm' fails at its first step" in line
    assert workplace.records().empty
    assert not list((workplace.store / "checkpoints").iterdir())
    monkeypatch.undo()
    assert workplace.run("grid=methods", "seeds=1", "epochs=1") == 0


def test_a_loss_that_is_not_finite_shows_at_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(logits: torch.Tensor, labels: torch.Tensor, step: Step) -> Terms:
        return of_each_head("infinite", float("inf") * logits.sum((1, 2)), step)

    monkeypatch.setitem(TERMS._values, "infinite", infinite)
    found = probe(mine=dataclasses.replace(DSL, terms=(TermSpec(name="infinite"),)))
    assert found.failed is not None and "is not finite after one step" in found.failed[1]


def test_the_small_batch_of_a_probe_leaves_something_for_every_replica() -> None:
    two = dataclasses.replace(replace_at(DSL, "optim.batch_size", 50), replicas=2)
    small = preflight._small(two, Runtime(), images=225)
    assert small.optim.batch_size == 15, "16 would leave one image for two"
    assert preflight._small(two, Runtime(), images=224).optim.batch_size == 16
