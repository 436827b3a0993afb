"""Training steps, ours and the released way, in turn in one process: images a second, ratios, peak memory.

    python -m benchmarks.training [--rounds 5] [--threads 2] [--only resnet32] [--device cpu] [--out FILE]

Full DHM with the released side branches on images of 32 by 32 in 100 classes, the data included: a step of ours comes
out of `dhm.engine.train_one_epoch`; one of the released way takes its batch from a DataLoader that is under way. Every
round takes some steps of each arm; the ratio is that of the medians over rounds, the range that of the rounds' own.
The round that warms up is not counted; where an arm is compiled, its seconds are noted beside the figures.
Each arm's peak memory is that of a process of its own that takes two steps, the median of three processes: what the
allocator makes of the same requests differs by some percent from one to the next.
"""

import argparse
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import describe, device_words, settle, write
from benchmarks.released_way import ReleasedWay, loader
from dhm.data import RawData
from dhm.engine import torch_settings, train_one_epoch
from dhm.recipe import Recipe
from dhm.training import Runtime, Training
from experiments.benchmarks import BENCHMARKS

SETTINGS = (("resnet32", 128, 3), ("resnet110", 32, 2), ("densenet_40_12", 32, 2), ("wrn_16_8", 16, 2))
RELEASED = "released way"
OURS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ours": ({}, {}),
    "channels_last": ({"channels_last": True}, {}),
    "channels_last, compile": ({"channels_last": True, "compile": True}, {}),
    "channels_last, bf16": ({"channels_last": True}, {"precision": "bf16"}),
    "channels_last, recompute": ({"channels_last": True, "recompute": True}, {}),
}
# Recomputing is for the one that is short of memory; the deep ones take many minutes to compile on a few cores.
ONLY = {"recompute": ("densenet_40_12",), "compile": ("resnet32", "wrn_16_8")}
CLASSES = 100
PROCESSES = 3  # whose peak memory is measured


def recipe_of(arch: str, batch_size: int) -> Recipe:
    """DHM on CIFAR-100 at a batch size; without dropout, as the released code runs."""
    recipe = BENCHMARKS.get("cifar100").base(arch, "released")
    return dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, batch_size=batch_size))


def images(count: int) -> RawData:
    """Random pixels and labels in the shape of CIFAR-100."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    test_images, test_labels = pixels[:CLASSES], labels[:CLASSES]
    return RawData(
        train_images=pixels,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
    )


def arm(name: str, recipe: Recipe, steps: int, *, threads: int, rounds: int, device: str) -> Callable[[], None]:
    """Something that takes `steps` steps when it is called, `rounds` times at most."""
    batch = recipe.optim.batch_size
    if name == RELEASED:
        released = ReleasedWay(recipe, 0, in_channels=3, num_classes=CLASSES, device=device)
        batches = iter(loader(images(batch * steps), recipe, length=batch * steps * (rounds + 1), device=device))
        # Its scripts let cuDNN choose the quickest kernels (cifar.py, imagenet.py: cudnn.benchmark).
        anyhow = Runtime(device=device, threads=threads, deterministic=False)
        return lambda: _under(recipe, anyhow, lambda: released.train(itertools.islice(batches, steps)))
    runtime, changes = OURS[name]
    where = Runtime(device=device, threads=threads, **runtime)
    recipe = dataclasses.replace(recipe, **changes)
    training = Training(recipe, 0, where, images(batch * steps))
    return lambda: _under(recipe, where, lambda: train_one_epoch(training))


def _under(recipe: Recipe, runtime: Runtime, call: Callable[[], object]) -> None:
    """Do something with torch's settings as a run has them."""
    with torch_settings(recipe, runtime):
        call()


@contextlib.contextmanager
def fresh_compiler() -> Iterator[None]:
    """What torch.compile keeps on disk is kept elsewhere for a while, so that nothing is there from an earlier time."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        yield
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def compared(seconds: Mapping[str, Sequence[float]], images: int) -> dict[str, dict[str, Any]]:
    """Images a second of every arm from its rounds of so many images, and how it compares with the released way."""
    found: dict[str, dict[str, Any]] = {}
    for name, times in seconds.items():
        ratios = [theirs / own for theirs, own in zip(seconds[RELEASED], times, strict=True)]
        found[name] = {
            "images_per_s": images / median(times),
            "ratio": median(seconds[RELEASED]) / median(times),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return found


def words(arch: str, name: str, figures: Mapping[str, Any]) -> str:
    """A line on an arm that was `compared`."""
    low, high = figures["ratio_range"]
    speed = f"{figures['images_per_s']:8.1f} images/s  x {figures['ratio']:.2f} ({low:.2f} to {high:.2f})"
    return f"{arch:15} {name:24} {speed}"


def measure(arch: str, batch_size: int, steps: int, *, rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Images a second and memory of every arm, and how each compares with the released way."""
    recipe = recipe_of(arch, batch_size)
    names = [RELEASED, *(name for name in OURS if all(arch in only for way, only in ONLY.items() if way in name))]
    arms = {name: arm(name, recipe, steps, threads=threads, rounds=rounds + 1, device=device) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    warming: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, take in arms.items():
            started = time.perf_counter()
            take()
            settle(device)
            took = time.perf_counter() - started
            if turn:  # the first one warms up
                seconds[name].append(took)
            else:
                warming[name] = took
    found = compared(seconds, batch_size * steps)
    for name, figures in found.items():
        figures["peak_mib"] = peak(name, arch, batch_size, threads, device)
        if "compile" in name:
            figures["compile_s"] = warming[name] - median(seconds[name])
    return {"batch_size": batch_size, "steps": steps, "arms": found}


def peak(name: str, arch: str, batch_size: int, threads: int, device: str) -> float:
    """Peak memory in MiB of a process that takes two steps, less what it had before; on a GPU, of its tensors.

    The median of `PROCESSES` of them.
    """
    found = []
    for _ in range(PROCESSES):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(_peak, name, arch, batch_size, threads, device).result())
    return median(found)


def _peak(name: str, arch: str, batch_size: int, threads: int, device: str) -> float:
    torch.set_num_threads(threads)
    before = _high_water()
    arm(name, recipe_of(arch, batch_size), 2, threads=threads, rounds=1, device=device)()
    return _high_water() - before if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20


def _high_water() -> float:
    """The most memory that this process has held, in MiB. (`getrusage` tells a spawned child its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=[arch for arch, _, _ in SETTINGS])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    machine = describe(threads=options.threads, **device_words(options.device))
    for arch, batch_size, steps in SETTINGS:
        if options.only not in (None, arch):
            continue
        with fresh_compiler():
            results[arch] = measure(
                arch, batch_size, steps, rounds=options.rounds, threads=options.threads, device=options.device
            )
        for name, figures in results[arch]["arms"].items():
            print(
                f"{words(arch, name, figures)}  {figures['peak_mib']:7.0f} MiB"
                + (f"  compiled in {figures['compile_s']:.0f} s" if "compile_s" in figures else ""),
                flush=True,
            )
    command = f"python -m benchmarks.training --rounds {options.rounds} --threads {options.threads}"
    command += "" if options.only is None else f" --only {options.only}"
    command += "" if options.device == "cpu" else f" --device {options.device}"
    write(options.out, command, machine, settings=results)


if __name__ == "__main__":
    main()
