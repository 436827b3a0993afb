"""The page of all measurements, made from what they wrote into benchmarks/results.

    python -m benchmarks.page

Every section has the command, the machine, its load and the day; a measurement that was not made says so.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")
PAGE = Path("docs/benchmarks.md")
Rows = Iterator[Sequence[str]]

HEAD = """# What it costs

How quick training, data, studies and analysis are, beside the released code's way of doing the same mathematics
([benchmarks/released_way.py](../benchmarks/released_way.py)). `make bench` measures all of it anew and writes this
page; one line of it alone is measured by the command that stands beside it, and `python -m benchmarks.page` writes the
page again.

No GPU was at hand: every figure here is from a CPU. On a machine that has one, these commands measure there:

```bash
python -m benchmarks.training --device cuda --out benchmarks/results/training_cuda.json
python -m benchmarks.data --device cuda --out benchmarks/results/data_cuda.json
python -m benchmarks.input --device cuda --batch-size 256 --workers 16 --out benchmarks/results/input_cuda.json
```
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A measurement's part of the page.

    Args:
        text: what was measured, and how to read it.
        header: of its table.
        rows: the table, from what the measurement wrote.
    """

    title: str
    text: str
    header: Sequence[str]
    rows: Callable[[dict[str, Any]], Rows]


def _arms(found: dict[str, Any]) -> Iterator[tuple[Sequence[str], dict[str, Any]]]:
    """The first columns of every arm that was held against the released way, and what was measured of it."""
    for arch, setting in found["settings"].items():
        for name, arm in setting["arms"].items():
            low, high = arm["ratio_range"]
            ratio = f"{arm['ratio']:.2f} ({low:.2f} to {high:.2f})"
            yield (arch, f"{setting['batch_size']}", name, f"{arm['images_per_s']:,.1f}", ratio), arm


ARMS = ("network", "batch", "way", "images/s", "times the released way")


def _training(found: dict[str, Any]) -> Rows:
    for columns, arm in _arms(found):
        yield *columns, f"{arm['peak_mib']:,.0f}", f"{arm['compile_s']:.0f}" if "compile_s" in arm else ""


def _epoch(found: dict[str, Any]) -> Rows:
    for columns, arm in _arms(found):
        if "tracking_ms" in arm:
            yield *columns, f"{arm['tracking_ms']:.0f}", f"{100 * arm['tracking_share']:.3f} %"
        else:
            yield *columns, "", ""


def _data(found: dict[str, Any]) -> Rows:
    for name, arm in found["arms"].items():
        yield name, f"{arm['images_per_s']:,.0f}", f"{arm['ratio']:.1f}"


def _input(found: dict[str, Any]) -> Rows:
    for view, arms in found["input"].items():
        for name, arm in arms.items():
            yield (
                f"{view}: {name}",
                f"{arm['images_per_s']:,.0f}",
                f"{arm['ratio']:.2f}",
                f"{arm['processor_ms']:.1f}",
                "",
                "",
            )
    cores = found["input"]["training"]["ours, 2 workers"]["processor_ms"] / 1000
    for name, arm in found["training"].items():
        yield (
            name,
            f"{arm['images_per_s']:,.1f}",
            "",
            f"{arm['processor_ms']:.0f}",
            f"{cores * arm['images_per_s']:.3f}",
            f"{100 * arm['with_input']:.0f} %",
        )
    yield "any network, on any device", "1,000", "", "", f"{1000 * cores:.1f}", ""


OVERHEAD = {
    "cells": "cells",
    "prepare_s": "until the first cell can start, s",
    "study_s": "from then to the end of the study, s",
    "cell_s": "a cell in its slot, s",
    "cell_training_s": "of that training and evaluation, s",
    "cell_outside_training_s": "and all the rest, s",
    "first_step_s": "from a free slot to the first training step, s",
    "tracking_s": "for which the record of a cell holds it up, s",
    "share_tracking": "share of that in the slots' time",
    "share_outside_training": "share of the slots' time outside training",
    "alone_training_s": "the same training alone in one process, s",
}


def _overhead(found: dict[str, Any]) -> Rows:
    for name, words in OVERHEAD.items():
        value = found[name]
        yield (
            words,
            f"{100 * value:.0f} %" if "share" in name else f"{value:.2f}" if isinstance(value, float) else value,
        )


def _pruning(found: dict[str, Any]) -> Rows:
    for name, row in found["pruners"].items():
        best = ", ".join(f"{error:.1f} %" for error in row["best"])
        yield name, f"{row['pruned']} of {row['trials']}", f"{100 * row['saved']:.0f} %", best


def _scaling(found: dict[str, Any]) -> Rows:
    for row in found["results"]:
        yield (
            f"{row['cells']:,}",
            f"{row['plan_cpu_s']:.1f}",
            f"{row['cpu_ms']:.0f}",
            f"{100 * row['idle_share']:.1f} %",
            f"{row['again_cpu_s']:.1f}",
        )


def _analysis(found: dict[str, Any]) -> Rows:
    for row in found["results"]:
        for phase in (name for name, value in row.items() if isinstance(value, dict)):
            yield (
                f"{row['runs']:,}",
                f"{row['grids']}",
                phase.replace("_", " ") if phase != "search_runs" else "`search_runs` alone",
                f"{row[phase]['processor_s']:.1f}",
                f"{row[phase]['wall_s']:.1f}",
                f"{row[phase]['memory_gib']:.2f}",
            )


SECTIONS = {
    "data": Section(
        title="training images a second, data alone",
        text="Order, random crops, flips and normalisation of images of 32 by 32, in batches of 128: the set as one\n"
        "tensor, against torchvision's transforms behind a DataLoader with two workers.",
        header=("way", "images/s", "times"),
        rows=_data,
    ),
    "input": Section(
        title="images of ImageNet's size, from their files",
        text="JPEGs of 500 by 375 pixels and about 110 kB, decoded, cropped to 224 at random and flipped, or to the\n"
        "central square, normalised, in batches of 32; the released way is torchvision's `ImageFolder` and transforms\n"
        "behind a DataLoader. Below, training of ResNet-18 from memory, the cores that must decode to keep up with\n"
        "it, and the share of its speed that is left where the run itself decodes its images as well. A device that\n"
        "trains at any other rate needs cores in proportion (`pool.workers`).",
        header=(
            "",
            "images/s",
            "times",
            "ms of processor an image",
            "cores that decode for it",
            "speed with its input",
        ),
        rows=_input,
    ),
    "training": Section(
        title="training steps with their data",
        text="Full DHM with the released side branches on images of 32 by 32 in 100 classes. Times: medians of arms\n"
        "that took turns in one process, and the range over rounds. Memory: the peak of a process of two steps, less\n"
        "what it had before, a compiler's own included. `channels_last` is `pool.channels_last=true`, `compile` is\n"
        "`pool.compile=true`, `recompute` is `pool.recompute=true`, and bf16 is `precision=bf16`.",
        header=(*ARMS, "peak MiB", "compiling, s"),
        rows=_training,
    ),
    "epoch": Section(
        title="whole epochs, with their data and their record",
        text="As above, but whole epochs: the released way starts its DataLoader's workers, has the host read every\n"
        "term at every step and prints; ours writes a checkpoint, and its metrics into MLflow. Epochs are of\n"
        "3,200 images (ResNet-32) and 128 (WRN-16-8); tracking's share is that of an epoch of 50,000.",
        header=(*ARMS, "tracking, ms an epoch", "share of an epoch of CIFAR-100"),
        rows=_epoch,
    ),
    "overhead": Section(
        title="what a study spends outside training",
        text="`grid=branch_positions` on `digits` with two slots, whose cells take seconds: the worst case.",
        header=("", "median"),
        rows=_overhead,
    ),
    "pruning": Section(
        title="what giving trials up saves in a search",
        text="`grid=mimicking_weight_search` on `digits` with each rule, from the same first proposals. Best: of each\n"
        "search, the error on the 40 held-out images by which it judges; one image is 2.5 %.",
        header=("rule", "trials given up", "epochs saved", "best error of each search"),
        rows=_pruning,
    ),
    "scaling": Section(
        title="what scheduling a cell costs",
        text="The real scheduler with simulated runs, see [beyond one machine](scaling.md). Again: the same command\n"
        "when all is done.",
        header=("cells", "plan, s", "a cell, ms of processor", "slots that wait for it", "again, s"),
        rows=_scaling,
    ),
    "analysis_scale": Section(
        title="reading large stores, and their tables and figures",
        text="Made-up runs of 20 params and 20 metrics each, 12 of them with a history of 100 epochs. MLflow's\n"
        "`search_runs` alone, the reading of all records with nothing kept, and again; `python -m analysis.build`\n"
        "with nothing kept, with the record kept (`--all`), and where nothing has changed.",
        header=("runs", "grids", "", "processor, s", "wall, s", "memory, GiB"),
        rows=_analysis,
    ),
}
"""By the name of the module that measures, in the order of the page."""


def page(results: Path = RESULTS) -> str:
    """The page in Markdown, from the figures in a folder."""
    parts = [HEAD, *(_section(name, section, results / f"{name}.json") for name, section in SECTIONS.items())]
    return "\n".join(parts)


def write_page(out: Path = PAGE) -> None:
    """Write the page."""
    out.write_text(page(), encoding="utf-8")
    print(f"written to {out}")


def _section(name: str, section: Section, path: Path) -> str:
    head = f"## {section.title[0].upper()}{section.title[1:]}\n\n{section.text}\n\n"
    if not path.exists():
        return f"{head}Not measured yet: `python -m benchmarks.{name}`.\n"
    found = json.loads(path.read_text())
    lines = [section.header, ["---"] * len(section.header), *section.rows(found)]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"{head}{table}\n\n`{found['command']}`: {_machine(found['machine'])}.\n"


def _machine(machine: dict[str, Any]) -> str:
    cores, torch, load = machine.get("cores"), machine.get("torch"), machine.get("load")
    parts = [
        machine.get("device", ""),
        machine["processor"],
        "" if cores is None else f"{cores} cores",
        f"Python {machine['python']}",
        "" if torch is None else f"torch {torch}",
        "load not noted" if load is None else f"load before it {load:.2f}",
        machine.get("date", "day not noted"),
    ]
    return ", ".join(part for part in parts if part)


if __name__ == "__main__":
    write_page()
