"""What a run says while it goes on."""

import dataclasses
from typing import Any

import pytest

from analysis import schema
from dhm.engine import fit
from experiments import trial
from experiments.benchmarks import BENCHMARKS
from experiments.trial import Progress, class_of


def said(monkeypatch: pytest.MonkeyPatch, every: float) -> list[Progress]:
    """The words of a run of two epochs."""
    monkeypatch.setattr(trial, "PART_EVERY", every)
    words: list[Any] = []
    recipe = dataclasses.replace(BENCHMARKS.get("digits").base(), epochs=2)
    fit(recipe, 0, callbacks=[trial._Reporter(words.append, lambda: False, "test/top1_error")])
    return words


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("CUDA error: out of memory", schema.OUT_OF_MEMORY),
        ("NCCL error: Cuda failure 2 'out of memory'", schema.OUT_OF_MEMORY),
        ("GET was unable to find an engine to execute this computation", schema.OUT_OF_MEMORY),
        ("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", schema.OUT_OF_MEMORY),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", schema.OUT_OF_MEMORY),
        ("CUDNN_STATUS_NOT_INITIALIZED", schema.OUT_OF_MEMORY),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate", schema.OUT_OF_MEMORY),
        ("Expected all tensors to be on the same device", schema.ERROR),
    ],
)
def test_want_of_memory_is_known_by_its_words(message: str, failure: str) -> None:
    assert class_of(RuntimeError(message)) == failure


def test_a_run_tells_of_parts_of_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    words = said(monkeypatch, every=-1.0)
    parts = [word.part for word in words if word.epoch == 0]
    assert parts[0] == 0 and parts == sorted(set(parts)) and parts[1] > 0 and parts[-1] < 1
    assert [word.epoch for word in words if not word.part] == [0, 1, 2]


def test_a_run_of_short_epochs_tells_of_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(word.epoch, word.part) for word in said(monkeypatch, every=600.0)] == [(0, 0), (1, 0), (2, 0)]
