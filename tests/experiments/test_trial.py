"""What a run says while it goes on."""

import dataclasses
from typing import Any

import pytest

from dhm.engine import fit
from experiments import trial
from experiments.benchmarks import BENCHMARKS
from experiments.trial import Progress


def said(monkeypatch: pytest.MonkeyPatch, every: float) -> list[Progress]:
    """The words of a run of two epochs."""
    monkeypatch.setattr(trial, "PART_EVERY", every)
    words: list[Any] = []
    recipe = dataclasses.replace(BENCHMARKS.get("digits").base(), epochs=2)
    fit(recipe, 0, callbacks=[trial._Reporter(words.append, lambda: False, "test/top1_error")])
    return words


def test_a_run_tells_of_parts_of_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    words = said(monkeypatch, every=-1.0)
    parts = [word.part for word in words if word.epoch == 0]
    assert parts[0] == 0 and parts == sorted(set(parts)) and parts[1] > 0 and parts[-1] < 1
    assert [word.epoch for word in words if not word.part] == [0, 1, 2]


def test_a_run_of_short_epochs_tells_of_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(word.epoch, word.part) for word in said(monkeypatch, every=600.0)] == [(0, 0), (1, 0), (2, 0)]
