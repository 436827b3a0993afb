"""Whole training epochs, data and logging included: ours with its record in MLflow, and the released way, in turn.

    python -m benchmarks.epoch [--rounds 3] [--threads 2] [--only resnet32] [--out benchmarks/results/epoch.json]

Full DHM with the released side branches on images of 32 by 32 in 100 classes. An epoch of the released way starts its
DataLoader's workers, has the host read every term of the loss at every step, and prints a line every ten steps; one of
ours ends with a checkpoint and with its metrics in an SQLite store. Epochs are shorter than CIFAR-100's 50,000 images,
so that what an epoch costs once weighs more here than there; the share of tracking is given for 50,000 images, at the
measured rate.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import describe, write
from benchmarks.recording import Watched, record_info
from benchmarks.released_way import ReleasedWay, loader
from benchmarks.training import CLASSES, OURS, RELEASED, compared, fresh_compiler, images, recipe_of, words
from dhm.data import RawData
from dhm.engine import train_one_epoch
from dhm.recipe import Recipe
from dhm.training import EpochRecord, Runtime, Training

SETTINGS = (("resnet32", 128, 25), ("wrn_16_8", 16, 8))
ARMS = (RELEASED, "ours", "channels_last", "channels_last, compile", "channels_last, bf16")
PRINTED = 10  # steps between the lines of the released way
CIFAR = 50_000  # images of an epoch


class TheirEpoch:
    """An epoch as the released scripts train and print it."""

    def __init__(self, recipe: Recipe, raw: RawData, log: Path) -> None:
        self._recipe, self._raw, self._log = recipe, raw, log
        self._way = ReleasedWay(recipe, 0, in_channels=3, num_classes=CLASSES)
        self.tracking: list[float] = []

    def __call__(self) -> None:
        """One pass over the images."""
        with self._log.open("a") as log:
            for number, batch in enumerate(loader(self._raw, self._recipe, length=len(self._raw.train_labels))):
                (terms,) = self._way.train([batch])
                if number % PRINTED == 0:
                    print(number, *(f"{name} {value:.4f}" for name, value in terms.items()), file=log, flush=True)


class OurEpoch:
    """An epoch with its checkpoint and its record."""

    def __init__(self, name: str, recipe: Recipe, raw: RawData, threads: int, store: Path) -> None:
        settings, changes = OURS[name]
        recipe = dataclasses.replace(recipe, **changes)
        runtime = Runtime(threads=threads, checkpoint=store / f"{name}.ckpt", checkpoint_every=0, **settings)
        self._training = Training(recipe, 0, runtime, raw)
        self._recorder = Watched(record_info(store, name), every=0)
        self._recorder.open(shared=False)
        self._recorder.on_start(self._training)
        self.tracking: list[float] = []

    def __call__(self) -> None:
        """One pass over the images."""
        training = self._training
        metrics = train_one_epoch(training)
        training.history.append(EpochRecord(training.epoch, time.time(), metrics))
        training.save()
        before = self._recorder.seconds
        self._recorder.on_epoch_end(training)
        self.tracking.append(self._recorder.seconds - before)


def measure(arch: str, batch_size: int, steps: int, *, rounds: int, threads: int, folder: Path) -> dict[str, Any]:
    """Images a second of every arm, and how each compares with the released way."""
    recipe, raw = recipe_of(arch, batch_size), images(batch_size * steps)
    arms: dict[str, TheirEpoch | OurEpoch] = {
        name: TheirEpoch(recipe, raw, folder / "log")
        if name == RELEASED
        else OurEpoch(name, recipe, raw, threads, folder / arch)
        for name in ARMS
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, epoch in arms.items():
            took = _seconds(epoch)
            if turn:  # the first one warms up, and compiles
                seconds[name].append(took)
    found = compared(seconds, batch_size * steps)
    for name, figures in found.items():
        if arms[name].tracking:
            tracking = median(arms[name].tracking)
            share = tracking / (CIFAR / figures["images_per_s"])
            figures |= {"tracking_ms": 1000 * tracking, "tracking_share": share}
    return {"batch_size": batch_size, "steps": steps, "arms": found}


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=[arch for arch, _, _ in SETTINGS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/epoch.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe(threads=options.threads)
    results: dict[str, Any] = {}
    for arch, batch_size, steps in SETTINGS:
        if options.only not in (None, arch):
            continue
        with fresh_compiler(), tempfile.TemporaryDirectory() as folder:
            results[arch] = measure(
                arch, batch_size, steps, rounds=options.rounds, threads=options.threads, folder=Path(folder)
            )
        for name, figures in results[arch]["arms"].items():
            print(
                words(arch, name, figures)
                + (f"  tracking {figures['tracking_ms']:.0f} ms an epoch" if "tracking_ms" in figures else ""),
                flush=True,
            )
    command = f"python -m benchmarks.epoch --rounds {options.rounds} --threads {options.threads}"
    command += "" if options.only is None else f" --only {options.only}"
    write(options.out, command, machine, settings=results)


if __name__ == "__main__":
    main()
