import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis import schema
from dhm.recipe import DataSpec, Recipe
from dhm.training import Runtime
from experiments import config
from experiments.pool import Ended, Slot
from experiments.pools import arrange
from experiments.pools.parts.arrangement import Automatic
from experiments.scheduling import packing, timing
from experiments.scheduling.packing import NO_ROOM, climb
from experiments.scheduling.timing import Timed, Timing, Unfit, rate, run_timing
from tests.experiments.conftest import QUICK, Workplace

AUTO = "pool.cpu_slots=auto"


@pytest.mark.parametrize(
    ("together", "most", "tried", "at_once"),
    [
        (lambda count: 100.0 * count, 8, [1, 2, 3, 4, 6, 8], 8),
        (lambda count: 100.0 * min(count, 3), 8, [1, 2, 3, 4], 3),
        (lambda count: 100.0 + count, 8, [1, 2], 1),
        (lambda count: 100.0 / count, 8, [1, 2], 1),
        (lambda count: 100.0 * count if count < 6 else NO_ROOM, 32, [1, 2, 3, 4], 4),
        (lambda count: NO_ROOM, 8, [], 1),
        (lambda count: 100.0 * count, 5, [1, 2, 3, 4, 5], 5),
        (lambda count: 100.0 * count, 1, [1], 1),
    ],
    ids=[
        "no limit",
        "three saturate it",
        "one saturates it",
        "they hinder each other",
        "memory",
        "none",
        "five",
        "one",
    ],
)
def test_runs_are_added_until_they_bring_no_more(
    together: Callable[[int], float | str], most: int, tried: list[int], at_once: int
) -> None:
    found = climb(together, most)
    assert (list(found.images_per_s), found.at_once) == (tried, at_once)
    assert all(f"{count} at once" in found.words for count in [*tried, at_once])


def test_images_count_as_far_as_their_step_lies_in_the_window() -> None:
    steps = [(0.0, 2.0, 10), (2.0, 4.0, 10), (4.0, 8.0, 20), (9.0, 10.0, 1000)]
    assert rate(steps, 1.0, 5.0) == pytest.approx((5 + 10 + 5) / 4)


def job(**changes: Any) -> Timing:
    recipe = Recipe(arch="resnet8", epochs=1, data=DataSpec(name="digits", train_size=50, pad=0, flip=False), **changes)
    return Timing(recipe=recipe, seed=0, runtime=Runtime(parts=()))


def test_a_short_recipe_is_trained_again_until_it_is_told_to_stop() -> None:
    told: list[float] = []
    found = run_timing(job(), told.append, lambda: len(told) > 4)
    assert isinstance(found, Timed)
    assert len(found.steps) == 4 and len(told) == 5  # the first step warms up
    assert all(begin < end for begin, end, _ in found.steps)
    assert {images for _, _, images in found.steps} == {50}


@pytest.mark.parametrize(
    ("error", "failure"),
    [(torch.OutOfMemoryError("CUDA out of memory"), schema.OUT_OF_MEMORY), (ValueError("bad"), schema.ERROR)],
)
def test_a_run_that_cannot_go_on_says_why(
    error: Exception, failure: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(timing, "fit", fails)
    found = run_timing(job(), lambda _: None, lambda: False)
    assert isinstance(found, Unfit) and found.failure == failure and str(error) in found.message


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch for a moment, on a machine that is quiet."""
    monkeypatch.setattr(timing, "SECONDS", 0.1)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def test_what_is_measured_is_told_and_remembered_and_changes_no_result(
    workplace: Workplace, methods: Workplace, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert workplace.run("grid=methods", "seeds=1", AUTO) == 0
    told = capfd.readouterr().out
    assert "pool.cpu_slots=auto, timed with steps of 'dhm': 1 at once" in told
    (kept,) = json.loads((workplace.store / packing.FILE).read_text()).values()
    assert f"{kept['ended']}: {kept['at_once']} at once" in told
    assert f"to run on {kept['at_once']} slot" in told

    assert workplace.run("grid=methods", "seeds=1", AUTO) == 0
    told = capfd.readouterr().out
    assert f"pool.cpu_slots=auto: {kept['at_once']} at once, as measured before" in told
    assert packing.FILE in told

    mine = workplace.records().set_index(schema.CELL_ID)[schema.FINAL_TOP1]
    theirs = methods.records().set_index(schema.CELL_ID)[schema.FINAL_TOP1]
    assert len(mine) == 3 and mine.to_dict() == theirs[mine.index].to_dict()


def test_other_settings_are_measured_for_themselves(
    workplace: Workplace, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    monkeypatch.setattr(packing.Packer, "_timed", lambda self, places, *_: tries.append(len(places.slots)) or 1.0)
    words = ("grid=methods", "seeds=1", "factors.method=[plain]", "epochs=1", AUTO)
    assert workplace.run(*words) == 0
    measured = len(tries)
    assert measured and workplace.run(*words) == 0 and len(tries) == measured
    assert workplace.run(*words, "pool.channels_last=true") == 0 and len(tries) == 2 * measured


def test_what_a_busy_machine_shows_is_not_kept(
    workplace: Workplace, quick: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    monkeypatch.setattr(packing.Packer, "_timed", lambda *_: 1.0)
    assert workplace.run("grid=methods", "seeds=1", "factors.method=[plain]", "epochs=1", AUTO) == 0
    assert "kept the machine busy (load 99.0)" in capfd.readouterr().out
    assert not (workplace.store / packing.FILE).exists()


def test_runs_that_would_not_fit_into_memory_are_not_started(
    workplace: Workplace, quick: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packing, "free_memory", lambda: 2**20)
    monkeypatch.setattr("experiments.pools.local._cores", lambda: 4)
    assert workplace.run("grid=methods", "seeds=1", "factors.method=[plain]", "epochs=1", AUTO) == 0
    told = capfd.readouterr().out
    assert f"images/s; {NO_ROOM}: 1 at once" in told and "2 at once" not in told


def test_a_recipe_that_fails_is_a_mistake_that_is_told(
    workplace: Workplace, quick: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failed = Ended(Slot(index=0, device="cpu", visible=""), Unfit(schema.ERROR, "ValueError: bad"))
    monkeypatch.setattr(packing, "watch", lambda pool: (pool.stop(), ([failed], (0.0, 1.0)))[1])
    assert workplace.run("grid=methods", "seeds=1", AUTO) == 2
    told = capfd.readouterr().err
    assert "nothing was started: 'dhm' fails at its first steps, with ValueError: bad" in " ".join(told.split())


def test_gpus_are_filled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("experiments.pools.local._cores", lambda: 12)
    settings = config.read([word for word in QUICK if "pool" not in word] + ["pool.slots_per_gpu=auto"])
    automatic = arrange(config.pool_of(settings), 1).automatic
    assert isinstance(automatic, Automatic)
    assert (automatic.setting, automatic.most) == ("pool.slots_per_gpu", 6)
    packed = automatic.arranged(3)
    assert [slot.visible for slot in packed.slots] == ["0", "1"] * 3
    assert (packed.workers, packed.automatic) == (2, None)
    assert packed.slots[0].device == "cuda"


def test_without_auto_nothing_is_measured(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "climb", lambda *_: pytest.fail("it was measured"))
    assert workplace.run("grid=methods", "seeds=1", "factors.method=[plain]", "epochs=1") == 0
    assert not Path(workplace.store / packing.FILE).exists()
