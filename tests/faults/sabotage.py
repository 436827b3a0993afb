"""Faults that happen inside a run, as an environment variable says for each method: `dhm=die:14 plain=after_finish`.

A run's process is real and so is its end; only the moment is chosen.

`python -m tests.faults.command grid=...` is the command line with such runs.
"""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dhm import checkpoint
from dhm.training import Callback, Training
from experiments.pool import Send
from experiments.scheduling.preflight import run_job
from experiments.trial import Job, run_cell

FAULT, ONCE = "DHM_FAULT", "DHM_FAULT_ONCE"
SLOW = "plain=slow dsl=slow dhm=slow"  # so that there is time to disturb a study, however fast the machine is
PAUSE = 0.05  # seconds that a slow step takes more


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def once(act: Callable[[], Any]) -> None:
    """Do it only the first time, over all processes."""
    try:
        os.close(os.open(os.environ[ONCE], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    act()


class AtStep(Callback):
    """Something happens at a step, counted from the start of training, or at every step."""

    def __init__(self, number: int | None, act: Callable[[Training], None]) -> None:
        self._number, self._act = number, act

    def on_step(self, training: Training) -> None:
        if self._number in (None, training.epoch * training.steps + training.step):
            self._act(training)


def diverge(training: Training) -> None:
    for weight in training.network.parameters():
        weight.data.fill_(float("nan"))


def explode(training: Training) -> None:
    raise RuntimeError("the model has a mistake")


def run_out_of_memory(training: Training) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def run_out_of_memory_beside_others(training: Training) -> None:
    """As on a GPU that two runs share: it fits alone."""
    if len([path for path in _beside().iterdir() if Path("/proc", path.name).exists()]) > 1:
        run_out_of_memory(training)


def _beside() -> Path:
    """A folder with a file for each run."""
    folder = Path(os.environ[ONCE]).with_name("runs")
    folder.mkdir(exist_ok=True)
    return folder


def in_checkpoint(number: int) -> None:
    """Die at the so-manieth write of a checkpoint, when half of it is on the disk."""
    written = 0
    fsync = os.fsync

    def half(descriptor: int) -> None:
        nonlocal written
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if ".ckpt." in name:
            written += 1
            if written == number:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                once(die)
        fsync(descriptor)

    checkpoint.os.fsync = half  # type: ignore[attr-defined]


def between_checkpoints(number: int) -> None:
    """Die when the old checkpoint is put aside and the new one is not yet in its place."""
    replaced = 0
    replace = Path.replace

    def count(path: Path, target: Path) -> Path:
        nonlocal replaced
        moved = replace(path, target)
        if str(target).endswith(".previous"):
            replaced += 1
            if replaced == number:
                once(die)
        return moved

    Path.replace = count  # type: ignore[assignment, method-assign]


def after_finish() -> None:
    """Die when the record is whole and nobody knows."""
    remove = checkpoint.remove

    def removed(path: Path) -> None:
        remove(path)
        once(die)

    checkpoint.remove = removed


def sabotaged(job: Any, send: Send, stop_asked: Callable[[], bool]) -> Any:
    """What runs in a slot."""
    faults = dict(fault.split("=") for fault in os.environ[FAULT].split())
    if not isinstance(job, Job):
        os.environ[ONCE] += ".probe"
        if "probe" in faults:
            once(die)
        return run_job(job, send, stop_asked)
    present = _beside() / str(os.getpid())
    present.touch()
    try:
        return _sabotaged(job, faults, send, stop_asked)
    finally:
        present.unlink()


def _sabotaged(job: Job, faults: dict[str, str], send: Send, stop_asked: Callable[[], bool]) -> Any:
    name, _, argument = faults.get(job.recipe.method, "").partition(":")
    os.environ[ONCE] = f"{os.environ[ONCE]}.{job.recipe.method}"
    if name != "slow":  # what happens at a moment finds every epoch saved, which short ones are not otherwise
        job = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, checkpoint_every=0))
    acts: dict[str, Callable[[Training], None]] = {
        "slow": lambda training: time.sleep(PAUSE),
        "die": lambda training: once(die),
        "diverge": diverge,
        "explode": explode,
        "memory": run_out_of_memory,
        "crowded": run_out_of_memory_beside_others,
    }
    if name in acts:
        job = dataclasses.replace(
            job, callbacks=(*job.callbacks, AtStep(int(argument) if argument else None, acts[name]))
        )
    elif name:
        patches: dict[str, Callable[[], None]] = {
            "in_checkpoint": lambda: in_checkpoint(int(argument)),
            "between_checkpoints": lambda: between_checkpoints(int(argument)),
            "after_finish": after_finish,
        }
        patches[name]()
    return run_cell(job, send, stop_asked)
