"""Images of ImageNet's size from files to batches, ours and the released way; and how many cores of it training takes.

    python -m benchmarks.input [--images 512] [--rounds 5] [--threads 2] [--device cpu] [--out FILE]

Files are made first: JPEGs of smooth noise, in size and bytes like ImageNet's. All ways take their turn in one process,
an epoch each; the clock starts when their workers are under way, and ends with the last batch on the device. Processor
time is that of all processes of an epoch, an image's share. Training is that of ResNet-18, plain and as DHM with its
released side branches, once from memory and once with its images decoded meanwhile.
"""

import argparse
import dataclasses
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.machine import describe, device_words, settle, write
from dhm.data import DataError, DataSet, RawData, load
from dhm.engine import torch_settings, train_one_epoch
from dhm.recipe import DataSpec, Recipe
from dhm.training import Runtime, Training
from experiments.benchmarks import BENCHMARKS

WIDTH, HEIGHT, QUALITY = 500, 375, 95
BATCH = 32
PHOTOGRAPHS = 128
RELEASED = "released way, 2 workers"
OURS = "ours, 2 workers"
WORKERS = {"ours, no worker": 0, "ours, 1 worker": 1, OURS: 2}
DALI = "ours, decoder=dali, 2 threads"
VIEWS = ("training", "evaluation")
Batches = Iterable[tuple[Tensor, Tensor]]
Way = Callable[[str], Batches]
"""The batches of a view."""


def photograph(seed: int) -> Image.Image:
    """Smooth noise: as a JPEG it has the bytes of a photograph of its size."""
    generator = np.random.default_rng(seed)
    pixels = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
    for octave in range(7):
        cells = 4 * 2**octave
        coarse = generator.normal(0, 40 * 0.85**octave, (cells * HEIGHT // WIDTH, cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel])
            pixels[..., channel] += np.asarray(plane.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def take_photographs(folder: Path) -> list[Path]:
    """`PHOTOGRAPHS` different files."""
    files = [folder / f"{number}.JPEG" for number in range(PHOTOGRAPHS)]
    for number, file in enumerate(files):
        photograph(number).save(file, format="JPEG", quality=QUALITY)
    return files


def lay_out(root: Path, photographs: Sequence[Path], count: int) -> Path:
    """`train/CLASS` and `val/CLASS` with `count` images each: the photographs, over and over."""
    for number in range(count):
        for split in ("train", "val"):
            path = root / split / f"n{number % 2}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(photographs[number % len(photographs)])
    return root


def released(root: Path, spec: DataSpec, device: str) -> Way:
    """torchvision's transforms, image by image, behind a DataLoader with two workers."""
    seen = {
        "training": [transforms.RandomResizedCrop(spec.image_size), transforms.RandomHorizontalFlip()],
        "evaluation": [transforms.Resize(spec.resize), transforms.CenterCrop(spec.image_size)],
    }
    loaders = {
        view: DataLoader(
            datasets.ImageFolder(
                root / folder,
                transforms.Compose([*seen[view], transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]),
            ),
            batch_size=BATCH,
            shuffle=view == "training",
            num_workers=2,
            pin_memory=device != "cpu",
        )
        for view, folder in zip(VIEWS, ("train", "val"), strict=True)
    }
    return lambda view: loaders[view]


def ours(data: DataSet, spec: DataSpec, device: str, workers: int) -> Way:
    """What a run reads."""
    run = data.open(spec, 0, batch_size=BATCH, device=device, workers=workers)
    return lambda view: run.train.epoch(0, 0) if view == "training" else run.test.batches(BATCH)


def dali(root: Path, spec: DataSpec, device: str) -> dict[str, Way]:
    """The same with DALI, where it is installed."""
    spec = dataclasses.replace(spec, decoder="dali")
    try:
        return {DALI: ours(load(spec, root), spec, device, 2)}
    except DataError:
        return {}


def drain(batches: Batches, device: str, workers: int) -> tuple[float, float]:
    """Images a second of what brings batches to a device, once its workers are under way; and milliseconds of
    processor time an image, all processes together."""
    began, count, late, started = processor(), 0, 0, 0.0
    for number, (pixels, labels) in enumerate(batches):
        pixels.to(device, non_blocking=True)
        count += len(labels)
        if number < max(1, workers):
            settle(device)
            late, started = count, time.perf_counter()
    settle(device)
    rate = (count - late) / (time.perf_counter() - started)
    return rate, 1000 * (processor() - began) / count


def processor() -> float:
    """Seconds of processor time so far, of this process and of those that it started and that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_input(root: Path, spec: DataSpec, *, rounds: int, device: str) -> dict[str, Any]:
    """Every way's speed and cost, by view."""
    data = load(spec, root)
    ways = {RELEASED: released(root, spec, device)}
    ways |= {name: ours(data, spec, device, workers) for name, workers in WORKERS.items()} | dali(root, spec, device)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {view: {name: [] for name in ways} for view in VIEWS}
    for turn in range(rounds + 1):
        for view in VIEWS:
            for name, way in ways.items():
                once = drain(way(view), device, WORKERS.get(name, 2))
                if turn:  # the first one warms up
                    found[view][name].append(once)
    return {
        view: {name: _figures(turns, arms[RELEASED]) for name, turns in arms.items()} for view, arms in found.items()
    }


def _figures(turns: Sequence[tuple[float, float]], released: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Medians over rounds; the ratio is that within a round, for the load of a machine changes between them."""
    return {
        "images_per_s": median(rate for rate, _ in turns),
        "processor_ms": median(cost for _, cost in turns),
        "ratio": median(own / their for (own, _), (their, _) in zip(turns, released, strict=True)),
    }


def recipes(batch_size: int) -> dict[str, Recipe]:
    """ResNet-18 with the released side branches, and without any."""
    full = BENCHMARKS.get("imagenet").base("resnet18", "released")
    full = dataclasses.replace(full, optim=dataclasses.replace(full.optim, batch_size=batch_size))
    return {"ResNet-18, plain": dataclasses.replace(full, branches=(), mimic=None), "ResNet-18, DHM": full}


def in_memory(spec: DataSpec, count: int) -> RawData:
    """Random pixels in the shape that training sees."""
    shape = (count, 3, spec.image_size, spec.image_size)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(count) % 2
    return RawData(
        train_images=pixels,
        train_labels=labels,
        test_images=pixels[:2],
        test_labels=labels[:2],
        classes=("n0", "n1"),
    )


def measure_training(
    root: Path, *, batch_size: int, steps: int, rounds: int, threads: int, workers: int, device: str
) -> dict[str, Any]:
    """Images a second and processor time of training alone, and its speed with its input as a share of that.

    Args:
        root: with as many training images as a turn takes.
    """
    count = steps * batch_size
    arms: dict[tuple[str, bool], Training] = {}
    for name, recipe in recipes(batch_size).items():
        runtime = Runtime(device=device, threads=threads, workers=workers)
        resident = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, augment="shift"))
        arms[name, False] = Training(resident, 0, runtime, in_memory(recipe.data, count))
        arms[name, True] = Training(recipe, 0, runtime, load(recipe.data, root))
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {arm: [] for arm in arms}
    for turn in range(rounds + 1):
        for arm, training in arms.items():
            started, began = time.perf_counter(), processor()
            with torch_settings(training.recipe, training.runtime):
                train_one_epoch(training)
            settle(device)
            if turn:  # the first one warms up
                found[arm].append((time.perf_counter() - started, processor() - began))
    figures = {}
    for name in recipes(batch_size):
        alone, together = ([seconds for seconds, _ in found[name, streamed]] for streamed in (False, True))
        figures[name] = {
            "images_per_s": count / median(alone),
            "processor_ms": 1000 * median(used for _, used in found[name, False]) / count,
            "with_input": median(short / long for short, long in zip(alone, together, strict=True)),
        }
    return figures


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="images in a batch of training")
    parser.add_argument("--steps", type=int, default=2, help="of training, a turn; many where it has workers")
    parser.add_argument("--workers", type=int, default=0, help="that decode while it trains")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/input.json"))
    options = parser.parse_args()
    if options.images < 4 * BATCH:
        parser.error(f"--images {options.images}: at least {4 * BATCH}, for workers to get under way")
    torch.set_num_threads(options.threads)
    device, rounds = options.device, options.rounds
    words = {name: getattr(options, name) for name in ("threads", "batch_size", "steps", "workers")}
    machine = describe(**words, **device_words(device))
    with tempfile.TemporaryDirectory() as folder:
        files = take_photographs(Path(folder))
        kilobytes = sum(file.stat().st_size for file in files) / len(files) / 1000
        many = lay_out(Path(folder) / "input", files, options.images)
        read = measure_input(many, BENCHMARKS.get("imagenet").data, rounds=rounds, device=device)
        few = lay_out(Path(folder) / "training", files, options.steps * options.batch_size)
        trained = measure_training(few, rounds=rounds, device=device, **words)
    for view, arms in read.items():
        for name, row in arms.items():
            print(
                f"{view:12} {name:32} {row['images_per_s']:8,.0f} images/s  x {row['ratio']:.2f}  "
                f"{row['processor_ms']:6.2f} ms of processor an image"
            )
    for name, row in trained.items():
        print(
            f"{name:45} {row['images_per_s']:8,.1f} images/s  with its input x {row['with_input']:.2f}  "
            f"{row['processor_ms']:6.1f} ms of processor an image"
        )
    command = f"python -m benchmarks.input --images {options.images} --rounds {options.rounds}"
    command += "".join(f" --{name.replace('_', '-')} {value}" for name, value in words.items())
    command += "" if device == "cpu" else f" --device {device}"
    write(options.out, command, machine, kilobytes=kilobytes, input=read, training=trained)


if __name__ == "__main__":
    main()
