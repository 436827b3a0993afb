"""Training images a second, data alone: ours on the device, and torchvision's transforms behind a DataLoader.

    python -m benchmarks.data [--rounds 5] [--threads 2] [--device cpu] [--out benchmarks/results/data.json]

An epoch of 10,000 images of 32 by 32, in batches of 128: order, random crops of the padded image, flips, normalisation.
The DataLoader has two workers and is timed once they are under way; both arms take their turn in one process.
"""

import argparse
import time
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.machine import describe, device_words, settle, write
from benchmarks.released_way import WORKERS, loader
from benchmarks.training import RELEASED, images, recipe_of

IMAGES, BATCH = 10_000, 128
EPOCHS = 5  # of ours at a time; one is over in hundredths of a second
SETTLE = 1.0  # seconds in which the loader's workers fill their queue again, and then stand still


def drain(batches: Iterable[tuple[Tensor, Tensor]], device: str) -> float:
    """Images a second of what takes batches to a device and does nothing with them."""
    count, started = 0, time.perf_counter()
    for pixels, labels in batches:
        pixels.to(device, non_blocking=True)
        count += len(labels)
    settle(device)
    return count / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, and write the figures with the machine that they are from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe(threads=options.threads, workers=WORKERS, **device_words(options.device))
    recipe, raw = recipe_of("resnet32", BATCH), images(IMAGES)
    ours = raw.open(recipe.data, 0, batch_size=BATCH, device=torch.device(options.device)).train
    steps = IMAGES // BATCH
    theirs = iter(loader(raw, recipe, length=(options.rounds + 1) * steps * BATCH, device=options.device))
    found: dict[str, list[float]] = {RELEASED: [], "ours": []}
    for turn in range(options.rounds + 1):
        rates = {RELEASED: drain(islice(theirs, steps), options.device)}
        time.sleep(SETTLE)
        several = chain.from_iterable(ours.epoch(0, EPOCHS * turn + number) for number in range(EPOCHS))
        rates["ours"] = drain(several, options.device)
        if turn:  # the first one warms up
            for name, rate in rates.items():
                found[name].append(rate)
    figures = {
        name: {"images_per_s": median(rates), "ratio": median(rates) / median(found[RELEASED])}
        for name, rates in found.items()
    }
    for name, row in figures.items():
        print(f"{name:14} {row['images_per_s']:10,.0f} images/s  x {row['ratio']:.1f}")
    command = f"python -m benchmarks.data --rounds {options.rounds} --threads {options.threads}"
    command += "" if options.device == "cpu" else f" --device {options.device}"
    write(options.out, command, machine, arms=figures)


if __name__ == "__main__":
    main()
